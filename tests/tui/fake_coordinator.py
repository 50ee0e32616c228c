"""A coordinator for the console's tests: the real wire, synthetic facts, in a thread of the test process.

Run alone it serves a small lively cluster to look at: `python -m tests.tui.fake_coordinator [PORT]`.
"""

from __future__ import annotations

import asyncio
import math
import sys
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc.aio

from engine.data.generation import FinishReason, TokenChunk
from engine.data.version import Version, own_version
from engine.data.watch_frame import WatchFrame
from engine.service.wire import MAX_CONTROL_BYTES, server_options, to_message
from protos import noodle_pb2 as pb
from protos import noodle_pb2_grpc as rpc
from tests.tui import frames


class Control(rpc.ControlServicer):
    """Watch repeats the published frame; Generate plays the published chunks."""

    def __init__(self) -> None:
        self.frame: WatchFrame = frames.frame()
        self.chunks: tuple[TokenChunk, ...] = ()
        self.token_interval_s = 0.0
        self.silent = False  # keep the stream open, say nothing
        self.repeat_s = 0.5
        self.version: Version | None = own_version()  # None: it is from before it could be asked
        self.requests: list[pb.GenerateRequest] = []
        self.frames_sent = threading.Semaphore(0)
        self.cancelled = threading.Event()
        self.changed = asyncio.Event()

    async def Watch(self, request: pb.WatchRequest, context: Any) -> AsyncIterator[pb.WatchFrame]:
        while True:
            if not self.silent:
                self.frames_sent.release()
                yield to_message(self.frame, pb.WatchFrame())
            self.changed.clear()
            try:
                await asyncio.wait_for(self.changed.wait(), self.repeat_s)
            except TimeoutError:
                continue

    async def GetVersion(self, request: pb.GetVersionRequest, context: Any) -> pb.VersionReply:
        if self.silent:
            await asyncio.Event().wait()
        if self.version is None:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "no such method")
        return to_message(self.version, pb.VersionReply())

    async def GetStatus(self, request: pb.GetStatusRequest, context: Any) -> pb.ClusterStatus:
        return to_message(self.frame.status, pb.ClusterStatus())

    async def Generate(self, request: pb.GenerateRequest, context: Any) -> AsyncIterator[pb.TokenChunk]:
        self.requests.append(request)
        try:
            for chunk in self.chunks:
                message = to_message(replace(chunk, finish_reason=None), pb.TokenChunk())
                message.finish_reason = chunk.finish_reason or ""
                yield message
                await asyncio.sleep(self.token_interval_s)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def PlanNow(self, request: pb.PlanRequest, context: Any) -> pb.Plan:
        return to_message(frames.plan(request.strategy or "balanced"), pb.Plan())

    async def Cancel(self, request: pb.CancelRequest, context: Any) -> pb.CancelReply:
        await self._unchanged(request, context)
        return pb.CancelReply()

    async def Drain(self, request: pb.DrainRequest, context: Any) -> pb.Plan:
        await self._unchanged(request, context)
        return pb.Plan(plan_version=self.frame.status.plan_version)

    async def Apply(self, request: pb.ApplyRequest, context: Any) -> pb.Plan:
        await self._unchanged(request, context)
        return pb.Plan(plan_version=self.frame.status.plan_version)

    async def SetAdaptation(self, request: pb.SetAdaptationRequest, context: Any) -> pb.AdaptationStatus:
        mode = self.frame.status.adaptation.mode
        if request.expected_mode != mode:
            text = f"adaptation is {mode} now, the request was made when it was {request.expected_mode}"
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, text)
        return pb.AdaptationStatus(mode=mode)

    async def _unchanged(self, request: Any, context: Any) -> None:
        """As the real one refuses; that it does is tested with the real one in tests/service/test_two_operators.py."""
        now, expected = self.frame.status.plan_version, request.expected_plan_version
        if expected != now:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"the plan is #{now} now, the request was made for #{expected}")


class FakeCoordinator:
    """Owns the server's thread; use as a context manager. Stop and start again keep the port."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.control = Control()
        self.port = 0
        self.start()

    def __enter__(self) -> FakeCoordinator:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        self._call(self._start())

    def stop(self) -> None:
        self._call(self._server.stop(0))

    def publish(self, frame: WatchFrame) -> None:
        """Show this from now on, and say so at once."""
        self.control.frame = frame
        self._loop.call_soon_threadsafe(self.control.changed.set)

    def _call(self, coroutine: Any) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _start(self) -> None:
        self._server = grpc.aio.server(options=server_options(MAX_CONTROL_BYTES))
        rpc.add_ControlServicer_to_server(self.control, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()


def lively(tick: int) -> WatchFrame:
    """A frame whose figures move, to look at and to measure with."""
    base = frames.status()
    wave = [1 + 0.25 * math.sin(tick / 3 + i) for i in range(4)]
    times = [s.predicted_s * wave[i] for i, s in enumerate(base.stages)]
    stages = tuple(replace(s, compute_p50_s=t, history_s=(*s.history_s[1:], t)) for s, t in zip(base.stages, times, strict=True))
    nodes = tuple(frames.changed(n, cpu_utilisation=0.4 * wave[i]) for i, n in enumerate(base.nodes))
    moved = frames.changed(base, stages=stages, nodes=nodes, tokens_per_s=80 + 5 * wave[0], step_p50_s=sum(times) + 0.003)
    return frames.frame(moved, *(frames.event(i, f"event number {i}") for i in range(1, 3 + tick // 10)))


def main() -> None:
    """Serve `lively` frames until interrupted."""
    with FakeCoordinator() as fake:
        fake.control.token_interval_s = 0.05
        fake.control.chunks = (*(frames.chunk(i, f" word{i}") for i in range(60)), frames.chunk(-1, "", finish_reason=FinishReason.LENGTH))
        print(fake.address, flush=True)
        tick = 0
        while not threading.Event().wait(1.0):
            tick += 1
            fake.publish(lively(tick) if "--still" not in sys.argv else frames.frame())


if __name__ == "__main__":
    main()
