"""The console's side of the cluster: starts the embedded one, watches, reconnects, generates, and posts messages.

gRPC and the engine's service room are imported here inside the running task, after the first paint. Nothing raised by the
cluster leaves this file: it becomes a message. It does not know widgets or the state they are drawn from.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import math
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from engine.data.errors import NoodleError, Refused, Unavailable
from engine.data.generation import GenerateRequest
from engine.data.plan import Plan, Stage
from noodle_tui.cluster.backoff import delay_s
from noodle_tui.core.logs import LogLine, level_of
from noodle_tui.core.messages import (
    BootFailed,
    BootProgress,
    Dialling,
    FrameArrived,
    LinkLost,
    LogsArrived,
    Message,
    PeerKnown,
    ProcessesDied,
    SessionEnded,
    TokenArrived,
)
from noodle_tui.options import Options

if TYPE_CHECKING:
    from engine.service.client import Client, ProfileProgress
    from engine.service.local import LocalCluster
    from engine.service.local_options import LocalOptions

Post = Callable[[Message], None]
T = TypeVar("T")
NO_TEMPLATE = "no chat template"  # so a coordinator refuses a conversation that nothing can write down for its model
FAILURES_EVERY_S = 0.5
FIRST_FRAME_TIMEOUT_S = 10.0  # a port that accepts and then says nothing is not a coordinator


class RetryAsked(NoodleError):
    """The user wants a new connection although this one has not failed yet."""


class VersionMismatch(NoodleError):
    """The coordinator speaks another protocol; the message names both sides and the way out."""


class Link:
    """Owns the client and the embedded cluster; one `run` task, at most one answer at a time."""

    def __init__(self, options: Options, post: Post) -> None:
        self._options = options
        self._post = post
        self._cluster: LocalCluster | None = None
        self._client: Client | None = None
        self._retry = asyncio.Event()
        self._failures: tuple[str, ...] = ()
        self._num_attempts_failed = 0
        self._told = ""  # the last reason, as gRPC or the system put it
        self._stopping = asyncio.Lock()

    async def run(self) -> None:
        """Connect and stay connected until cancelled."""
        address: str | None = None
        while True:
            mismatch = False
            try:
                address = address or await self._address()
                await self._watch(address)
                error = "the coordinator closed the stream"
            except NoodleError as problem:
                error, mismatch = str(problem) or type(problem).__name__, isinstance(problem, VersionMismatch)
            except Exception as problem:  # a defect must be read on screen, not end the console
                error = f"unexpected {type(problem).__name__}: {problem}"
            asked = await self._wait_for_retry(error, started=address is not None, mismatch=mismatch)
            if asked and self._cluster is not None and self._cluster.failures():
                await self.stop()  # processes are dead and the user asked to try again: start them afresh
                address = None

    def retry_now(self) -> None:
        """Cut the waiting short, or give up a connection that has gone silent."""
        self._retry.set()

    async def generate(self, number: int, request: GenerateRequest, without_template: GenerateRequest | None = None) -> None:
        """Run one answer; cancelling this task cancels its session on the cluster. The second request: if there is no chat template."""
        ended = SessionEnded(number)
        try:
            try:
                await self._stream(number, request)
            except Refused as problem:
                if without_template is None or NO_TEMPLATE not in str(problem):
                    raise
                await self._stream(number, without_template)
        except asyncio.CancelledError:
            if not _is_cancelled():  # the link closed the connection under it
                ended = SessionEnded(number, "the connection to the coordinator was lost")
                return
            ended = SessionEnded(number, cancelled=True)
            raise
        except NoodleError as problem:
            ended = SessionEnded(number, str(problem) or type(problem).__name__)
        except Exception as problem:
            ended = SessionEnded(number, f"unexpected {type(problem).__name__}: {problem}")
        finally:
            self._post(ended)

    async def _stream(self, number: int, request: GenerateRequest) -> None:
        async for chunk in self._connected().generate(request):
            self._post(TokenArrived(number, chunk))

    async def plan(self, strategy: str, stages: Sequence[Stage] = (), without: Sequence[str] = (), including: Sequence[str] = ()) -> Plan:
        """What the coordinator would do now with a strategy, given stages, without nodes, or with drained ones; raises NoodleError."""
        return await self._connected().plan(strategy, stages, without, including)

    async def ask(self, call: str, *arguments: object) -> Any:
        """A question that changes nothing: a method of the client by its name; raises NoodleError."""
        return await getattr(self._connected(), call)(*arguments)

    def profile(self, worker_id: str) -> AsyncIterator[ProfileProgress]:
        """What a node says while it is profiled; raises what the coordinator answers."""
        return self._connected().profile(worker_id)

    async def act(self, call: str, arguments: tuple[object, ...]) -> object:
        """One confirmed change: a method of the client by its name; raises NoodleError."""
        return await getattr(self._connected(), call)(*arguments)

    def _connected(self) -> Client:
        if self._client is None:
            raise Unavailable("not connected to a coordinator: nothing was sent")
        return self._client

    @property
    def owns_cluster(self) -> bool:
        """Whether quitting has processes to end."""
        return self._cluster is not None

    async def stop(self) -> None:
        """End the embedded cluster's processes, if there are any."""
        async with self._stopping:  # who comes second must not leave before the first is done
            if self._cluster is None:
                return
            try:
                await self._cluster.stop()
            finally:
                self._cluster.kill()
            self._cluster = None

    def kill(self) -> None:
        """The same at once and without an event loop, for signals and crashes."""
        if self._cluster is not None:
            self._cluster.kill()

    # --- parts of run ---------------------------------------------------------------------------------------------
    async def _address(self) -> str:
        """Where the coordinator is; starts the embedded cluster if that is what was asked for."""
        if self._options.connect is not None:
            return self._options.connect
        self._failures = ()
        options = self._options.cluster or (await _imported("engine.service.local_options")).LocalOptions()
        self._post(BootProgress(boot_sentence(options)))
        local = await _imported("engine.service.local")
        self._cluster = local.LocalCluster(options)
        self._cluster.on_line = self._take_line
        try:
            return await self._cluster.start()
        except BaseException:
            await self.stop()
            raise

    async def _watch(self, address: str) -> None:
        """Post every frame of one connection until it ends or fails."""
        self._post(Dialling(address))
        service, access = await _imported("engine.service.client"), await _imported("engine.service.trust.access")
        joins = self._options.connect is not None  # an embedded cluster gave this user its own token, and speaks no TLS
        shown = access.access_of_client(self._options.access, address) if joins else None
        async with service.Client(address, shown) as self._client:
            try:
                await self._compare_versions(self._client, address)
                frames = self._client.watch(min_interval_s=min(1.0, 1 / self._options.hz))
                timeout_s: float | None = FIRST_FRAME_TIMEOUT_S
                while (frame := await self._answer(anext(frames, None), timeout_s)) is not None:
                    timeout_s, self._num_attempts_failed, self._told = None, 0, ""
                    self._post(FrameArrived(frame, time.time()))
                    self._report_failures()
            finally:
                self._client = None

    async def _compare_versions(self, client: Client, address: str) -> None:
        """Raise VersionMismatch for a coordinator of another protocol; ask before anything else is understood wrongly."""
        versions = await _imported("engine.data.version")
        other, own = await self._answer(client.version(), FIRST_FRAME_TIMEOUT_S), await asyncio.to_thread(versions.own_version)
        if other.protocol_version != own.protocol_version:
            raise VersionMismatch(mismatch_sentence(address, str(own), str(other), other.protocol_version < own.protocol_version))
        self._post(PeerKnown(own.package_version, other.package_version))

    async def _answer(self, work: Awaitable[T], timeout_s: float | None) -> T:
        """What `work` brings; raises when `retry_now` was called or `timeout_s` passed."""
        awaited = asyncio.ensure_future(work)
        asked = asyncio.ensure_future(self._retry.wait())
        try:
            done, _ = await asyncio.wait({awaited, asked}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            asked.cancel()
            if not awaited.done():
                awaited.cancel()
                await asyncio.gather(awaited, return_exceptions=True)
        if awaited in done:
            return awaited.result()
        if asked in done:
            raise RetryAsked("connecting again, as asked")
        raise Unavailable(f"{self._options.connect or 'the coordinator'} accepts connections but has sent nothing for {timeout_s:g} s")

    async def _wait_for_retry(self, error: str, *, started: bool, mismatch: bool = False) -> bool:
        """Tell that the link is lost and sleep until the next attempt; True when the user asked for it."""
        self._report_failures()
        self._num_attempts_failed += 1
        self._log(error)
        wait_s = delay_s(self._num_attempts_failed, random.random()) if started else None
        if wait_s is None:
            self._post(BootFailed(error))
        elif not self._retry.is_set():
            self._post(LinkLost(error, time.monotonic() + wait_s, mismatch))
        return await self._asked_within(wait_s)

    def _log(self, error: str) -> None:
        """The reason in its own words, once as long as it stays the same: the screen says what it means."""
        if error != self._told:
            self._told = error
            self._post(LogsArrived((LogLine(0, time.time(), "WARN", "link", error),)))

    async def _asked_within(self, wait_s: float | None) -> bool:
        """Sleep, but look now and then whether a process died: that is noticed later than its connection."""
        left_s = math.inf if wait_s is None else wait_s
        while not self._retry.is_set() and left_s > 0:
            nap_s = min(left_s, FAILURES_EVERY_S)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._retry.wait(), nap_s)
            left_s -= nap_s
            self._report_failures()
        asked = self._retry.is_set()
        self._retry.clear()
        return asked

    def _take_line(self, name: str, text: str) -> None:
        """A line that a process of the embedded cluster wrote."""
        self._post(LogsArrived((LogLine(0, time.time(), level_of(text), name, text),)))

    def _report_failures(self) -> None:
        failures = self._cluster.failures() if self._cluster is not None else ()
        if failures != self._failures:
            self._failures = failures
            self._post(ProcessesDied(failures))


def _is_cancelled() -> bool:
    """Whether this task itself was asked to end."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _imported(name: str) -> Any:
    """Import in a thread: gRPC takes a quarter of a second, and keys must work meanwhile."""
    return await asyncio.to_thread(importlib.import_module, name)


def boot_sentence(options: LocalOptions) -> str:
    """What is about to be started, in the user's own terms."""
    given = options.coordinator.model
    weights = f" with random weights (seed {given.random_weights})" if given.random_weights is not None else ""
    workers = f"{options.num_workers} worker process{'' if options.num_workers == 1 else 'es'}"
    return f"Starting a cluster on this machine: a coordinator and {workers} for {given.model or 'gpt2'}{weights} ..."


def mismatch_sentence(address: str, own: str, other: str, other_is_older: bool) -> str:
    """Both versions and what to do about them."""
    older = f"the coordinator at {address}" if other_is_older else "this console"
    return (
        f"this console is {own}, the coordinator at {address} is {other}: they cannot understand each other. "
        f"Bring {older} up to date (pip install -U noodlecore), or connect to another cluster with the command ctx HOST:PORT"
    )
