"""What every server process here does the same way: bind, announce its address, and end when it should.

The first line on stdout is one JSON object with the bound address, so that a parent needs no port of its own choosing.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import threading
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer

from engine.data.errors import Unavailable
from engine.service import wire
from engine.service.errors import CatchAll
from engine.service.security import Gatekeeper, SecurityOptions, check_listen_address, server_credentials

GRACE_S = 0.25


class Server:
    """A gRPC server with health checking, the error and security interceptors, bound to one address."""

    def __init__(self, security: SecurityOptions) -> None:
        self._security = security
        self.grpc = grpc.aio.server(interceptors=[CatchAll(), Gatekeeper(security)], options=wire.SERVER_OPTIONS)
        self._health = HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.grpc)

    async def start(self, listen: str) -> str:
        """Bind and serve; returns the address with its real port. Raises Refused or Unavailable."""
        check_listen_address(listen, self._security)
        credentials = server_credentials(self._security)
        try:
            bound = self.grpc.add_secure_port(listen, credentials) if credentials else self.grpc.add_insecure_port(listen)
        except RuntimeError:
            bound = 0
        if bound == 0:
            reason = "the port is taken, or the address is not one of this machine's"
            raise Unavailable(f"cannot listen on {listen} ({reason}): choose another --listen address; port 0 picks a free one")
        await self.grpc.start()
        await self.set_serving(True)
        return listen if listen.startswith("unix:") else f"{listen.rsplit(':', 1)[0]}:{bound}"

    async def set_serving(self, serving: bool) -> None:
        state = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        await self._health.set("", state)

    async def stop(self) -> None:
        await self.grpc.stop(GRACE_S)


def announce(document: dict[str, Any]) -> None:
    """The one line a parent process waits for."""
    print(json.dumps(document, ensure_ascii=True), flush=True)


def stop_event(exit_with_parent: bool) -> asyncio.Event:
    """Set by SIGINT, SIGTERM or, if asked, by the end of stdin: a parent that dies by any means closes our stdin."""
    event = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(number, event.set)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(event.set))
    if exit_with_parent:
        threading.Thread(target=_wait_for_parent, args=(loop, event), name="parent", daemon=True).start()
    return event


def _wait_for_parent(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    while os.read(0, 4096):
        pass
    loop.call_soon_threadsafe(event.set)
    # A compute step or an import may hold the loop for long; nobody is left to wait for it.
    threading.Event().wait(5.0)
    os._exit(1)


def set_up_logging(level: str = "INFO") -> None:
    """Logs go to stderr, one line each, ASCII only."""
    logging.basicConfig(stream=sys.stderr, level=level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s")
