"""`serve`, and the API of `up`: OpenAI's HTTP API in front of a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from engine.api.options import ApiOptions
from engine.commands.output import print_json, say
from engine.commands.serving.options import Serve
from engine.data.errors import NotSupported
from engine.service.process import Stopping, serve, set_up_logging
from engine.service.trust.access import Access, access_of_client
from engine.service.trust.local_tokens import token_path

if TYPE_CHECKING:
    from engine.api.server import ApiServer


def serve_api(command: Serve) -> NoReturn:
    """Answer until interrupted."""
    set_up_logging("WARNING")
    serve(_serve(command))


async def _serve(command: Serve) -> int:
    stopping = Stopping(exit_with_parent=False, tidy_up_s=None)  # answers that run have a moment of grace
    address = command.connection.connect
    server = api_server(command.api, address, access_of_client(command.connection.access, address))
    http = await server.start()
    try:
        if command.json:
            print_json({"http": http, "address": address})
        else:
            say(api_sentence(http, address))
        await stopping.wait()
    finally:
        await server.stop()
    return 0


def api_server(options: ApiOptions, address: str, access: Access) -> ApiServer:
    """Not started yet. Raises NotSupported without the packages that it needs."""
    try:
        from engine.api.server import ApiServer
    except ModuleNotFoundError as e:
        raise NotSupported(f"the HTTP API needs {e.name}, which is not installed: pip install 'noodlecore[api]'") from e
    return ApiServer(options, address, access)


def api_sentence(http: str, address: str) -> str:
    """Where it is, and where this user's key is."""
    path = token_path(address)
    key = f"the key is in {path}" if path.exists() else "keys are the cluster's tokens"
    return f"API: {http}/v1 ({key}); {http}/docs says what it takes"
