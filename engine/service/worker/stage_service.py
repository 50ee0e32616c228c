"""StageService: what the coordinator and the neighbouring stages ask of a worker. It holds streams, never tensors."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
import grpc.aio

from engine.control.moves import Carried
from engine.data.errors import InvalidInput, Stale, Unauthorized, Unavailable
from engine.service import wire
from engine.service.errors import from_rpc_error, status_number
from engine.service.incoming import checked
from engine.service.link_probe import LinkPeer, echo, measure_links
from engine.service.links import Link, NextStage
from engine.service.meters import Meters
from engine.service.trust.access import Access
from engine.service.trust.gatekeeper import caller_name
from engine.service.worker import memory
from engine.service.worker.profiling import take_profile
from engine.service.worker.weights.weight_fetch import FetchReport
from engine.service.worker.weights.weight_supply import Supplied, WeightSupply
from protos import noodle_pb2 as pb
from protos import noodle_pb2_grpc as rpc

if TYPE_CHECKING:  # importing it for real would import torch before the worker has announced itself
    from engine.model.running.stage import StageModel
    from engine.model.weights.weight_folder import WeightFolder
    from engine.service.worker.prepared_stage import PreparedStage
    from engine.service.worker.stage_runner import StageRunner

T = TypeVar("T")

RING = "ring"  # metadata of a stream: memory that its sender offers to share
NO_PLAN = 2**64  # above every plan's version
MAX_ATTEMPTS = 3  # to load a stage whose cached weights turn out to be damaged
COPY_TOKENS = 256  # bounds how long an export keeps the compute thread, and the size of one message
COPY_TIMEOUT_S = 30.0
MAX_SLOWDOWN = 1000.0


class StageService(rpc.StageServiceServicer):
    """`report` is the link to the coordinator; it exists while the worker is registered."""

    def __init__(self, worker_id: str, supply: WeightSupply, access: Access, meters: Meters | None = None) -> None:
        self._worker_id, self._access, self._meters = worker_id, access, meters or Meters()
        self._supply = supply
        self._supplying: asyncio.Task[Supplied] | None = None
        self._newest_plan = 0  # of the last order for a stage
        self._granted_plan, self._may_read_kv = 0, set[str]()  # workers that a change of plan lets read keys and values here
        self.runner: StageRunner | None = None
        self.report: Link | None = None
        self.holds_stage = asyncio.Event()  # from the first stage on
        self._links: dict[int, NextStage] = {}  # by plan version
        self._preparation: Preparation | None = None
        self._loop = asyncio.get_running_loop()

    # ------------------------------------------------------------------------------------------ out
    def deliver(self, message: pb.StepFrame | pb.StepReport) -> None:
        """Hand a finished message to its link; called on the compute thread."""
        self._loop.call_soon_threadsafe(self._deliver, message)

    def _deliver(self, message: pb.StepFrame | pb.StepReport) -> None:
        if isinstance(message, pb.StepReport):
            if self.report is not None:
                self.report.put(message)
        elif following := self._links.get(message.plan_version):
            self._meters.add_link(self._worker_id, following.worker_id, "steps", _payload_bytes(message))
            following.link.put(message)
        else:
            self._undelivered(message, "the next stage is not connected")

    def _undelivered(self, frame: pb.StepFrame, text: str) -> None:
        """Tell the coordinator which segments did not reach the next stage."""
        error = Unavailable(f"worker {self._worker_id}: {text}")
        report = pb.StepReport(worker_id=self._worker_id, plan_version=frame.plan_version, step_id=frame.step_id, results=frame.failures)
        report.timings.extend(frame.timings)
        for s in frame.segments:
            report.results.add(
                session_id=s.session_id, epoch=s.epoch, sample_index=s.sample_index, code=status_number(error), message=str(error)
            )
        if self.report is not None and report.results:
            self.report.put(report)

    # ------------------------------------------------------------------------------------------ in
    async def Measure(self, request: pb.MeasureRequest, context: grpc.aio.ServicerContext) -> pb.MeasureReply:
        runner = self._ready()
        weights = await self._supply.config(request)
        return await asyncio.wrap_future(runner.call(lambda: runner.measure(request, weights)))

    async def Profile(self, request: pb.ProfileNodeRequest, context: grpc.aio.ServicerContext) -> AsyncIterator[pb.ProfileMessage]:
        model = await self._supply.config(request)
        async for message in take_profile(request, model.folder, only_config=not model.names):
            message.slowdown = self._ready().slowdown if message.profile_json else 0.0
            yield message

    async def Load(self, request: pb.LoadRequest, context: grpc.aio.ServicerContext) -> pb.LoadReply:
        runner = self._ready()
        self._begin_order(request.plan_version)
        runner.least_plan = request.plan_version
        await self._disconnect(lambda version: version <= request.plan_version)
        before_bytes = memory.resident_bytes()
        memory.reset_peak()

        def load(weights: WeightFolder) -> asyncio.Future[pb.LoadReply]:
            return asyncio.wrap_future(runner.call(lambda: runner.load(request, weights)))

        supplied, reply = await self._with_weights(request, load)
        reply.resident_before_bytes, reply.peak_resident_bytes = before_bytes, memory.peak_resident_bytes()
        await self._connect(request, runner.model)
        self.holds_stage.set()
        return supplied.describe(reply)

    async def Forward(self, request_iterator: Any, context: grpc.aio.ServicerContext) -> pb.ForwardReply:
        runner = self._ready()
        offer = dict(context.invocation_metadata() or ()).get(RING)
        inlet = await asyncio.to_thread(runner.inlet, offer) if offer else None
        try:
            while (frame := await context.read()) is not grpc.aio.EOF:
                runner.submit(frame, inlet)
        finally:
            if inlet is not None:
                inlet.end()
                runner.call(inlet.close)
        return pb.ForwardReply()

    async def Unload(self, request: pb.UnloadRequest, context: grpc.aio.ServicerContext) -> pb.UnloadReply:
        runner = self._ready()
        version = request.plan_version
        if version in (0, self._newest_plan):
            self._newest_plan = 0
            self._stop_supplying()
        if self._preparation is not None and version in (0, self._preparation.plan_version):
            self._drop_preparation()
            await self._disconnect(lambda v: v == version)
        if version in (0, runner.sessions.plan_version):
            runner.least_plan = NO_PLAN
            await self._disconnect()
            await asyncio.wrap_future(runner.call(runner.unload))
        return pb.UnloadReply()

    # ------------------------------------------------------------------------------------------ a live change of plan
    async def Prepare(self, request: pb.LoadRequest, context: grpc.aio.ServicerContext) -> pb.LoadReply:
        runner = self._ready()
        self._begin_order(request.plan_version)
        preparation = self._preparation = Preparation(request.plan_version)

        async def prepare(weights: WeightFolder) -> PreparedStage:
            return await preparation.run(lambda: runner.prepare(request, weights))

        supplied, prepared = await self._with_weights(request, prepare)
        preparation.check_wanted()
        preparation.stage = prepared
        await self._connect(request, prepared.model)
        reply = pb.LoadReply(
            weight_bytes=prepared.model.weight_bytes, resident_bytes=memory.resident_bytes(), read_bytes=prepared.read_bytes
        )
        return supplied.describe(reply)

    async def GrantKv(self, request: pb.GrantKvRequest, context: grpc.aio.ServicerContext) -> pb.GrantKvReply:
        """Only the newest change of plan counts: what was granted for another is over."""
        if request.plan_version != self._granted_plan:
            self._granted_plan, self._may_read_kv = request.plan_version, set()
        self._may_read_kv.add(request.to_worker_id)
        return pb.GrantKvReply()

    async def CopyKv(self, request: pb.CopyKvRequest, context: grpc.aio.ServicerContext) -> pb.CopyKvReply:
        preparation, stage = self._prepared(request.plan_version)
        channel = self._access.channel(request.source_address, request.source_worker_id)
        try:
            stub = rpc.StageServiceStub(channel)
            copies = [self._copy(stub, part, preparation, stage) for part in request.ranges]
            num_bytes = sum(await asyncio.gather(*copies))
            self._meters.add_link(request.source_worker_id, self._worker_id, "kv", num_bytes)
            return pb.CopyKvReply(num_bytes=num_bytes)
        finally:
            await channel.close()

    async def _copy(self, stub: rpc.StageServiceStub, part: pb.KvRange, preparation: Preparation, stage: PreparedStage) -> int:
        """One session's range, in messages of bounded size; a session that ended meanwhile is left out."""
        num_bytes = 0
        for start in range(part.start_token, part.stop_token, COPY_TOKENS):
            wanted = pb.ExportKvRequest(session_id=part.session_id, epoch=part.epoch, start_token=start, only_layers=True)
            wanted.layers.extend(stage.missing_layers)
            wanted.stop_token = min(start + COPY_TOKENS, part.stop_token)
            try:
                messages = [checked(m) async for m in stub.ExportKv(wanted, metadata=self._access.metadata, timeout=COPY_TIMEOUT_S)]
            except grpc.aio.AioRpcError as e:
                if e.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.ABORTED):
                    return num_bytes
                raise from_rpc_error(e, "the worker that holds the keys and values") from e
            num_bytes += await preparation.run(lambda: stage.take(messages))  # noqa: B023 - it runs before the next round begins
        return num_bytes

    async def Commit(self, request: pb.CommitRequest, context: grpc.aio.ServicerContext) -> pb.CommitReply:
        runner = self._ready()
        _, stage = self._prepared(request.plan_version)
        carried = tuple(wire.from_message(Carried, m) for m in request.sessions)
        runner.least_plan = request.plan_version
        switching: Future[tuple[str, ...]] = runner.call(lambda: runner.commit(stage, carried))
        missing = await asyncio.wrap_future(switching)
        self.holds_stage.set()
        self._drop_preparation()
        self._may_read_kv.clear()
        await self._disconnect(lambda version: version != request.plan_version)
        return pb.CommitReply(missing=missing)

    # ------------------------------------------------------------------------------------------ weights
    async def _with_weights(self, request: pb.LoadRequest, use: Callable[[WeightFolder], Awaitable[T]]) -> tuple[Supplied, T]:
        """Have the stage's weights here, then `use` them; what turns out to be damaged in the cache is fetched again."""
        from engine.model.weights.stored_tensor import DamagedTensor

        moved = FetchReport()
        for attempt in range(1, MAX_ATTEMPTS + 1):
            supplied = await self._supplied(request, distrust_cache=attempt > 1)
            moved.add(supplied.report)
            try:
                return replace(supplied, report=moved), await use(supplied.weights)
            except DamagedTensor as error:
                if not supplied.used_cache or attempt == MAX_ATTEMPTS:
                    raise
                await self._supply.drop_damaged(error)
        raise AssertionError("the last attempt returns or raises")

    def _begin_order(self, plan_version: int) -> None:
        """An order for a stage ends earlier ones that are still under way; raises Stale if a later one came before it."""
        if plan_version < self._newest_plan:
            raise Stale(f"plan {plan_version} came too late: the stage of plan {self._newest_plan} was ordered already")
        self._drop_preparation()
        self._newest_plan = plan_version

    async def _supplied(self, request: pb.LoadRequest, distrust_cache: bool) -> Supplied:
        """Raises Stale if another order for a stage arrives while weights are on their way: it has the say now."""
        if request.plan_version != self._newest_plan:
            raise Stale(f"plan {request.plan_version} was given up while its stage was loading")
        held = self._ready().held_items(request)
        task = self._supplying = asyncio.create_task(self._supply.weights(request, held, distrust_cache))
        try:
            return await task
        except asyncio.CancelledError:
            if self._supplying is task:  # whoever asked went away
                self._stop_supplying()
                raise
            raise Stale(f"plan {request.plan_version} was given up while its weights were on their way") from None

    def _stop_supplying(self) -> None:
        task, self._supplying = self._supplying, None
        if task is not None:
            task.cancel()

    def _drop_preparation(self) -> None:
        self._stop_supplying()
        if self._preparation is not None:
            self._preparation.close()
        self._preparation = None

    def _prepared(self, plan_version: int) -> tuple[Preparation, PreparedStage]:
        preparation = self._preparation
        if preparation is None or preparation.stage is None or preparation.plan_version != plan_version:
            raise Stale(f"worker {self._worker_id} has prepared no stage of plan {plan_version}: it was given up, or never begun")
        return preparation, preparation.stage

    async def SetSlowdown(self, request: pb.SetSlowdownRequest, context: grpc.aio.ServicerContext) -> pb.SetSlowdownReply:
        self._ready().slowdown = check_slowdown(request.factor)
        return pb.SetSlowdownReply()

    # ------------------------------------------------------------------------------------------ keys and values
    async def ExportKv(self, request: pb.ExportKvRequest, context: grpc.aio.ServicerContext) -> AsyncIterator[pb.KvMessage]:
        from engine.service.worker.kv_export import export_session

        if (caller := caller_name()) and caller not in self._may_read_kv:
            raise Unauthorized(f"no change of plan lets {caller} read keys and values of {self._worker_id}")
        runner = self._ready()
        export = runner.call(lambda: export_session(runner.owned_model(), runner.sessions, request))
        for message in await asyncio.wrap_future(export):
            yield message

    async def GetStageStatus(self, request: pb.GetStageStatusRequest, context: grpc.aio.ServicerContext) -> pb.StageServiceStatus:
        status = pb.StageServiceStatus(worker_id=self._worker_id, resident_bytes=memory.resident_bytes())
        if self.runner is None:
            return status
        model, sessions = self.runner.model, self.runner.sessions
        status.session_ids.extend(sessions.ids())
        if model is not None:
            status.plan_version, status.start, status.stop = sessions.plan_version, model.start, model.stop
            status.weight_bytes, status.kv_used_bytes, status.kv_budget_bytes = (
                model.weight_bytes,
                model.kv.held_bytes,
                model.kv.budget_bytes,
            )
        return status

    async def MeasureLinks(self, request: pb.MeasureLinksRequest, context: grpc.aio.ServicerContext) -> pb.Links:
        peers = [LinkPeer(peer.worker_id, peer.address) for peer in request.peers]
        links = await measure_links(self._worker_id, peers, self._access)
        return pb.Links(links=[wire.to_message(link, pb.MeasuredLink()) for link in links])

    async def Echo(self, request_iterator: Any, context: grpc.aio.ServicerContext) -> AsyncIterator[pb.EchoFrame]:
        async for frame in echo(context):
            yield frame

    def _ready(self) -> StageRunner:
        if self.runner is None:
            raise Unavailable(f"worker {self._worker_id} is still starting: try again in a few seconds")
        return self.runner

    async def _connect(self, request: pb.LoadRequest, model: StageModel | None) -> None:
        """Open the stream to the next stage, and offer it memory for what this one will hand on. Raises Stale if a later order came."""
        if request.next_address and model is not None:
            runner = self._ready()
            offer = await asyncio.to_thread(runner.offer, model, request.plan_version)
            if request.plan_version != self._newest_plan:
                runner.withdraw(request.plan_version)
                raise Stale(f"plan {request.plan_version} was given up while its stage was loading")
            metadata = (*self._access.metadata, *(((RING, offer),) if offer else ()))
            channel = self._access.channel(request.next_address, request.next_worker_id)
            call = rpc.StageServiceStub(channel).Forward(metadata=metadata)
            link = Link(call, f"{request.next_worker_id} at {request.next_address}", self._undelivered)
            watch = asyncio.create_task(self._watch(request.plan_version, request.next_worker_id, link))
            self._links[request.plan_version] = NextStage(request.next_worker_id, link, channel, watch)

    async def _watch(self, plan_version: int, next_worker_id: str, link: Link) -> None:
        """Say at once when the way to the next stage breaks: a step that was on it is lost, and nobody else can know."""
        why = await link.closed()
        if self.report is not None:
            report = pb.StepReport(worker_id=self._worker_id, plan_version=plan_version)
            report.unreachable_worker_id, report.unreachable_why = next_worker_id, why
            self.report.put(report)

    async def _disconnect(self, which: Callable[[int], bool] = lambda _: True) -> None:
        """Close the links to the next stages of those plan versions."""
        for version in [v for v in self._links if which(v)]:
            if self.runner is not None:
                self.runner.withdraw(version)
            await self._links.pop(version).close()

    async def forget(self) -> None:
        """The coordinator is gone or does not know us any more: run nothing until it plans again."""
        self._drop_preparation()
        self._newest_plan = 0
        await self._disconnect()
        if self.report is not None:
            self.report.close()
            self.report = None
        if self.runner is not None:
            self.runner.least_plan = NO_PLAN
            forgetting: Future[None] = self.runner.call(self.runner.forget_sessions)
            await asyncio.wrap_future(forgetting)


