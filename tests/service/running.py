"""A real embedded cluster for tests: real processes, real gRPC, driven from synchronous test code."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import psutil

from engine.commands.cluster.generate import Transcript, transcribe
from engine.commands.serving.serve import wait_until_serving
from engine.data.generation import GenerateRequest
from engine.data.sampling import SamplingRequest
from engine.data.status import ClusterStatus, NodeState
from engine.service.client import Client
from engine.service.local import LocalCluster
from engine.service.local_options import LocalOptions, local_options

T = TypeVar("T")
DEADLINE_S = 120.0


class Running:
    """An event loop in a thread, with one cluster and one client on it."""

    def __init__(self, options: LocalOptions) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.cluster = LocalCluster(options)
        try:
            self.address = self.wait(self.cluster.start())
            self.client = self.wait(self._connect())
            self.wait(wait_until_serving(self.cluster))
        except BaseException:
            self.close()
            raise

    async def _connect(self) -> Client:
        return Client(self.address)

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(DEADLINE_S)

    def spawn(self, work: Coroutine[Any, Any, T]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def request(self, prompt_ids: tuple[int, ...], max_new_tokens: int = 12, **changes: Any) -> GenerateRequest:
        sampling = SamplingRequest(**{k: changes.pop(k) for k in list(changes) if k in SamplingRequest.__dataclass_fields__})
        return GenerateRequest(prompt_ids=prompt_ids, max_new_tokens=max_new_tokens, sampling=sampling, **changes)

    def generate(self, request: GenerateRequest) -> Transcript:
        return self.wait(transcribe(self.client, request))

    def generate_all(self, requests: list[GenerateRequest]) -> list[Transcript]:
        async def run() -> list[Transcript]:
            return list(await asyncio.gather(*(transcribe(self.client, r) for r in requests)))

        return self.wait(run())

    def status(self) -> ClusterStatus:
        return self.wait(self.client.status())

    def node_state(self, worker_id: str) -> NodeState | None:
        return next((n.state for n in self.status().nodes if n.worker_id == worker_id), None)

    def until(self, condition: Callable[[ClusterStatus], bool], what: str) -> float:
        """Wait for a condition on the watch stream; returns how long it took, in seconds."""

        async def watch() -> float:
            started_s = time.monotonic()
            async with contextlib.aclosing(self.client.watch(min_interval_s=0.1)) as frames:
                async for frame in frames:
                    if condition(frame.status):
                        return time.monotonic() - started_s
                    if time.monotonic() - started_s > DEADLINE_S:
                        raise AssertionError(f"waited {DEADLINE_S:.0f} s for: {what}; last status {frame.status}")
            raise AssertionError("the watch ended")

        return self.wait(watch())

    def events(self) -> list[str]:
        async def first() -> list[str]:
            async with contextlib.aclosing(self.client.watch()) as frames:
                async for frame in frames:
                    return [e.text for e in frame.events]
            return []

        return self.wait(first())

    def close(self) -> None:
        pids = self.cluster.pids()
        if hasattr(self, "client"):
            self.wait(self.client.close())
        self.wait(self.cluster.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        left = [p for p in pids.values() if psutil.pid_exists(p)]
        assert not left, f"processes left behind: {left}"


@contextlib.contextmanager
def running(model: str, num_workers: int, **options: Any) -> Iterator[Running]:
    options.setdefault("num_threads", 1)
    options.setdefault("random_weights", 0)
    options = {"strategy": "balanced", "adapt": "off"} | options  # every worker holds layers, and none moves by itself
    cluster = Running(local_options(model=model, num_workers=num_workers, **options))
    try:
        yield cluster
    finally:
        cluster.close()
