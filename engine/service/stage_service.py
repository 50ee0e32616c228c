"""StageService: what the coordinator and the neighbouring stages ask of a worker. It holds streams, never tensors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from engine.data import Unavailable
from engine.service import memory, wire
from engine.service.errors import status_number
from engine.service.link_probe import LinkPeer, echo, measure_links
from engine.service.links import Link, open_channel
from engine.service.security import metadata
from protos import noodle_pb2 as pb
from protos import noodle_pb2_grpc as rpc

if TYPE_CHECKING:  # importing it for real would import torch before the worker has announced itself
    from engine.service.stage_runner import StageRunner


class StageService(rpc.StageServiceServicer):
    """`report` is the link to the coordinator; it exists while the worker is registered."""

    def __init__(self, worker_id: str, token: str | None, credentials: grpc.ChannelCredentials | None) -> None:
        self._worker_id, self._token, self._credentials = worker_id, token, credentials
        self.runner: StageRunner | None = None
        self.report: Link | None = None
        self._next: Link | None = None
        self._next_channel: grpc.aio.Channel | None = None
        self._loop = asyncio.get_running_loop()

    # ------------------------------------------------------------------------------------------ out
    def deliver(self, message: pb.StepFrame | pb.StepReport) -> None:
        """Hand a finished message to its link; called on the compute thread."""
        self._loop.call_soon_threadsafe(self._deliver, message)

    def _deliver(self, message: pb.StepFrame | pb.StepReport) -> None:
        if isinstance(message, pb.StepReport):
            if self.report is not None:
                self.report.put(message)
        elif self._next is not None:
            self._next.put(message)
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
        return await asyncio.wrap_future(runner.call(lambda: runner.measure(request)))

    async def Load(self, request: pb.LoadRequest, context: grpc.aio.ServicerContext) -> pb.LoadReply:
        runner = self._ready()
        await self.disconnect_next()
        reply = await asyncio.wrap_future(runner.call(lambda: runner.load(request)))
        if request.next_address:
            self._next_channel = open_channel(request.next_address, self._credentials)
            call = rpc.StageServiceStub(self._next_channel).Forward(metadata=metadata(self._token))
            self._next = Link(call, f"{request.next_worker_id} at {request.next_address}", self._undelivered)
        return reply

    async def Forward(self, request_iterator: Any, context: grpc.aio.ServicerContext) -> pb.ForwardReply:
        runner = self._ready()
        while (frame := await context.read()) is not grpc.aio.EOF:
            runner.submit(frame)
        return pb.ForwardReply()

    async def Unload(self, request: pb.UnloadRequest, context: grpc.aio.ServicerContext) -> pb.UnloadReply:
        await self.disconnect_next()
        runner = self._ready()
        await self._unload(runner)
        return pb.UnloadReply()

    async def ExportKv(self, request: pb.ExportKvRequest, context: grpc.aio.ServicerContext) -> AsyncIterator[pb.KvMessage]:
        from engine.service import kv_transfer

        runner = self._ready()
        export = runner.call(lambda: kv_transfer.export_session(runner.owned_model(), runner.sessions, request))
        for message in await asyncio.wrap_future(export):
            yield message

    async def ImportKv(self, request_iterator: Any, context: grpc.aio.ServicerContext) -> pb.ImportKvReply:
        from engine.service import kv_transfer

        runner = self._ready()
        messages = [message async for message in request_iterator]
        take = runner.call(lambda: kv_transfer.import_session(runner.owned_model(), runner.sessions, messages))
        num_bytes: int = await asyncio.wrap_future(take)
        return pb.ImportKvReply(num_bytes=num_bytes)

    async def GetStageStatus(self, request: pb.GetStageStatusRequest, context: grpc.aio.ServicerContext) -> pb.StageServiceStatus:
        runner = self._ready()
        model, sessions = runner.model, runner.sessions
        status = pb.StageServiceStatus(worker_id=self._worker_id, resident_bytes=memory.resident_bytes(), session_ids=sessions.ids())
        if model is not None:
            status.plan_version, status.start, status.stop = sessions.plan_version, model.start, model.stop
            status.weight_bytes, status.kv_used_bytes, status.kv_budget_bytes = (
                model.weight_bytes,
                model.kv.used_bytes,
                model.kv.budget_bytes,
            )
        return status

    async def MeasureLinks(self, request: pb.MeasureLinksRequest, context: grpc.aio.ServicerContext) -> pb.Links:
        peers = [LinkPeer(peer.worker_id, peer.address) for peer in request.peers]
        links = await measure_links(self._worker_id, peers, self._token, self._credentials)
        return pb.Links(links=[wire.to_message(link, pb.MeasuredLink()) for link in links])

    async def Echo(self, request_iterator: Any, context: grpc.aio.ServicerContext) -> AsyncIterator[pb.EchoFrame]:
        async for frame in echo(context):
            yield frame

    def _ready(self) -> StageRunner:
        if self.runner is None:
            raise Unavailable(f"worker {self._worker_id} is still starting: try again in a few seconds")
        return self.runner

    async def disconnect_next(self) -> None:
        if self._next is not None:
            self._next.close()
        if self._next_channel is not None:
            await self._next_channel.close()
        self._next = self._next_channel = None

    async def forget(self) -> None:
        """The coordinator is gone or does not know us any more: hold nothing until it plans again."""
        await self.disconnect_next()
        if self.report is not None:
            self.report.close()
            self.report = None
        if self.runner is not None:
            await self._unload(self.runner)

    async def _unload(self, runner: StageRunner) -> None:
        unloading: Future[None] = runner.call(runner.unload)
        await asyncio.wrap_future(unloading)
