"""One long-lived stream per link: messages leave in the order in which they were put, one `write` each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from engine.service.trust.access import Access

MAX_WAITING = 1024
STAGGER_S = 0.15


class Link:
    """Writes messages to a client-streaming call; `on_broken(message, text)` gets each message that could not leave."""

    def __init__(self, call: Any, peer: str, on_broken: Callable[[Any, str], None]) -> None:
        self._call, self._peer, self._on_broken = call, peer, on_broken
        self._waiting: asyncio.Queue[Any] = asyncio.Queue()
        self._broken = ""
        self._task = asyncio.create_task(self._write_all())

    def put(self, message: Any) -> None:
        """Queue a message; call on the event loop."""
        if not self._broken and self._waiting.qsize() >= MAX_WAITING:
            self._broken = f"{self._peer} does not keep up: {MAX_WAITING} messages are waiting"
        if self._broken:
            self._on_broken(message, self._broken)
        else:
            self._waiting.put_nowait(message)

    async def _write_all(self) -> None:
        while True:
            message = await self._waiting.get()
            try:
                await self._call.write(message)
            except (grpc.RpcError, grpc.aio.AioRpcError, asyncio.InvalidStateError, grpc.aio.UsageError) as e:
                self._break(message, e)
                return

    def _break(self, message: Any, error: Exception) -> None:
        details = error.details() if isinstance(error, grpc.aio.AioRpcError) else ""
        self._broken = f"cannot reach {self._peer}: {(details or 'the stream is closed')[:160]}"
        self._on_broken(message, self._broken)
        while not self._waiting.empty():
            self._on_broken(self._waiting.get_nowait(), self._broken)

    async def closed(self) -> str:
        """Return why once the other side ended the stream or the connection broke."""
        try:
            await self._call.code()
            return await self._call.details() or "the stream ended"
        except asyncio.CancelledError:
            if not self._call.cancelled():
                raise
            return "the stream was cancelled"

    def close(self) -> None:
        self._task.cancel()
        self._call.cancel()


@dataclass(frozen=True, slots=True)
class NextStage:
    """The link to the stage behind a worker's own."""

    worker_id: str
    link: Link
    channel: grpc.aio.Channel
    watch: asyncio.Task[None]

    async def close(self) -> None:
        self.watch.cancel()
        self.link.close()
        await self.channel.close()


async def connect(access: Access, address: str, timeout_s: float) -> grpc.aio.Channel:
    """A connected channel, or one whose first call says why it is not.

    A packet that is lost while connecting is sent again after 1 s, 2 s, 4 s only. So a new attempt begins every `STAGGER_S` beside those
    that are under way, and the first that succeeds wins: a network that comes back is found at once, a slow one has all of `timeout_s`.
    """
    attempts: dict[asyncio.Task[bool], grpc.aio.Channel] = {}
    deadline_s = time.monotonic() + timeout_s
    chosen = None
    try:
        while chosen is None:
            channel = access.channel(address)
            attempts[asyncio.create_task(_is_connected(channel))] = channel
            done, pending = await asyncio.wait(attempts, timeout=STAGGER_S, return_when=asyncio.FIRST_COMPLETED)
            connected = [task for task in done if task.result()]
            if connected or not pending or time.monotonic() > deadline_s:
                chosen = attempts.pop((connected or [*attempts])[0])
            for task in done - {*connected}:
                if failed := attempts.pop(task, None):
                    await failed.close()
        return chosen
    finally:
        for task, channel in attempts.items():
            task.cancel()
            await channel.close()


async def _is_connected(channel: grpc.aio.Channel) -> bool:
    """Wait until a channel is ready, or until its attempt has failed."""
    while (state := channel.get_state(try_to_connect=True)) is not grpc.ChannelConnectivity.READY:
        if state in (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN):
            return False
        await channel.wait_for_state_change(state)
    return True
