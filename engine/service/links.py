"""One long-lived stream per link: messages leave in the order in which they were put, one `write` each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio

from engine.service import wire

MAX_WAITING = 1024


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

    async def closed(self) -> None:
        """Return when the other side ended the stream or the connection broke."""
        try:
            await self._call.code()
        except asyncio.CancelledError:
            if not self._call.cancelled():
                raise

    def close(self) -> None:
        self._task.cancel()
        self._call.cancel()


def open_channel(address: str, credentials: grpc.ChannelCredentials | None = None) -> grpc.aio.Channel:
    """A channel with this project's limits and keepalive."""
    if credentials is None:
        return grpc.aio.insecure_channel(address, options=wire.CHANNEL_OPTIONS)
    return grpc.aio.secure_channel(address, credentials, options=wire.CHANNEL_OPTIONS)
