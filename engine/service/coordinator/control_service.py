"""The Control service: requests of workers, clients and operators, turned into cluster events and back."""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Iterable
from typing import Any

import grpc
import grpc.aio

from engine.control import events as on
from engine.control.expected import for_what_runs
from engine.control.move_estimate import estimate_move, preview_of_drains
from engine.control.nodes.members import Supposed
from engine.control.placement import law_for
from engine.control.sessions.scheduler import check_length
from engine.control.status import what_runs
from engine.data.errors import InvalidInput, NotFound, Refused, Stale, Unavailable, check_name
from engine.data.generation import GenerateRequest, check_stop
from engine.data.measured_link import COORDINATOR
from engine.data.plan import NodeSpec, Plan, Stage
from engine.data.status import Gauges, SessionStatus
from engine.data.version import own_version
from engine.planning.documents.problem_json import problem_to_json
from engine.service import wire
from engine.service.addresses import check_address, check_dialable
from engine.service.client import SESSION_ID_BYTES
from engine.service.coordinator.journal.journal import written
from engine.service.coordinator.manifest_service import ManifestSource
from engine.service.coordinator.outputs.session_output import SessionOutput
from engine.service.coordinator.outputs.session_text import text_of
from engine.service.coordinator.shell import ClusterShell
from engine.service.coordinator.watchers import Watchers
from engine.service.errors import as_noodle_error
from engine.service.incoming import check_heartbeat, check_spec, check_stages, check_version
from engine.service.tracing import parent as trace
from engine.service.trust.gatekeeper import caller_digest, caller_role, check_caller_is, why_cut
from protos import noodle_pb2 as pb
from protos import noodle_pb2_grpc as rpc

MIN_WATCH_INTERVAL_S = 0.1
PROOF_OF_LIFE_S = 1.0
RESTART_LIMIT_S = 60.0
MAX_PLANS = 50
LOOK_S, ASK_AGAIN_S = 0.05, 2.0  # at a worker that leaves


