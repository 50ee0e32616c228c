"""What every server process here does the same way: bind, announce its address, and end when it should.

The first line on stdout is one JSON object with the bound address, so that a parent needs no port of its own choosing. A server ends
within a second of SIGTERM, whatever its threads are doing: what must survive was on disk before, as for a `kill -9`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer

from engine.data.errors import NoodleError, Unavailable
from engine.data.json_text import json_text
from engine.printable import one_line, printable
from engine.service import wire
from engine.service.errors import CatchAll
from engine.service.incoming import Decoder
from engine.service.trust.gatekeeper import Gatekeeper
from engine.service.trust.guard import Guard

GRACE_S = 0.25
TIDY_UP_S = 0.8  # from a signal to the end of a process that cannot end in order
MAX_LINES_PER_S = 100  # of a log
NUM_HEAPS = 2
_M_ARENA_MAX = -8  # of <malloc.h>
CANCEL_S = 0.2  # for tasks to end what they started, such as processes


class Server:
    """A gRPC server with health checking, the error and security interceptors, bound to one address."""

    def __init__(self, guard: Guard, max_message_bytes: int = wire.MAX_CONTROL_BYTES) -> None:
        self._guard = guard
        interceptors = [CatchAll(), Gatekeeper(guard), Decoder()]
        self.grpc = grpc.aio.server(
            interceptors=interceptors, options=wire.server_options(max_message_bytes), maximum_concurrent_rpcs=wire.MAX_CALLS
        )
        self._health = HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self.grpc)

    async def start(self, listen: str) -> str:
        """Bind and serve; returns the address with its real port. Raises Refused or Unavailable."""
        self._guard.check_listen_address(listen)
        await _check_free(listen)
        credentials = self._guard.server_credentials()
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
    print(json_text(document), flush=True)


async def _check_free(listen: str) -> None:
    """Raise Unavailable if somebody answers at a unix socket: gRPC would take its name away without a word."""
    if not listen.startswith("unix:"):
        return
    try:
        _, writer = await asyncio.open_unix_connection(listen.removeprefix("unix:"))
    except OSError:
        return  # no such file, or nobody behind it
    writer.close()
    raise Unavailable(f"cannot listen on {listen}: another server answers there; choose another --listen address")


class Stopping:
    """Why a server is to end: a signal, or the end of stdin, which a parent that dies by any means closes."""

    def __init__(self, exit_with_parent: bool, tidy_up_s: float | None = TIDY_UP_S) -> None:
        """Without `tidy_up_s` an orderly end may take as long as it takes."""
        self._loop, self._event, self._tidy_up_s = asyncio.get_running_loop(), asyncio.Event(), tidy_up_s
        self.exit_code = 1  # of a process that had not begun to serve
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._loop.add_signal_handler(number, self._stop, 128 + number)
            except NotImplementedError:  # Windows
                signal.signal(number, lambda number, _: self._loop.call_soon_threadsafe(self._stop, 128 + number))
        if exit_with_parent:
            end_with_parent(lambda: self._loop.call_soon_threadsafe(self._stop, 1))

    def is_set(self) -> bool:
        return self._event.is_set()

    async def wait(self) -> None:
        await self._event.wait()

    def _stop(self, exit_code: int) -> None:
        self.exit_code = exit_code
        self._event.set()
        if self._tidy_up_s is not None:
            timer = threading.Timer(self._tidy_up_s, os._exit, (exit_code,))
            timer.daemon = True
            timer.start()


def read_again_on_hangup(guard: Guard) -> None:
    """SIGHUP: tokens and certificates are read again. Call on the event loop."""
    if hasattr(signal, "SIGHUP"):
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, guard.reload)


def end_at_once(exit_with_parent: bool) -> None:
    """For a process whose end needs no order, such as a worker: the kernel ends it, even while an import or a load holds the
    interpreter lock, when nothing written in Python could run."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    if exit_with_parent:
        end_with_parent(lambda: os._exit(1))


def end_with_parent(end: Callable[[], object]) -> None:
    """Call `end` once stdin is closed."""

    def wait() -> None:
        while os.read(0, 4096):
            pass
        end()

    threading.Thread(target=wait, name="parent", daemon=True).start()


def serve(server: Coroutine[Any, Any, int]) -> NoReturn:
    """Run a server and end the process with its exit code. Threads that still import, hash or load are not waited for."""

    async def run() -> None:
        try:
            exit_code = await server
        except NoodleError as e:
            print(one_line(f"noodle-engine: {e}"), file=sys.stderr)
            exit_code = e.exit_code
        await _cancel_tasks()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # whoever read it is gone
                stream.flush()
        os._exit(exit_code)

    _share_heaps()
    asyncio.run(run())
    raise AssertionError("the process ended")


def _share_heaps() -> None:
    """glibc gives up to eight heaps a core to the threads of a process, and each keeps what its busiest moment left behind: a worker that
    took 60,000 odd messages grew by 60 MiB, with two heaps by none."""
    with contextlib.suppress(OSError, AttributeError, TypeError):  # other platforms have another allocator
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, NUM_HEAPS)


async def _cancel_tasks() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=CANCEL_S)


def set_up_logging(level: str = "INFO") -> None:
    """Logs go to stderr, one line each, without what steers a terminal."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PrintableLines("%(asctime)s %(levelname)s %(name)s %(message)s"))
    handler.addFilter(RateLimit(time.monotonic))
    logging.basicConfig(handlers=[handler], level=level.upper())


class PrintableLines(logging.Formatter):
    """What nodes and clients say stays within its line; only the steps of an incident follow it, on lines of their own."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return one_line(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        return printable(super().formatException(ei))


class RateLimit(logging.Filter):
    """Lets so many lines through in a second and says how many it held back: nobody fills a disk with what they ask for."""

    def __init__(self, clock_s: Callable[[], float]) -> None:
        super().__init__()
        self._clock_s, self._second, self._num_lines, self._num_held = clock_s, -1, 0, 0

    def filter(self, record: logging.LogRecord) -> bool:
        second = int(self._clock_s())
        if second != self._second:
            if self._num_held:
                record.msg, record.args = f"{record.getMessage()} ({self._num_held} lines before this one were left out)", ()
            self._second, self._num_lines, self._num_held = second, 0, 0
        self._num_lines += 1
        is_shown = self._num_lines <= MAX_LINES_PER_S
        self._num_held += not is_shown
        return is_shown
