"""A cluster on this machine as a context manager: a coordinator and workers, which end with the block and with this process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING, Any

from engine.client.async_client import AsyncClient
from engine.client.client import Client, Loop
from engine.data.errors import NoodleError, Unavailable
from engine.data.status import ClusterStatus, Phase
from engine.service.client import Client as WireClient
from engine.service.local import LocalCluster as Processes
from engine.service.local_options import local_options

if TYPE_CHECKING:
    from engine.service.on_ray.ray_cluster import RayCluster

RECONNECT_LIMIT_S = 60.0
RECONNECT_PAUSE_S = 0.5


class AsyncLocalCluster:
    """`async with AsyncLocalCluster(model="gpt2", num_workers=2) as cluster: ...` begins when the cluster serves.

    The keywords are the options of `noodle-engine up` with their words joined by `_` and their units behind them, such as
    `random_weights=0` or `memory_bytes=2**30`; `noodle-engine up --help` lists them.
    """

    def __init__(self, **options: Any) -> None:
        self._processes = Processes(local_options(**options))

    @property
    def address(self) -> str:
        """Of the coordinator; empty before the block."""
        return self._processes.address

    def client(self) -> AsyncClient:
        """A client that is let in."""
        return AsyncClient(self.address)

    async def __aenter__(self) -> AsyncLocalCluster:
        try:
            await self._processes.start()
            await wait_until_serving(self._processes)
        except BaseException:
            await self._processes.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._processes.stop()


async def wait_until_serving(processes: Processes | RayCluster, say: Callable[[str], None] | None = None) -> ClusterStatus:
    """The status once every stage is loaded; `say` is told how that goes on. Raises Unavailable with the cluster's own reason if it never
    will be."""
    said = ""
    async for status in _statuses(processes):
        if status.phase is Phase.SERVING:
            return status
        if status.failure:
            raise Unavailable(status.failure)
        dead = processes.failures() if status.plan_version == 0 else ()
        if dead:
            raise NoodleError(dead[0])
        if say is not None and status.detail != said:
            said = status.detail
            say(said)
    raise Unavailable("the coordinator ended the watch: see its log")


async def _statuses(processes: Processes | RayCluster) -> AsyncGenerator[ClusterStatus, None]:
    """As they change. A connection that breaks while all processes live is made again: machines that load a model are busy."""
    seen_s = time.monotonic()
    async with WireClient(processes.address) as wire:
        while True:
            try:
                async for frame in wire.watch(min_interval_s=0.1):
                    seen_s = time.monotonic()
                    yield frame.status
                return
            except Unavailable:
                if processes.failures() or time.monotonic() - seen_s > RECONNECT_LIMIT_S:
                    raise
                await asyncio.sleep(RECONNECT_PAUSE_S)


class LocalCluster:
    """The same for an ordinary program: `with LocalCluster(model="gpt2", num_workers=2) as cluster: ...`."""

    def __init__(self, **options: Any) -> None:
        self._cluster = AsyncLocalCluster(**options)
        self._loop: Loop | None = None

    @property
    def address(self) -> str:
        """Of the coordinator; empty before the block."""
        return self._cluster.address

    def client(self) -> Client:
        """A client that is let in."""
        return Client(self.address)

    def __enter__(self) -> LocalCluster:
        self._loop = Loop("noodle-cluster")
        try:
            self._loop.run(self._cluster.__aenter__())
        except BaseException:
            self._loop.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._loop is not None:
            self._loop.run(self._cluster.__aexit__())
            self._loop.close()
