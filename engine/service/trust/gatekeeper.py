"""The interceptor that knows callers: before a byte of a request is read, it is decided whether the caller may make it."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NoReturn

import grpc
import grpc.aio
from cryptography import x509

from engine.control.sessions.reuse.digests import field_digest
from engine.data.errors import InvalidInput, Unauthenticated, Unauthorized
from engine.service.errors import status_code
from engine.service.options import Role
from engine.service.trust.certificates import described
from engine.service.trust.guard import Guard
from engine.service.trust.roles import METHOD_ROLES

MAX_FOR_CALLER_BYTES = 64
_TAKEN_BACK, _REVOKED = "its token was taken back", "its certificate was revoked"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a call: `name` and `serial` come from a certificate, and are empty without one."""

    role: Role
    name: str = ""
    serial: int = 0
    token: str = ""


@dataclass(slots=True)
class Call:
    """One call of a caller who showed something; `why_cut` is why it was ended from here, empty while it is not."""

    caller: Caller
    why_cut: str = ""


_EVERYBODY = Call(Caller(Role.COORDINATOR))  # without tokens and certificates everybody has the highest role
_call: ContextVar[Call] = ContextVar("call", default=_EVERYBODY)


def check_caller_is(name: str) -> None:
    """Raise Unauthorized if the caller of this request showed a certificate of another name."""
    if caller_name() not in ("", name):
        raise Unauthorized(f"the certificate is that of {caller_name()}, which cannot speak as {name[:80]}")


def caller_name() -> str:
    """The name in the certificate of this request's caller; empty without certificates."""
    return _call.get().caller.name


def caller_digest(for_caller: bytes) -> bytes:
    """Who asks, as nobody can choose it: what the caller of this request showed, and for whom it asks by its own word.

    Raises InvalidInput. Callers who showed nothing, where nothing is asked for, are one.
    """
    if len(for_caller) > MAX_FOR_CALLER_BYTES:
        raise InvalidInput(f"for_caller has {len(for_caller)} bytes, the limit is {MAX_FOR_CALLER_BYTES}: send a hash")
    caller = _call.get().caller
    return field_digest((caller.token.encode(), caller.name.encode(), for_caller))


def caller_role() -> Role:
    """The role of this request's caller."""
    return _call.get().caller.role


def why_cut() -> str:
    """Why this request was ended from here: what its caller showed counts no more; empty if it was not."""
    return _call.get().why_cut


