"""`serve`, and the API of `up`: OpenAI's HTTP API in front of a cluster."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, NoReturn

from engine.api.options import ApiOptions
from engine.commands.output import note, print_json, say
from engine.commands.serving.options import Serve
from engine.commands.serving.ray_package import ray_door
from engine.data.errors import NoodleError, NotSupported
from engine.options.declared import words
from engine.service.process import Stopping, serve, set_up_logging
from engine.service.trust.access import Access, access_of_client
from engine.service.trust.local_tokens import token_path

if TYPE_CHECKING:
    from engine.api.ray_door import RayServeDoor
    from engine.api.server import ApiServer


FOLLOW_S = 1.0


def serve_api(command: Serve) -> NoReturn:
    """Answer until interrupted."""
    set_up_logging("WARNING")
    serve(_serve(command))


async def _serve(command: Serve) -> int:
    if command.ray.place.on is not None:
        return await _serve_on_ray(command)
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


async def _serve_on_ray(command: Serve) -> int:
    door = ray_door().RayServeDoor(command.api, command.ray)
    stopping = Stopping(exit_with_parent=False, tidy_up_s=None)
    end = door.leave  # what it has not started is not its to end
    try:
        http, address = await asyncio.to_thread(door.start)
        end = door.stop
        if command.json:
            print_json({"http": http, "address": address})
        else:
            say(f"API: {http}/v1 (keys are in {command.api.keys}); {http}/docs says what it takes")
        if command.ray.detach:
            note(f"noodle-engine: it runs on its own; `noodle-engine down --api {' '.join(words(command.ray.place))}` ends it")
            end = door.leave
            return 0
        await _until_gone(stopping, door)
        return 0
    finally:
        await asyncio.to_thread(end)


async def _until_gone(stopping: Stopping, door: RayServeDoor) -> None:
    """Until told to stop; raises NoodleError if it was ended by somebody else."""
    told = ""
    while not stopping.is_set():
        standing = await asyncio.to_thread(door.standing)
        if standing.end:
            raise NoodleError(standing.end)
        if standing.trouble and standing.trouble != told:
            note(f"noodle-engine: {standing.trouble}")
        told = standing.trouble
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), FOLLOW_S)


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
