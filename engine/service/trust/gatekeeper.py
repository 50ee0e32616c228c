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

from engine.data.errors import Unauthorized
from engine.service.options import Role
from engine.service.trust.certificates import described
from engine.service.trust.guard import Guard
from engine.service.trust.roles import METHOD_ROLES

_CUT = "what this caller showed counts no more: its token was taken back, or its certificate revoked"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a call: `name` and `serial` come from a certificate, and are empty without one."""

    role: Role
    name: str = ""
    serial: int = 0
    token: str = ""


_END = object()
_caller: ContextVar[Caller | None] = ContextVar("caller", default=None)


def check_caller_is(name: str) -> None:
    """Raise Unauthorized if the caller of this request showed a certificate of another name."""
    caller = _caller.get()
    if caller is not None and caller.name and caller.name != name:
        raise Unauthorized(f"the certificate is that of {caller.name}, which cannot speak as {name[:80]}")


def caller_name() -> str:
    """The name in the certificate of this request's caller; empty without certificates."""
    caller = _caller.get()
    return "" if caller is None else caller.name


def caller_role() -> Role:
    """The role of this request's caller; without tokens and certificates everybody has the highest."""
    caller = _caller.get()
    return Role.COORDINATOR if caller is None else caller.role


class Gatekeeper(grpc.aio.ServerInterceptor):
    """Refuses methods that no rule names, unknown callers, and roles below what the method asks for; cuts those that are revoked."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._cuts: dict[asyncio.Future[None], Caller] = {}
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
            code = grpc.StatusCode.UNAUTHENTICATED if isinstance(e, _NoToken) else grpc.StatusCode.PERMISSION_DENIED
            return _refusal(handler, code, str(e))
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
        raise _NoToken(f"this cluster does not know the token: {hint}" if header else f"this cluster asks for a token: {hint}")

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
            _caller.set(caller := self._caller(context, needed, method, token, role))
            with self._may_be_cut(caller) as cut:
                async with contextlib.aclosing(inner(request, context)) as answers:
                    while (answer := await _until_cut(anext(answers, _END), cut)) is not _END:
                        yield answer

        async def answer(request: Any, context: grpc.aio.ServicerContext) -> Any:
            _caller.set(caller := self._caller(context, needed, method, token, role))
            if not handler.request_streaming and not handler.response_streaming:
                return await inner(request, context)
            with self._may_be_cut(caller) as cut:
                return await _until_cut(inner(request, context), cut)

        return handler._replace(**{kind: generate if inspect.isasyncgenfunction(inner) else answer})

    @contextlib.contextmanager
    def _may_be_cut(self, caller: Caller) -> Iterator[asyncio.Future[None]]:
        cut: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._cuts[cut] = caller
        try:
            yield cut
        finally:
            del self._cuts[cut]

    def _cut_revoked(self) -> None:
        known = self._guard.known
        for cut, caller in [*self._cuts.items()]:
            if (caller.token and caller.token not in known.tokens) or (caller.serial and caller.serial in known.revoked):
                cut.set_result(None)


class _NoToken(Unauthorized):
    """Nothing or something unknown was shown; it travels as UNAUTHENTICATED."""


async def _until_cut(work: Awaitable[Any], cut: asyncio.Future[None]) -> Any:
    """What `work` gives, unless the caller is cut off first."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task, cut}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise Unauthorized(_CUT)
    finally:
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


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