@dataclass(slots=True)
class Preparation:
    """A stage in the making, with the one thread that may touch it until it is committed."""

    plan_version: int
    thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "prepare"))
    stage: PreparedStage | None = None
    is_given_up: bool = False

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` returns, run on the thread; raises Stale if the stage is given up before it has ended."""
        self.check_wanted()
        try:
            result = await asyncio.get_running_loop().run_in_executor(self.thread, work)
        except asyncio.CancelledError:
            self.check_wanted()  # else whoever asked went away
            raise
        self.check_wanted()
        return result

    def check_wanted(self) -> None:
        if self.is_given_up:
            raise Stale(f"plan {self.plan_version} was given up while its stage was loading")

    def close(self) -> None:
        self.is_given_up = True
        self.thread.shutdown(wait=False, cancel_futures=True)


def _payload_bytes(frame: pb.StepFrame) -> int:
    """Of the hidden states in it; to read the field itself would copy them."""
    return math.prod(frame.shape) * (4 if frame.dtype == pb.DTYPE_FLOAT32 else 2) if frame.shape else 0


def check_slowdown(factor: float) -> float:
    """Return `factor` if a machine can be played that slow; else raise InvalidInput."""
    if not 1.0 <= factor <= MAX_SLOWDOWN:
        raise InvalidInput(f"slowdown {factor} is not allowed: give a factor from 1 to {MAX_SLOWDOWN:.0f}")
    return factor
