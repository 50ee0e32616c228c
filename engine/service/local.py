"""The embedded cluster: a coordinator and workers as child processes on this machine.

Children are ordinary `python -m engine ...` processes that print their address as the first line of their output. Each
child holds the reading end of a pipe to us as its stdin: however this process ends, even by `kill -9`, they end too.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial

from engine.data.errors import NoodleError, Unavailable
from engine.options.declared import words
from engine.service.coordinator.options import CoordinatorOptions
from engine.service.local_options import LocalOptions
from engine.service.options import MetricsOptions, ServerOptions
from engine.service.trust.local_tokens import LocalTokens, leave_token, make_tokens, remove_tokens
from engine.service.worker.options import WorkerOptions

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 4.0
TAIL_LINES = 5


@dataclass(slots=True)
class Child:
    """A process of ours and the end of what it wrote to stderr."""

    name: str
    process: asyncio.subprocess.Process
    tail: collections.deque[str]
    readers: tuple[asyncio.Task[None], ...]


class LocalCluster:
    """Starts, watches and ends the processes of one embedded cluster."""

    def __init__(self, options: LocalOptions) -> None:
        self.options = options.on_this_machine()
        self.address = ""
        self._tokens: LocalTokens | None = None
        self.metrics_addresses: dict[str, str] = {}  # by process name; empty unless a port was asked for
        self.on_line: Callable[[str, str], None] | None = None  # a process's name and a line it wrote to stderr
        self._children: list[Child] = []
        self._stopping = False

    async def start(self) -> str:
        """Start everything; returns the coordinator's address as soon as it is bound, long before the model is loaded."""
        options = self.options
        self._tokens = make_tokens()
        try:
            first_line = await self._spawn("coordinator", ["coordinator", *words(self.coordinator_options())])
            self.address = str(json.loads(first_line)["address"])
            leave_token(self._tokens, self.address)
            workers = [self._spawn(f"w{i + 1}", ["worker", *words(self.worker_options(i))]) for i in range(options.num_workers)]
            await asyncio.gather(*workers)
        except BaseException:
            await self.stop()
            raise
        return self.address

    async def stop(self) -> None:
        """End every child: politely, then by force; returns when none is left."""
        self._stopping = True
        for child in self._children:
            if child.process.stdin is not None:
                child.process.stdin.close()
            with contextlib.suppress(ProcessLookupError):
                child.process.terminate()
        waits = [asyncio.create_task(c.process.wait()) for c in self._children]
        if waits:
            await asyncio.wait(waits, timeout=STOP_TIMEOUT_S)
        self.kill()
        await asyncio.gather(*waits)
        for child in self._children:
            for reader in child.readers:
                reader.cancel()

    def kill(self) -> None:
        """End every child at once, without an event loop; for crash paths."""
        self._stopping = True
        if self._tokens is not None:
            remove_tokens(self._tokens, self.address)
        for child in self._children:
            if child.process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    child.process.kill()

    @property
    def tokens(self) -> LocalTokens:
        """Of the cluster that was started."""
        if self._tokens is None:
            raise AssertionError("the cluster was not started")
        return self._tokens

    def pids(self) -> dict[str, int]:
        return {c.name: c.process.pid for c in self._children}

    def failures(self) -> tuple[str, ...]:
        """A sentence for every child that ended by itself, with the end of what it said."""
        if self._stopping:
            return ()
        return tuple(_obituary(c) for c in self._children if c.process.returncode is not None)

    def coordinator_options(self) -> CoordinatorOptions:
        return replace(self.options.coordinator, server=self._server(self.options.coordinator.server))

    def worker_options(self, index: int) -> WorkerOptions:
        """Of the worker at `index`; it joins at `address`."""
        options = self.options
        port = options.worker.server.metrics.metrics_port
        if port is None and options.coordinator.metrics_sd is not None:
            port = 0  # a list of targets is of no use unless they answer
        metrics = MetricsOptions(port + index + 1 if port else port)  # the coordinator has `port` itself; 0 is any free one
        return replace(
            options.worker,
            join=self.address,
            worker_id=f"w{index + 1}",
            device=self._device(index),
            share_with=sum(self._device(other) == self._device(index) for other in range(options.num_workers)),
            slowdown=options.slowdowns[index] if index < len(options.slowdowns) else 1.0,
            server=self._server(ServerOptions(metrics=metrics)),
        )

    def _device(self, index: int) -> str | None:
        """Of the worker at `index`: of a list of devices each takes the next."""
        named = self.options.worker.device
        return named and (names := named.split(","))[index % len(names)].strip()

    def _server(self, options: ServerOptions) -> ServerOptions:
        security = replace(options.security, token_file=None if self._tokens is None else self._tokens.path)
        return replace(options, security=security, exit_with_parent=True, log_level="WARNING")

    async def _spawn(self, name: str, arguments: list[str]) -> str:
        """Start `python -m engine ...` and return the first line of its output."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "engine",
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=child_environment(),
            limit=2**20,
            start_new_session=True,  # Ctrl-C in the terminal reaches us only; we end the children in order
        )
        tail: collections.deque[str] = collections.deque(maxlen=TAIL_LINES)
        child = Child(name, process, tail, (asyncio.create_task(_keep_tail(process.stderr, tail, partial(self._said, name))),))
        self._children.append(child)
        line = await self._first_line(child)
        child.readers += (asyncio.create_task(_keep_tail(process.stdout, collections.deque(maxlen=1))),)
        if address := json.loads(line).get("metrics_address"):
            self.metrics_addresses[name] = str(address)
        return line

    def _said(self, name: str, line: str) -> None:
        if self.on_line is not None:
            self.on_line(name, line)

    async def _first_line(self, child: Child) -> str:
        if child.process.stdout is None:
            raise AssertionError("the pipe was asked for")
        try:
            line = await asyncio.wait_for(child.process.stdout.readline(), START_TIMEOUT_S)
        except TimeoutError as e:
            raise Unavailable(f"{child.name} did not say its address within {START_TIMEOUT_S:.0f} s: {' '.join(child.tail)}") from e
        if not line:
            await child.process.wait()
            await child.readers[0]
            raise NoodleError(_obituary(child))
        return line.decode()


def child_environment() -> dict[str, str]:
    """Of every process of an embedded cluster; figures that are to describe its workers must be taken in the same one."""
    environment = dict(os.environ)
    environment.setdefault("PYTHONUNBUFFERED", "1")
    return environment


def _obituary(child: Child) -> str:
    return obituary(child.name, child.process.pid, child.process.returncode, child.tail)


def obituary(name: str, pid: int, code: int | None, tail: Iterable[str]) -> str:
    """How a process ended, and the end of what it said."""
    how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with code {code}"
    said = " | ".join(tail)
    return f"{name} (pid {pid}) {how}{f': {said}' if said else ''}"


async def _keep_tail(stream: asyncio.StreamReader | None, tail: collections.deque[str], said: Callable[[str], None] | None = None) -> None:
    if stream is None:
        return
    while line := await stream.readline():
        tail.append(line.decode(errors="replace").rstrip())
        if said is not None:
            said(tail[-1])
