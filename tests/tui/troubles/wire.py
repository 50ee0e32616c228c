"""A wire in front of one process: whatever connects to it reaches that process, later by `delay_s` in each direction."""

from __future__ import annotations

import asyncio
import contextlib
import socket


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Wire:
    """Listens on `port` and passes on to `target_port`, both of this machine."""

    def __init__(self) -> None:
        self.port, self.target_port, self.delay_s = free_port(), free_port(), 0.0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.target_port)
        except OSError:
            writer.close()
            return
        for source, target in ((reader, back), (there, writer)):
            task = asyncio.create_task(self._pass_on(source, target))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass_on(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        """In order: each piece leaves when its delay is over, and not before the one ahead of it."""
        loop = asyncio.get_running_loop()
        late: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def deliver() -> None:
            with contextlib.suppress(OSError):
                while True:
                    due_s, data = await late.get()
                    await asyncio.sleep(max(0.0, due_s - loop.time()))
                    target.write(data)
                    await target.drain()

        delivering = asyncio.create_task(deliver())
        with contextlib.suppress(OSError):
            while data := await source.read(2**16):
                late.put_nowait((loop.time() + self.delay_s, data))
        await asyncio.sleep(self.delay_s)
        delivering.cancel()
        with contextlib.suppress(OSError):
            target.close()
