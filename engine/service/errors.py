"""The one place where errors become gRPC status codes and back."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, NoReturn

import grpc
import grpc.aio

from engine.data.errors import (
    Bug,
    Cancelled,
    Corrupt,
    Exhausted,
    Gap,
    InvalidInput,
    NoodleError,
    NotFound,
    NotSupported,
    Refused,
    Stale,
    Unauthenticated,
    Unauthorized,
    Unavailable,
)
from engine.files import failure

log = logging.getLogger(__name__)

MAX_REASON_BYTES = 2000  # a header holds 8192, in which each may take three

# The first class listed for a code is the one that code turns back into.
_CODES: tuple[tuple[type[NoodleError], grpc.StatusCode], ...] = (
    (NotSupported, grpc.StatusCode.FAILED_PRECONDITION),
    (Refused, grpc.StatusCode.FAILED_PRECONDITION),
    (InvalidInput, grpc.StatusCode.INVALID_ARGUMENT),
    (NotFound, grpc.StatusCode.NOT_FOUND),
    (Stale, grpc.StatusCode.ABORTED),
    (Gap, grpc.StatusCode.OUT_OF_RANGE),
    (Exhausted, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (Unavailable, grpc.StatusCode.UNAVAILABLE),
    (Corrupt, grpc.StatusCode.DATA_LOSS),
    (Cancelled, grpc.StatusCode.CANCELLED),
    (Unauthenticated, grpc.StatusCode.UNAUTHENTICATED),
    (Unauthorized, grpc.StatusCode.PERMISSION_DENIED),
    (Bug, grpc.StatusCode.INTERNAL),
)
_CLASSES = {code: cls for cls, code in _CODES if cls is not NotSupported}
_CLASSES[grpc.StatusCode.DEADLINE_EXCEEDED] = Unavailable
_BY_NUMBER = {code.value[0]: code for code in grpc.StatusCode}


def status_code(error: BaseException) -> grpc.StatusCode:
    """The code an error travels as; INTERNAL for anything that is not ours."""
    return next((code for cls, code in _CODES if isinstance(error, cls)), grpc.StatusCode.INTERNAL)


def status_number(error: BaseException) -> int:
    """The same as a number, for errors inside messages."""
    return int(status_code(error).value[0])


def from_number(number: int, message: str) -> NoodleError:
    """The error that a number inside a message stands for."""
    return _CLASSES.get(_BY_NUMBER.get(number, grpc.StatusCode.INTERNAL), Bug)(message)


def from_rpc_error(error: grpc.RpcError, peer: str) -> NoodleError:
    """Turn a failed call into our error; `peer` names the other side when the transport itself failed."""
    code = error.code() if hasattr(error, "code") else grpc.StatusCode.UNAVAILABLE
    details = (error.details() if hasattr(error, "details") else "") or ""
    if code is grpc.StatusCode.UNAVAILABLE and not details.startswith(_OURS):
        return Unavailable(f"cannot reach {peer}: {_short(details)}; is it running, and is the address right?")
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return Refused(f"{peer} answers, but it is not a NoodleCore server of this version: check the address and both versions")
    return _CLASSES.get(code, Bug)(details.removeprefix(_OURS) or code.name.lower())


def is_transport_failure(error: grpc.RpcError) -> bool:
    """The connection broke, or the server ended it while it shut down; not an answer of ours."""
    code, details = error.code(), error.details() or ""
    return code is grpc.StatusCode.CANCELLED or (code is grpc.StatusCode.UNAVAILABLE and not details.startswith(_OURS))


_OURS = "noodle: "  # marks an UNAVAILABLE that a server of ours decided, against one that the transport made up


def _short(details: str) -> str:
    """The reason behind gRPC's chain of wrappers, e.g. `Connection refused`."""
    return details.strip().rsplit(": ", 1)[-1][:160] or "no answer"


async def abort(context: grpc.aio.ServicerContext, error: BaseException) -> NoReturn:
    """End the call with the status of `error`; an unexpected one is logged and leaves only its incident id."""
    known = as_noodle_error(error)
    code, text = status_code(known), _bounded(str(known))
    await context.abort(code, (_OURS + text) if code is grpc.StatusCode.UNAVAILABLE else text)
    raise AssertionError("abort returns never")


def _bounded(text: str) -> str:
    """A reason travels in a header, which has little room, and may quote what the caller sent."""
    content = text.encode(errors="replace")
    return text if len(content) <= MAX_REASON_BYTES else f"{content[:MAX_REASON_BYTES].decode(errors='ignore')} [...]"


def incident(error: BaseException) -> Bug:
    """Log an unexpected error under a new incident id and return what the other side may see of it."""
    incident_id = secrets.token_hex(4)
    log.error("incident %s", incident_id, exc_info=error)
    return Bug(f"internal error, incident {incident_id}: look for it in the log of that process")


def as_noodle_error(error: BaseException) -> NoodleError:
    """What may be told to others of any exception; a disk or a limit of the system that failed is no bug of ours."""
    if isinstance(error, NoodleError):
        return error
    if isinstance(error, OSError) and not isinstance(error, TimeoutError | ConnectionError):
        return failure(error)
    return incident(error)


def logged(error: BaseException) -> NoodleError:
    """Log an error that nobody else will hear of; returns what the other side may see of it."""
    if isinstance(error, NoodleError):
        log.error("%s", error)
    return as_noodle_error(error)


@contextlib.contextmanager
def surviving() -> Iterator[None]:
    """What fails inside is logged, and has no other consequence."""
    try:
        yield
    except Exception as e:
        logged(e)


class CatchAll(grpc.aio.ServerInterceptor):
    """Every handler's exceptions leave as one of our status codes, never as UNKNOWN."""

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]], handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        name = f"{'stream' if handler.request_streaming else 'unary'}_{'stream' if handler.response_streaming else 'unary'}"
        behaviour = getattr(handler, name)
        # A stream is a generator, or a coroutine that writes by itself, as in gRPC's own health service.
        guarded = _generator(behaviour) if inspect.isasyncgenfunction(behaviour) else _coroutine(behaviour)
        return handler._replace(**{name: guarded})


def _coroutine(inner: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def guarded(request: Any, context: grpc.aio.ServicerContext) -> Any:
        async with _refusing(context):
            return await inner(request, context)

    return guarded


def _generator(inner: Callable[..., Any]) -> Callable[..., Any]:
    async def guarded(request: Any, context: grpc.aio.ServicerContext) -> Any:
        async with _refusing(context):
            async for message in inner(request, context):
                yield message

    return guarded


@contextlib.asynccontextmanager
async def _refusing(context: grpc.aio.ServicerContext) -> AsyncIterator[None]:
    """What fails inside ends the call with its status. If nobody is there any more to hear it, the call was cancelled."""
    try:
        yield
    except (asyncio.CancelledError, grpc.aio.AbortError):
        raise
    except grpc.aio.InternalError as e:  # gRPC could not send: mostly on a call that is over, which cannot be ended again
        with contextlib.suppress(grpc.aio.InternalError, grpc.aio.UsageError):
            await abort(context, Unavailable("the call broke"))
        raise asyncio.CancelledError("the caller is gone") from e
    except Exception as e:
        try:
            await abort(context, e)
        except grpc.aio.InternalError as broken:
            raise asyncio.CancelledError("the caller is gone") from broken
