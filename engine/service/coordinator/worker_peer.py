"""The coordinator's side of one worker: its RPCs and the stream of steps to it when it holds the first stage."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence

import grpc

from engine.control.commands import CommitStage, CopyKv, LoadStage, PrepareStage, SendStep
from engine.data.errors import NoodleError, Unavailable
from engine.data.model import ModelCard
from engine.data.plan import NodeSpec
from engine.service import wire
from engine.service.errors import from_rpc_error
from engine.service.incoming import check_profiled, checked
from engine.service.links import Link
from engine.service.trust.access import Access
from engine.service.trust.trouble import explained
from protos import noodle_pb2 as pb
from protos import noodle_pb2_grpc as rpc

MEASURE_TIMEOUT_S = 120.0
PROFILE_TIMEOUT_S = 900.0
LOAD_TIMEOUT_S = 86_400.0  # weights may have to come over a slow line; a fetch that stands still ends by itself
COPY_TIMEOUT_S = 60.0
SHORT_TIMEOUT_S = 10.0
GREETING_TIMEOUT_S = 2.0
LINK_TIMEOUT_S = 5.0  # for each peer


class NoAnswer(Unavailable):
    """Somebody may be there, but nothing came back in time."""


class WorkerPeer:
    """One registered worker at one address."""

    def __init__(self, worker_id: str, address: str, access: Access, on_undelivered: Callable[[pb.StepFrame, str], None]) -> None:
        self.worker_id, self.address = worker_id, address
        self._on_undelivered = on_undelivered
        self._access = access
        self._channel = access.channel(address, worker_id)
        self._stub, self._lines = rpc.StageServiceStub(self._channel), rpc.LineServiceStub(self._channel)
        self._steps: Link | None = None
        self._steps_plan_version = 0

    async def greet(self) -> None:
        """Raise Unavailable unless this worker is found at the address that it gave; NoAnswer if that cannot be told yet."""
        hint = "the address it gave; start it with a --listen or --advertise address that the coordinator and the other workers reach"
        try:
            reply = checked(
                await self._stub.GetStageStatus(pb.GetStageStatusRequest(), metadata=self._access.metadata, timeout=GREETING_TIMEOUT_S)
            )
        except grpc.RpcError as e:
            if e.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise NoAnswer(f"worker {self.worker_id} at {self.address} does not answer: that is {hint}") from e
            known = await explained(e, f"worker {self.worker_id} at {self.address}", self.address, self._access)
            why = str(known).split(";")[0]
            raise Unavailable(f"{why}: that is {hint}") from e
        if reply.worker_id != self.worker_id:
            raise Unavailable(f"worker {reply.worker_id} answers at {self.address}, not {self.worker_id}: that is {hint}")

    async def measure(self, card: ModelCard) -> pb.MeasureReply:
        request = pb.MeasureRequest(folder=card.folder, fingerprint=card.fingerprint)
        wire.to_message(card.ref, request.model)
        return checked(await self._stub.Measure(request, metadata=self._access.metadata, timeout=MEASURE_TIMEOUT_S))

    async def profile(self, card: ModelCard, spec: NodeSpec, quick: bool) -> AsyncIterator[pb.ProfileMessage]:
        """Progress, then the profile of the model as this worker runs it."""
        request = pb.ProfileNodeRequest(
            folder=card.folder, fingerprint=card.fingerprint, device=spec.device, num_threads=spec.num_threads, quick=quick
        )
        wire.to_message(card.ref, request.model)
        async for message in self._stub.Profile(request, metadata=self._access.metadata, timeout=PROFILE_TIMEOUT_S):
            yield check_profiled(checked(message))

    async def measure_links(self, peers: Sequence[WorkerPeer]) -> pb.Links:
        """The worker's links to `peers`."""
        request = pb.MeasureLinksRequest(peers=[pb.Peer(worker_id=peer.worker_id, address=peer.address) for peer in peers])
        return checked(await self._stub.MeasureLinks(request, metadata=self._access.metadata, timeout=LINK_TIMEOUT_S * (1 + len(peers))))

    async def load(
        self, command: LoadStage, card: ModelCard, next_peer: WorkerPeer | None, sources: Sequence[pb.WeightPeer]
    ) -> pb.LoadReply:
        request = _load_request(command, card, next_peer, sources)
        return checked(await self._stub.Load(request, metadata=self._access.metadata, timeout=LOAD_TIMEOUT_S))

    async def prepare(
        self, command: PrepareStage, card: ModelCard, next_peer: WorkerPeer | None, sources: Sequence[pb.WeightPeer]
    ) -> pb.LoadReply:
        request = _load_request(command, card, next_peer, sources)
        return checked(await self._stub.Prepare(request, metadata=self._access.metadata, timeout=LOAD_TIMEOUT_S))

    async def copy_kv(self, command: CopyKv, source: WorkerPeer) -> pb.CopyKvReply:
        request = pb.CopyKvRequest(plan_version=command.plan_version, source_worker_id=source.worker_id, source_address=source.address)
        for part in command.ranges:
            wire.to_message(part, request.ranges.add())
        return checked(await self._stub.CopyKv(request, metadata=self._access.metadata, timeout=COPY_TIMEOUT_S))

    async def grant_kv(self, command: CopyKv, to_worker_id: str) -> None:
        """Let another worker read keys and values here, for one change of plan."""
        request = pb.GrantKvRequest(plan_version=command.plan_version, to_worker_id=to_worker_id)
        await self._stub.GrantKv(request, metadata=self._access.metadata, timeout=SHORT_TIMEOUT_S)

    async def commit(self, command: CommitStage) -> pb.CommitReply:
        request = pb.CommitRequest(plan_version=command.plan_version)
        for session in command.sessions:
            wire.to_message(session, request.sessions.add())
        return await self._stub.Commit(request, metadata=self._access.metadata, timeout=SHORT_TIMEOUT_S)

    async def release(self, plan_version: int) -> None:
        await self._stub.Unload(pb.UnloadRequest(plan_version=plan_version), metadata=self._access.metadata, timeout=SHORT_TIMEOUT_S)

    async def set_slowdown(self, factor: float) -> None:
        await self._stub.SetSlowdown(pb.SetSlowdownRequest(factor=factor), metadata=self._access.metadata, timeout=SHORT_TIMEOUT_S)

    async def lines(self, after: int) -> pb.LinesReply:
        """Its log lines with a greater number."""
        request = pb.LinesRequest(worker_id=self.worker_id, after=after)
        return checked(await self._lines.GetLines(request, metadata=self._access.metadata, timeout=SHORT_TIMEOUT_S))

    def send_step(self, command: SendStep, segments: Sequence[pb.Segment]) -> None:
        """Put a step with these segments on the stream to this worker, which holds the first stage of the command's plan."""
        if self._steps is None or self._steps_plan_version != command.plan_version:
            if self._steps is not None:
                self._steps.close()
            call = self._stub.Forward(metadata=self._access.metadata)
            self._steps = Link(call, f"{self.worker_id} at {self.address}", self._on_undelivered)
            self._steps_plan_version = command.plan_version
        frame = pb.StepFrame(plan_version=command.plan_version, step_id=command.step_id, releases=command.releases, segments=segments)
        frame.dropped.extend(command.dropped)
        for kept in command.kept:
            wire.to_message(kept, frame.kept.add())
        self._steps.put(frame)

    def explain(self, error: grpc.RpcError) -> NoodleError:
        return from_rpc_error(error, f"worker {self.worker_id} at {self.address}")

    async def close(self) -> None:
        if self._steps is not None:
            self._steps.close()
        await self._channel.close()


def _load_request(
    command: LoadStage | PrepareStage, card: ModelCard, next_peer: WorkerPeer | None, sources: Sequence[pb.WeightPeer]
) -> pb.LoadRequest:
    request = pb.LoadRequest(
        folder=card.folder,
        fingerprint=card.fingerprint,
        plan_version=command.plan_version,
        start=command.stage.start,
        stop=command.stage.stop,
        num_items=card.num_items,
        weight_peers=sources,
    )
    wire.to_message(card.ref, request.model)
    if next_peer is not None:
        request.next_worker_id, request.next_address = next_peer.worker_id, next_peer.address
    return request