class Gatekeeper(grpc.aio.ServerInterceptor):
    """Refuses methods that no rule names, unknown callers, and roles below what the method asks for; cuts those that are revoked."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._calls: dict[asyncio.Task[Any], Call] = {}  # that go on for long
        guard.on_reload(self._cut_revoked)

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]], handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        needed = METHOD_ROLES.get(handler_call_details.method)
        try:
            if needed is None:
                raise Unauthorized(f"{handler_call_details.method} is open to nobody")
            token, role = self._by_token(_header(handler_call_details))
            _check_role(role, needed, handler_call_details.method, "token")
        except Unauthorized as e:
            return _refusal(handler, status_code(e), str(e))
        if not self._guard.known.tokens and not self._guard.asks_for_certificates:
            return handler
        return self._guarded(handler, needed, handler_call_details.method, token, role)

    # ------------------------------------------------------------------------------------------ who it is
    def _by_token(self, header: str) -> tuple[str, Role]:
        tokens = self._guard.known.tokens
        if not tokens:
            return "", Role.COORDINATOR
        presented = header.removeprefix("Bearer ").encode()
        for token, role in tokens.items():
            if hmac.compare_digest(token.encode(), presented):
                return token, Role.COORDINATOR if role is Role.WORKER else role
        hint = "give --token-file, --token or NOODLE_TOKEN"
        raise Unauthenticated(f"this cluster does not know the token: {hint}" if header else f"this cluster asks for a token: {hint}")

    def _caller(self, context: grpc.aio.ServicerContext, needed: Role, method: str, token: str, role: Role) -> Caller:
        if not self._guard.asks_for_certificates:
            return Caller(role, token=token)
        shown = context.auth_context().get("x509_pem_cert") or []
        if not shown:
            raise Unauthorized("this cluster asks for a certificate: give --tls-cert and --tls-key")
        name, by_certificate, serial = _certificate(bytes(shown[0]))
        caller = Caller(min(role, by_certificate), name, serial, token)
        if serial in self._guard.known.revoked:
            raise Unauthorized(f"the certificate of {name} was revoked")
        _check_role(by_certificate, needed, method, "certificate")
        return caller

    # ------------------------------------------------------------------------------------------ calls
    def _guarded(self, handler: Any, needed: Role, method: str, token: str, role: Role) -> Any:
        kind = _kind(handler)
        inner = getattr(handler, kind)

        async def generate(request: Any, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
            _call.set(call := Call(self._caller(context, needed, method, token, role)))
            with self._may_be_cut(call):
                async with contextlib.aclosing(inner(request, context)) as answers:
                    async for answer in answers:
                        yield answer

        async def answer(request: Any, context: grpc.aio.ServicerContext) -> Any:
            _call.set(call := Call(self._caller(context, needed, method, token, role)))
            if not handler.request_streaming and not handler.response_streaming:
                return await inner(request, context)
            with self._may_be_cut(call):
                return await inner(request, context)

        return handler._replace(**{kind: generate if inspect.isasyncgenfunction(inner) else answer})

    @contextlib.contextmanager
    def _may_be_cut(self, call: Call) -> Iterator[None]:
        """A call that goes on for long; its task is cancelled when its caller counts no more."""
        task = asyncio.current_task()
        if task is None:
            raise AssertionError("a call runs in a task")
        self._calls[task] = call
        try:
            yield
        except asyncio.CancelledError:
            if not call.why_cut:
                raise
            task.uncancel()
            raise Unauthorized(f"what this caller showed counts no more: {call.why_cut}") from None
        finally:
            self._calls.pop(task, None)

    def _cut_revoked(self) -> None:
        for task, call in self._calls.items():
            if not call.why_cut and (why := self._why_cut(call.caller)):
                call.why_cut = why
                task.cancel()

    def _why_cut(self, caller: Caller) -> str:
        """Why a caller counts no more; empty if it does."""
        known = self._guard.known
        if caller.token and caller.token not in known.tokens:
            return _TAKEN_BACK
        return _REVOKED if caller.serial and caller.serial in known.revoked else ""


def _check_role(role: Role, needed: Role, method: str, shown: str) -> None:
    if role < needed:
        raise Unauthorized(f"{method} needs the role {needed.name.lower()}, this {shown} has the role {role.name.lower()}")


@lru_cache(maxsize=1024)
def _certificate(pem: bytes) -> tuple[str, Role, int]:
    found = described(x509.load_pem_x509_certificate(pem))
    role = Role.__members__.get(found.role.upper())
    if role is None:
        raise Unauthorized(
            f"the certificate of {found.name[:80]!r} names no role of this program: make one with `noodle-engine certs node`"
        )
    return found.name, role, found.serial


def _header(details: grpc.HandlerCallDetails) -> str:
    return next((str(value) for key, value in details.invocation_metadata or () if key == "authorization"), "")


def _kind(handler: Any) -> str:
    return f"{'stream' if handler.request_streaming else 'unary'}_{'stream' if handler.response_streaming else 'unary'}"


def _refusal(handler: Any, code: grpc.StatusCode, text: str) -> Any:
    """Ends the call without reading what it brings: a stream is read only when its handler asks."""

    async def refuse(request: Any, context: grpc.aio.ServicerContext) -> NoReturn:
        await context.abort(code, text)
        raise AssertionError("abort returns never")

    return grpc.stream_unary_rpc_method_handler(refuse)