class ControlService(rpc.ControlServicer):
    """Holds no state of its own but what watchers share."""

    def __init__(self, shell: ClusterShell, manifests: ManifestSource, shows_text: bool = False) -> None:
        self._shell, self._manifests, self._watchers = shell, manifests, Watchers(shell.status)
        self._shows_text = shows_text

    # ------------------------------------------------------------------------------------------ workers
    async def Register(self, request: pb.RegisterRequest, context: grpc.aio.ServicerContext) -> pb.RegisterReply:
        spec = check_spec(wire.from_message(NodeSpec, request.spec))
        check_dialable(check_address(spec.address), context.peer())
        check_caller_is(spec.node_id)
        if spec.node_id == COORDINATOR:
            raise InvalidInput(f"a worker cannot be called {COORDINATOR}: links use that name for the coordinator; give another --id")
        generation = await self._shell.admit(spec, request.state == "ready", check_version(request.version))
        leases = self._shell.cluster.config.leases
        return pb.RegisterReply(
            cluster_id=self._shell.cluster_id,
            generation=generation,
            heartbeat_period_s=leases.heartbeat_period_s,
            lease_s=leases.lease_s,
        )

    async def Heartbeat(self, request: pb.HeartbeatRequest, context: grpc.aio.ServicerContext) -> pb.HeartbeatReply:
        check_caller_is(request.worker_id)
        if self._shell.cluster.members.current(request.worker_id, request.generation) is None:
            raise Stale(f"registration {request.generation} of {request.worker_id} is not current: register again")
        check_heartbeat(request)
        self._shell.feed(
            on.HeartbeatArrived(
                request.worker_id,
                request.generation,
                request.detail,
                request.progress,
                wire.from_message(Gauges, request.gauges),
            )
        )
        return pb.HeartbeatReply()

    async def Leave(self, request: pb.LeaveRequest, context: grpc.aio.ServicerContext) -> pb.LeaveReply:
        """Asked again after a while, should a move have been dropped: Refused by then, if what it holds fits nowhere else."""
        check_caller_is(request.worker_id)
        cluster, asked_s = self._shell.cluster, -math.inf
        while True:
            member = cluster.members.current(request.worker_id, request.generation)
            is_in_use = member is not None and (member.stage is not None or cluster.rebalancer.involves(request.worker_id))
            if member is None or (member.leaving and not is_in_use):
                return pb.LeaveReply()
            is_due = cluster.state.wish is None and cluster.rebalancer.move is None and time.monotonic() - asked_s > ASK_AGAIN_S
            if not member.leaving or is_due:
                if is_in_use:
                    cluster.preview(supposed=Supposed(drained=(request.worker_id,)))
                self._shell.feed(on.LeaveRequested(request.worker_id, request.generation))
                asked_s = time.monotonic()
            await asyncio.sleep(LOOK_S)

    async def Report(self, request_iterator: Any, context: grpc.aio.ServicerContext) -> pb.ReportReply:
        headers = dict(context.invocation_metadata() or ())
        worker_id, generation = str(headers.get("worker-id", "")), _generation(str(headers.get("generation", "0")))
        check_caller_is(worker_id)
        try:
            while (message := await context.read()) is not grpc.aio.EOF:
                if self._shell.cluster.members.current(worker_id, generation) is None:
                    break  # a former registration that woke up: nothing it says counts
                self._shell.report(message)
        finally:
            self._shell.feed(on.WorkerLost(worker_id, generation, why_cut() or "its connection broke"))
        return pb.ReportReply()

    async def GetManifest(self, request: pb.ManifestRequest, context: grpc.aio.ServicerContext) -> AsyncIterator[pb.ManifestPart]:
        async for part in self._manifests.parts(request):
            yield part

    async def Note(self, request: pb.NoteRequest, context: grpc.aio.ServicerContext) -> pb.NoteReply:
        check_caller_is(request.worker_id)
        self._shell.note(request.worker_id, request.text)
        return pb.NoteReply()

    # ------------------------------------------------------------------------------------------ viewers
    async def GetStatus(self, request: pb.GetStatusRequest, context: grpc.aio.ServicerContext) -> pb.ClusterStatus:
        return wire.to_message(self._shell.status(), pb.ClusterStatus())

    async def Watch(self, request: pb.WatchRequest, context: grpc.aio.ServicerContext) -> AsyncIterator[pb.WatchFrame]:
        interval_s = max(MIN_WATCH_INTERVAL_S, request.min_interval_s)
        sequence, finished = request.after_sequence, tuple[SessionStatus, ...]()
        with self._watchers.watching(caller_role()):
            while True:
                events = self._shell.events.after(sequence)
                sequence = events[-1].sequence if events else sequence
                yield self._watchers.frame(events, request.keeps_finished, finished)
                finished = self._watchers.status().ended.latest
                await asyncio.sleep(min(interval_s, PROOF_OF_LIFE_S))

    async def PlanNow(self, request: pb.PlanRequest, context: grpc.aio.ServicerContext) -> pb.Plan:
        cluster = self._shell.cluster
        without = _names(request.without_worker_id, request.without_worker_ids)
        including = _names(request.with_worker_id, request.with_worker_ids)
        if without or including:
            return self._told(preview_of_drains(cluster, Supposed(without, including)))
        stages = _stages(request)
        return self._told(cluster.preview(request.strategy or ("" if stages else cluster.strategy), stages))

    async def GetProblem(self, request: pb.GetProblemRequest, context: grpc.aio.ServicerContext) -> pb.GetProblemReply:
        cluster = self._shell.cluster
        law = law_for(cluster.members, cluster.serving.seen.load, cluster.plan)
        return pb.GetProblemReply(problem_json=problem_to_json(law.problem(cluster.problem())))

    async def GetLinks(self, request: pb.GetLinksRequest, context: grpc.aio.ServicerContext) -> pb.Links:
        links = self._shell.cluster.members.links
        return pb.Links(links=[wire.to_message(link, pb.MeasuredLink()) for link in links])

    async def GetVersion(self, request: pb.GetVersionRequest, context: grpc.aio.ServicerContext) -> pb.VersionReply:
        return wire.to_message(own_version(), pb.VersionReply())

    async def ListPlans(self, request: pb.ListPlansRequest, context: grpc.aio.ServicerContext) -> pb.PlanList:
        return pb.PlanList(plans=[wire.to_message(found, pb.AdoptedPlan()) for found in self._shell.journal.plans(MAX_PLANS)])

    async def EstimateMove(self, request: pb.EstimateMoveRequest, context: grpc.aio.ServicerContext) -> pb.MoveEstimate:
        return wire.to_message(estimate_move(self._shell.cluster, _stages(request)), pb.MoveEstimate())

    # ------------------------------------------------------------------------------------------ operators
    async def Generate(self, request: pb.GenerateRequest, context: grpc.aio.ServicerContext) -> AsyncIterator[pb.TokenChunk]:
        shell = self._shell
        trace.enter(context.invocation_metadata() or ())
        check_stop(request.stop)
        if request.resume:
            await _within(RESTART_LIMIT_S, shell.ready.wait())
        session_id = check_name("session id", request.session_id or f"s-{secrets.token_hex(SESSION_ID_BYTES)}")
        await shell.outputs.begun(session_id)  # by another call with this id, if there is one
        output = shell.outputs.find(session_id) if request.session_id and shell.outputs.codec is not None else None
        if output is None and request.resume:
            raise NotFound(f"session {request.session_id[:80]} is unknown here: it was never begun, or its journal is gone")
        if output is not None and not request.resume:
            await self._check_same(request)
        output = output or await self._open(session_id, request)
        output.num_listeners += 1
        try:
            yield output.head()
            async for chunk in output.stream(max(0, request.next_index)):
                yield chunk
        except Exception as e:
            error = as_noodle_error(e)
            shell.outputs.fail(output.session_id, error)
            raise error from e
        finally:
            shell.outputs.leave(output)

    async def _check_same(self, request: pb.GenerateRequest) -> None:
        """Raise Refused if the id that a client chose is that of another session: nobody may get another one's answer."""
        known = self._shell.journal.session(request.session_id)
        if known is not None and known.request != await self._read(request):
            raise Refused(f"session {request.session_id} is another request's: choose another id, or none")

    async def _open(self, session_id: str, request: pb.GenerateRequest) -> SessionOutput:
        """Begin a session; raises what forbids it. Whoever asks for the same id meanwhile waits for this."""
        with self._shell.outputs.beginning(session_id):
            return await self._begin(session_id, request)

    async def _begin(self, session_id: str, request: pb.GenerateRequest) -> SessionOutput:
        shell = self._shell
        if shell.prompts is None:
            raise Unavailable(shell.cluster.state.failure or "the model is being prepared: try again in a few seconds")
        wanted = await self._read(request)
        prepared = await asyncio.to_thread(shell.prompts.prepare, wanted)
        session = await asyncio.to_thread(written, session_id, prepared.prompt_ids, wanted, prepared.used)
        caller = caller_digest(request.for_caller)
        event = on.SessionSubmitted(session_id, prepared.prompt_ids, wanted, prepared.used.sampling, caller)
        return shell.outputs.open(event, prepared, session)

    async def _read(self, request: pb.GenerateRequest) -> GenerateRequest:
        """What is asked for; lengths are checked before anything of them costs time, and the rest is read beside the loop."""
        card, codec = self._shell.cluster.card, self._shell.outputs.codec
        if card is not None and codec is not None:
            check_length(len(request.prompt_ids), card.context_tokens)
            codec.check_length(request.prompt, card.context_tokens)
        return await asyncio.to_thread(wire.request_from_message, request)

    async def Apply(self, request: pb.ApplyRequest, context: grpc.aio.ServicerContext) -> pb.Plan:
        self._shell.feed(on.ReplanRequested(request.expected_plan_version, request.strategy, _stages(request)))
        return self._plan_or_preview()

    async def Drain(self, request: pb.DrainRequest, context: grpc.aio.ServicerContext) -> pb.Plan:
        self._shell.feed(on.DrainRequested(_drained(request), _expected(request)))
        return self._plan_or_preview()

    async def Undrain(self, request: pb.UndrainRequest, context: grpc.aio.ServicerContext) -> pb.Plan:
        self._shell.feed(on.UndrainRequested(_drained(request), _expected(request)))
        return self._plan_or_preview()

    async def Forget(self, request: pb.ForgetRequest, context: grpc.aio.ServicerContext) -> pb.ForgetReply:
        self._shell.feed(on.ForgetRequested(request.worker_id))
        return pb.ForgetReply()

    async def Acknowledge(self, request: pb.AcknowledgeRequest, context: grpc.aio.ServicerContext) -> pb.AcknowledgeReply:
        num_warnings = self._shell.events.acknowledge(request.sequence)
        return pb.AcknowledgeReply(sequence=self._shell.events.acknowledged, num_warnings=num_warnings)

    async def Profile(self, request: pb.ProfileRequest, context: grpc.aio.ServicerContext) -> AsyncIterator[pb.ProfileMessage]:
        async for message in self._shell.profile(request.worker_id, request.quick):
            yield message

    async def Cancel(self, request: pb.CancelRequest, context: grpc.aio.ServicerContext) -> pb.CancelReply:
        self._shell.feed(on.SessionCancelled(request.session_id, "an operator cancelled it", _expected(request)))
        return pb.CancelReply()

    async def GetText(self, request: pb.GetTextRequest, context: grpc.aio.ServicerContext) -> pb.SessionText:
        if not self._shows_text:
            raise Refused("this coordinator shows nobody what others ask: start it with --show-text to let operators read it")
        codec, session = self._shell.outputs.codec, self._shell.journal.session(check_name("session id", request.session_id))
        if codec is None or session is None:
            raise NotFound(f"session {request.session_id} is unknown here: it was never begun, or its journal is gone")
        return wire.to_message(await asyncio.to_thread(text_of, session, codec), pb.SessionText())

    async def SetSlowdown(self, request: pb.SetSlowdownRequest, context: grpc.aio.ServicerContext) -> pb.SetSlowdownReply:
        await self._shell.set_slowdown(request.worker_id, request.factor)
        return pb.SetSlowdownReply()

    async def ListMoves(self, request: pb.ListMovesRequest, context: grpc.aio.ServicerContext) -> pb.MoveList:
        reply = pb.MoveList()
        for report in self._shell.cluster.rebalancer.reports:
            wire.to_message(report, reply.moves.add())
        return reply

    async def SetAdaptation(self, request: pb.SetAdaptationRequest, context: grpc.aio.ServicerContext) -> pb.AdaptationStatus:
        if request.mode:
            self._shell.feed(on.AdaptationModeSet(request.mode, request.expected_mode))
            self._shell.journal.keep_adaptation_mode(request.mode)
        if request.decision_id:
            self._shell.feed(on.SuggestionConfirmed(request.decision_id))
        return self._adaptation()

    async def GetAdaptation(self, request: pb.GetAdaptationRequest, context: grpc.aio.ServicerContext) -> pb.AdaptationStatus:
        return self._adaptation()

    def _adaptation(self) -> pb.AdaptationStatus:
        return wire.to_message(self._shell.cluster.adapting.status(time.monotonic()), pb.AdaptationStatus())

    def _plan_or_preview(self) -> pb.Plan:
        """The plan that a request leads to: the one being prepared, else the present one, else what would be adopted."""
        cluster = self._shell.cluster
        move = cluster.rebalancer.move
        return self._told((move.new if move else cluster.plan) or cluster.preview())

    def _told(self, plan: Plan) -> pb.Plan:
        """With the times that the status tells of the plan that serves: those for the steps that run now."""
        cluster = self._shell.cluster
        return wire.to_message(for_what_runs(plan, cluster.members, what_runs(cluster)), pb.Plan())


def _stages(request: pb.PlanRequest | pb.ApplyRequest | pb.EstimateMoveRequest) -> tuple[Stage, ...]:
    return check_stages(request.stages)


def _generation(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 19):
        raise InvalidInput(f"generation {text[:40]!r} is not allowed: it is the number that Register gave")
    return int(text)


async def _within(limit_s: float, ready: Awaitable[Any]) -> None:
    try:
        await asyncio.wait_for(ready, limit_s)
    except TimeoutError as e:
        raise Unavailable(f"the model was not ready within {limit_s:.0f} s: see `noodle-engine status`") from e


def _expected(request: pb.DrainRequest | pb.UndrainRequest | pb.CancelRequest) -> int | None:
    return request.expected_plan_version if request.HasField("expected_plan_version") else None


def _drained(request: pb.DrainRequest | pb.UndrainRequest) -> tuple[str, ...]:
    return _names(request.worker_id, request.worker_ids) or ("",)


def _names(one: str, several: Iterable[str]) -> tuple[str, ...]:
    """Each once, in the order in which they were given."""
    return tuple(dict.fromkeys((one, *several) if one else several))
