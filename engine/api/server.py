"""`noodle-engine serve`: the application behind a real socket, from the announcement of its address to its orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import uvicorn

from engine.api.application import Api
from engine.api.callers import Callers, digest_of
from engine.api.metering import Metering
from engine.api.options import DEFAULT_HTTP, ApiOptions
from engine.api.traced import Traced
from engine.data.errors import InvalidInput, Refused, Unavailable
from engine.service.addresses import check_address, is_loopback
from engine.service.options import Role
from engine.service.trust.access import Access
from engine.service.trust.credentials import read_pair, read_tokens

GRACE_S = 2  # for answers that run when the server is to end
KEEP_ALIVE_S = 30


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.begun = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.begun.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Its process ends as the other servers here do."""
        yield


class ApiServer:
    """Serves the cluster at `address` from `start` to `stop`."""

    def __init__(self, options: ApiOptions, address: str, access: Access) -> None:
        """Raises InvalidInput and Refused naming the option that is wrong."""
        check_address(address)
        self._host, self._port = host_and_port(options)
        keys = None if options.keys is None else known_keys(options.keys)
        if keys is None and access.trusted is not None and access.trusted.certificate:
            raise InvalidInput(
                "--tls-cert lets this server act for everybody who reaches it: give --keys FILE with lines 'viewer|operator KEY', so that "
                "it knows its callers"
            )
        self._callers = Callers(address, access, keys)
        self._server = _Server(
            uvicorn.Config(
                asgi_application(options, self._callers),
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=GRACE_S,
                ssl_certfile=options.http_cert,
                ssl_keyfile=options.http_key,
                h11_max_incomplete_event_size=64 * 2**10,
            )
        )
        self._scheme = "https" if options.http_cert else "http"
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> str:
        """Bind and serve; returns the base address, such as http://127.0.0.1:8000. Raises Unavailable."""
        try:
            found = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)[0]
            listener = socket.socket(found[0], socket.SOCK_STREAM)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(found[4])
        except OSError as e:
            at = f"{self._host}:{self._port} ({e.strerror or e})"
            raise Unavailable(f"cannot listen on {at}: choose another --http address; port 0 picks a free one") from e
        self._task = asyncio.create_task(self._server.serve([listener]))
        begun = asyncio.create_task(self._server.begun.wait())
        await asyncio.wait({self._task, begun}, return_when=asyncio.FIRST_COMPLETED)
        if self._task.done():
            begun.cancel()
            await self._task
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{self._scheme}://{host}:{listener.getsockname()[1]}"

    async def stop(self) -> None:
        """End running answers after a moment of grace."""
        self._server.should_exit = True
        if self._task is not None:
            await self._task


def asgi_application(options: ApiOptions, callers: Callers) -> Traced:
    """The whole of it, for any ASGI server."""
    app = Api(options, callers).application()
    return Traced(Metering(app, frozenset(route.path for route in app.routes)))  # type: ignore[attr-defined]


def known_keys(path: Path) -> dict[bytes, Role]:
    """Of `--keys`: roles by the digest of their key."""
    return {digest_of(key): role for key, role in read_tokens(path).items()}


def host_and_port(options: ApiOptions) -> tuple[str, int]:
    """Of `--http`: a port alone is one of loopback, and port 0 any that is free. Raises InvalidInput, Refused."""
    given = options.http or DEFAULT_HTTP
    address = f"127.0.0.1:{given}" if given.isdecimal() else given
    host, _, port = address.rpartition(":")
    try:
        check_address(f"{host}:1" if port == "0" else address)
    except InvalidInput as e:
        raise InvalidInput(f"--http: {e}") from e
    if options.http_cert is not None and options.http_key is not None:
        read_pair(options.http_key, options.http_cert)
    elif not is_loopback(address) and not options.insecure_http:
        raise Refused(
            f"--http {address} is not a loopback address, and keys would travel in clear text: give --http-cert and --http-key, put a "
            "proxy with TLS in front of a loopback address, or accept the risk on a trusted network with --insecure-http"
        )
    return host.strip("[]"), int(port)
