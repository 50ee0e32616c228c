"""Who may call what: loopback by default, roles per method, deny by default.

Roles rank viewer < operator < worker. On loopback without a token every local caller has the highest role. With a token
file, each call must carry `authorization: Bearer TOKEN`. Any other address refuses to start without a token and TLS
unless told `--insecure`.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import grpc
import grpc.aio

from engine.data.errors import InvalidInput, Refused
from engine.service.options import Role, SecurityOptions
from engine.service.trust.access import is_loopback, read_pair, read_tokens

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
    return options if options.token_file is None else replace(options, tokens=read_tokens(options.token_file))


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
    key, certificate = read_pair(options.tls_key, options.tls_cert)
    return grpc.ssl_server_credentials([(key, certificate)])


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
