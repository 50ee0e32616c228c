"""Who may call what: loopback by default, roles per method, deny by default.

Roles rank viewer < operator < worker. On loopback without a token every local caller has the highest role. With a token
file, each call must carry `authorization: Bearer TOKEN`. Any other address refuses to start without a token and TLS
unless told `--insecure`.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from engine.data.errors import InvalidInput, NoodleError, Refused
from engine.files import read_document
from engine.service.options import Role, SecurityOptions

METHOD_ROLES: dict[str, Role] = {
    "/noodle.v1.Control/Register": Role.WORKER,
    "/noodle.v1.Control/Heartbeat": Role.WORKER,
    "/noodle.v1.Control/Report": Role.WORKER,
    "/noodle.v1.Control/Watch": Role.VIEWER,
    "/noodle.v1.Control/GetStatus": Role.VIEWER,
    "/noodle.v1.Control/PlanNow": Role.VIEWER,
    "/noodle.v1.Control/GetProblem": Role.VIEWER,
    "/noodle.v1.Control/GetLinks": Role.VIEWER,
    "/noodle.v1.Control/GetVersion": Role.VIEWER,
    "/noodle.v1.Control/ListPlans": Role.VIEWER,
    "/noodle.v1.Control/EstimateMove": Role.VIEWER,
    "/noodle.v1.Control/Generate": Role.OPERATOR,
    "/noodle.v1.Control/Apply": Role.OPERATOR,
    "/noodle.v1.Control/Drain": Role.OPERATOR,
    "/noodle.v1.Control/Undrain": Role.OPERATOR,
    "/noodle.v1.Control/Forget": Role.OPERATOR,
    "/noodle.v1.Control/Acknowledge": Role.OPERATOR,
    "/noodle.v1.Control/Profile": Role.OPERATOR,
    "/noodle.v1.Control/Cancel": Role.OPERATOR,
    "/noodle.v1.Control/SetSlowdown": Role.OPERATOR,
    "/noodle.v1.Control/ListMoves": Role.VIEWER,
    "/noodle.v1.Control/SetAdaptation": Role.OPERATOR,
    "/noodle.v1.Control/GetAdaptation": Role.VIEWER,
    "/noodle.v1.Control/GetManifest": Role.WORKER,
    "/noodle.v1.Control/Note": Role.WORKER,
    "/noodle.v1.StageService/Measure": Role.WORKER,
    "/noodle.v1.StageService/Profile": Role.WORKER,
    "/noodle.v1.StageService/Load": Role.WORKER,
    "/noodle.v1.StageService/Forward": Role.WORKER,
    "/noodle.v1.StageService/ExportKv": Role.WORKER,
    "/noodle.v1.StageService/ImportKv": Role.WORKER,
    "/noodle.v1.StageService/Prepare": Role.WORKER,
    "/noodle.v1.StageService/CopyKv": Role.WORKER,
    "/noodle.v1.StageService/Commit": Role.WORKER,
    "/noodle.v1.StageService/SetSlowdown": Role.WORKER,
    "/noodle.v1.StageService/Unload": Role.WORKER,
    "/noodle.v1.StageService/GetStageStatus": Role.VIEWER,
    "/noodle.v1.StageService/MeasureLinks": Role.WORKER,
    "/noodle.v1.StageService/Echo": Role.WORKER,
    "/noodle.v1.WeightService/Find": Role.WORKER,
    "/noodle.v1.WeightService/Fetch": Role.WORKER,
    "/grpc.health.v1.Health/Check": Role.VIEWER,
    "/grpc.health.v1.Health/Watch": Role.VIEWER,
}


def load_tokens(options: SecurityOptions) -> SecurityOptions:
    """The same options with the token file read; raises InvalidInput naming the line that is wrong."""
    if options.token_file is None:
        return options
    tokens: dict[str, Role] = {}
    for number, line in enumerate(read_document(options.token_file, "tokens").splitlines(), 1):
        words = line.split()
        if not words or line.startswith("#"):
            continue
        if len(words) != 2 or words[0].upper() not in Role.__members__ or len(words[1]) < 16:
            where = f"{options.token_file}:{number}"
            raise InvalidInput(f"{where}: expected 'viewer|operator|worker TOKEN', the token of 16 or more characters")
        check_token(words[1], f"the token at {options.token_file}:{number}")
        tokens[words[1]] = Role[words[0].upper()]
    if not tokens:
        raise InvalidInput(f"{options.token_file} holds no token: write one line 'worker TOKEN' at least")
    return replace(options, tokens=tokens)


def is_loopback(address: str) -> bool:
    """True for unix sockets and loopback host:port addresses."""
    if address.startswith("unix:"):
        return True
    host = address.rsplit(":", 1)[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_listen_address(address: str, options: SecurityOptions) -> None:
    """Raise Refused if listening on `address` would expose the cluster without protection."""
    if is_loopback(address) or options.insecure or (options.tls_cert and options.tokens):
        return
    raise Refused(
        f"{address} is not a loopback address: give --tls-cert, --tls-key and --token-file, "
        "or accept the risk on a trusted network with --insecure"
    )


def server_credentials(options: SecurityOptions) -> grpc.ServerCredentials | None:
    if options.tls_cert is None and options.tls_key is None:
        return None
    if options.tls_cert is None or options.tls_key is None:
        raise InvalidInput("--tls-cert and --tls-key go together: give both")
    key, certificate = read_pem(options.tls_key, "--tls-key"), read_pem(options.tls_cert, "--tls-cert")
    return grpc.ssl_server_credentials([(key, certificate)])


def channel_credentials(options: SecurityOptions) -> grpc.ChannelCredentials | None:
    if trusted := options.tls_ca or options.tls_cert:
        return grpc.ssl_channel_credentials(root_certificates=read_pem(trusted, "--tls-ca" if options.tls_ca else "--tls-cert"))
    return None


def worker_token(options: SecurityOptions) -> str | None:
    return next((t for t, role in options.tokens.items() if role is Role.WORKER), None)


def metadata(token: str | None) -> tuple[tuple[str, str], ...]:
    """What a call must carry to be known. Raises InvalidInput for a token that no call can carry."""
    return (("authorization", f"Bearer {check_token(token, 'the token')}"),) if token else ()


def check_token(token: str, name: str) -> str:
    """Return `token` if a header of a call can carry it; else raise InvalidInput, which does not repeat it."""
    if not (token.isascii() and token.isprintable() and " " not in token):
        raise InvalidInput(f"{name} has other characters than the visible ones of ASCII: give one without, from --token or NOODLE_TOKEN")
    return token


def read_pem(path: Path, option: str) -> bytes:
    """A certificate or key. Raises InvalidInput naming the option and the file."""
    try:
        content = read_document(path, "a certificate or key in PEM format").encode()
    except NoodleError as e:
        raise InvalidInput(f"{option}: {e}") from e
    if b"-----BEGIN " not in content:
        raise InvalidInput(f"{option}: {path} holds no certificate or key in PEM format (a line -----BEGIN ...): is it the right file?")
    return content


class Gatekeeper(grpc.aio.ServerInterceptor):
    """Refuses methods that no rule names, unknown tokens, and roles below what the method asks for."""

    def __init__(self, options: SecurityOptions) -> None:
        self._tokens = dict(options.tokens)

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]], handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        handler = await continuation(handler_call_details)
        needed = METHOD_ROLES.get(handler_call_details.method)
        if handler is None:
            return None
        if needed is None:
            return _refusal(handler, grpc.StatusCode.PERMISSION_DENIED, f"{handler_call_details.method} is open to nobody")
        if not self._tokens:
            return handler
        role = self._role(_header(handler_call_details))
        if role is None:
            return _refusal(handler, grpc.StatusCode.UNAUTHENTICATED, "this cluster asks for a token: give --token or NOODLE_TOKEN")
        if role < needed:
            text = f"{handler_call_details.method} needs the role {needed.name.lower()}, this token is a {role.name.lower()}"
            return _refusal(handler, grpc.StatusCode.PERMISSION_DENIED, text)
        return handler

    def _role(self, header: str) -> Role | None:
        presented = header.removeprefix("Bearer ").encode()
        matches = [role for token, role in self._tokens.items() if hmac.compare_digest(token.encode(), presented)]
        return matches[0] if matches else None


def _header(details: grpc.HandlerCallDetails) -> str:
    return next((str(value) for key, value in details.invocation_metadata or () if key == "authorization"), "")


def _refusal(handler: Any, code: grpc.StatusCode, text: str) -> Any:
    async def unary(request: Any, context: grpc.aio.ServicerContext) -> None:
        await context.abort(code, text)

    async def streaming(request: Any, context: grpc.aio.ServicerContext) -> Any:
        await context.abort(code, text)
        yield None

    kind = f"{'stream' if handler.request_streaming else 'unary'}_{'stream' if handler.response_streaming else 'unary'}"
    behaviour = streaming if handler.response_streaming else unary
    return getattr(grpc, f"{kind}_rpc_method_handler")(
        behaviour, request_deserializer=handler.request_deserializer, response_serializer=handler.response_serializer
    )
