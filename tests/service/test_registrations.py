"""A real worker and a coordinator that takes its time: one registration follows another, and neither is blamed for the other."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path

import grpc

from engine.control.cluster import Cluster, ClusterConfig
from engine.service.coordinator.control_service import ControlService
from engine.service.coordinator.journal.journal import Journal
from engine.service.coordinator.manifest_service import ManifestSource
from engine.service.coordinator.shell import ClusterShell
from engine.service.options import SecurityOptions
from engine.service.process import Server
from engine.service.trust.access import Access
from engine.service.trust.guard import Guard
from protos import noodle_pb2 as pb
from protos import noodle_pb2_grpc as rpc

NUM_BEATS = 4
DEADLINE_S = 120.0


class SlowToAnswer(ControlService):
    """Takes a worker in, and lets it know only once the beats of its former registration have been told that this one is over."""

    def __init__(self, shell: ClusterShell, folder: Path) -> None:
        super().__init__(shell, ManifestSource(folder, lambda: None))
        self.states = list[str]()
        self.stale, self.steady = asyncio.Event(), asyncio.Event()
        self._num_beats: dict[int, int] = {}

    async def Register(self, request: pb.RegisterRequest, context: grpc.aio.ServicerContext) -> pb.RegisterReply:
        self.states.append(request.state)
        reply = await super().Register(request, context)
        if len(self.states) == 2:
            await self.stale.wait()
        return reply

    async def Heartbeat(self, request: pb.HeartbeatRequest, context: grpc.aio.ServicerContext) -> pb.HeartbeatReply:
        try:
            reply = await super().Heartbeat(request, context)
        except Exception:
            asyncio.get_running_loop().call_later(0.1, self.stale.set)  # the worker hears of it first
            raise
        self._num_beats[request.generation] = self._num_beats.get(request.generation, 0) + 1
        if len(self.states) > 1 and self._num_beats[request.generation] == NUM_BEATS and self.stale.is_set():
            self.steady.set()
        return reply


def test_a_beat_of_the_former_registration_does_not_end_the_next(tmp_path: Path) -> None:
    """The worker registers while it imports torch and again when it is ready; between the two the first one beats on."""

    async def work() -> None:
        shell = ClusterShell(Cluster(ClusterConfig(), 0.0), "c", Journal(tmp_path / "journal.sqlite3"), Access())
        service, server = SlowToAnswer(shell, tmp_path), Server(Guard(SecurityOptions()))
        rpc.add_ControlServicer_to_server(service, server.grpc)
        address = await server.start("127.0.0.1:0")
        words = ("-m", "engine", "worker", "--join", address, "--id", "w1", "--drain-seconds", "0")
        worker = await asyncio.create_subprocess_exec(sys.executable, *words, stdout=asyncio.subprocess.DEVNULL)
        try:
            await asyncio.wait_for(service.steady.wait(), DEADLINE_S)
            assert service.states == ["starting", "ready"]
            assert not any("lost" in event.text for event in shell.events)
        finally:
            with contextlib.suppress(ProcessLookupError):
                worker.kill()
            await worker.wait()
            await server.stop()
            await shell.close()

    asyncio.run(work())
