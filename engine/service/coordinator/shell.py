"""The coordinator's shell around the pure `Cluster`: feeds it events and carries out its commands in order.

All of it runs on one event loop, so that no lock is needed. It knows streams, the clock and the journal; it decides nothing.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Coroutine
from dataclasses import replace
from typing import Any

import grpc

from engine.control import commands as do
from engine.control import events as on
from engine.control.cluster import Cluster
from engine.control.session_status import with_error
from engine.control.status import cluster_status
from engine.data.errors import NoodleError, NotFound, Refused, Unavailable
from engine.data.generation import FinishReason, GenerateRequest
from engine.data.measured_link import COORDINATOR, MeasuredLink
from engine.data.plan import NodeSpec
from engine.data.status import ClusterStatus, Severity
from engine.profile.profile import Profile
from engine.service import wire
from engine.service.coordinator.event_list import EventList
from engine.service.coordinator.journal import Journal
from engine.service.coordinator.peers import Peers
from engine.service.coordinator.recorder import Recorder
from engine.service.coordinator.session_output import SessionOutput
from engine.service.coordinator.stage_orders import StageOrders
from engine.service.coordinator.text import TextCodec
from engine.service.coordinator.weight_sources import note_record
from engine.service.coordinator.worker_peer import PeerOptions, WorkerPeer
from engine.service.errors import as_noodle_error, from_number, from_rpc_error
from engine.service.link_probe import LinkPeer, measure_links
from protos import noodle_pb2 as pb

log = logging.getLogger(__name__)

TICK_S = 0.1
LAG_S = 0.1  # a loop that is this late has not heard what workers said either
GRACE_S = 10.0  # for a client whose connection broke; one that leaves says so
RETURN_S = 60.0  # for one whose coordinator was restarted
EPOCH_BITS = 20  # a session is interrupted less often than that within one incarnation of the coordinator


class ClusterShell:
    """One cluster, its workers' connections and its sessions' outputs."""

    def __init__(self, cluster: Cluster, cluster_id: str, journal: Journal, peer_options: PeerOptions) -> None:
        self.cluster, self.cluster_id, self.journal = cluster, cluster_id, journal
        self.codec: TextCodec | None = None
        self.recorder: Recorder | None = None
        self.events = EventList(journal)
        self.peers = Peers(cluster.members, peer_options, self._undelivered)
        self._orders = StageOrders(self, self.peers)
        self._outputs: dict[str, SessionOutput] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._measuring: dict[str, asyncio.Lock] = {}
        self._turned_away: dict[str, str] = {}  # workers that ask to join, and why they cannot
        self._generation = int(time.time() * 1000)  # the newest registration's; it rises over restarts too
        self._profiling: set[str] = set()
        self.ready = asyncio.Event()  # set once the model is known and former sessions are taken over, or never will be
        self._backlog: collections.deque[do.Command] = collections.deque()
        self._draining = False

    # ------------------------------------------------------------------------------------------ events
    def feed(self, event: on.ClusterEvent) -> None:
        """Handle one event now; raises the NoodleError with which the cluster refuses a request.

        Steps leave at once; journal, clients and the rest follow in order while the first stage computes already.
        """
        now_s = time.monotonic()
        commands = self.cluster.handle(event, now_s)
        for command in commands:
            if isinstance(command, do.SendStep):
                if peer := self.peers.get(command.first_worker_id):  # else its loss is on the way
                    peer.send_step(command)
            else:
                self._backlog.append(command)
        if self._backlog and not self._draining:
            self._draining = True
            asyncio.get_running_loop().call_soon(self._drain)
        if self.recorder is not None:
            self.recorder.observe(event, commands, now_s)

    def _drain(self) -> None:
        while self._backlog:
            command = self._backlog.popleft()
            try:
                self._carry_out(command)
            except Exception as e:
                error = as_noodle_error(e)
                log.error("%s", error)
                self._give_up(command, error)
        self._draining = False

    async def tick_forever(self) -> None:
        """Feed the clock; when this loop itself stood still, say so before anybody is accused of silence."""
        last_s = time.monotonic()
        while True:
            await asyncio.sleep(TICK_S)
            now_s = time.monotonic()
            if (lag_s := now_s - last_s - TICK_S) > LAG_S:
                self.feed(on.CoordinatorLagged(lag_s))
            self.feed(on.Tick())
            last_s = now_s

    def status(self) -> ClusterStatus:
        status, events = cluster_status(self.cluster, self.cluster_id, time.monotonic()), self.events
        return replace(status, acknowledged_sequence=events.acknowledged, num_unacknowledged=events.num_unacknowledged)

    async def admit(self, spec: NodeSpec, ready: bool) -> int:
        """Take a worker in and return the number of its registration.

        Raises Refused if another living process has its name, Unavailable if it is not found at the address it gave.
        """
        try:
            peer = await self.peers.reach(spec)
            generation = self._register(spec, ready, peer)
        except NoodleError as e:
            if self._turned_away.get(spec.node_id) != str(e):  # it asks again and again
                self._turned_away[spec.node_id] = str(e)
                self.record(do.Record(Severity.WARN, "node", spec.node_id, f"cannot join: {e}"))
            raise
        self._turned_away.pop(spec.node_id, None)
        return generation

    def _register(self, spec: NodeSpec, ready: bool, peer: WorkerPeer) -> int:
        """Nothing can come between the registration and the connection to whom it is for."""
        self._generation += 1
        try:
            self.feed(on.WorkerRegistered(spec, self._generation, ready))
        except NoodleError:
            self.peers.dismiss(peer)
            raise
        self.peers.adopt(peer)
        return self._generation

    # ------------------------------------------------------------------------------------------ sessions
    def open_session(self, event: on.SessionSubmitted) -> SessionOutput:
        """Journal and submit a session; raises what the journal or the cluster says against it."""
        output = self._new_output(event.session_id, event.prompt_ids, event.request)
        try:
            self.journal.open_session(event.session_id, event.prompt_ids, event.request)
            self.feed(event)
        except NoodleError as e:
            self._outputs.pop(event.session_id, None)
            self.journal.close_session(event.session_id, FinishReason.ERROR, e)
            raise
        return output

    def find_session(self, session_id: str) -> SessionOutput | None:
        """A session that runs, or one that is over and can be read again from the journal."""
        if output := self._outputs.get(session_id):
            return output
        found = self.journal.session(session_id)
        if found is None or found.finish_reason is None:
            return None
        output = self._new_output(session_id, found.prompt_ids, found.request)
        del self._outputs[session_id]
        output.restore(found.token_ids)
        output.finish(found.finish_reason, found.error)
        return output

    def restore_sessions(self) -> None:
        """Go on with what a former coordinator left behind; call it once the model is known."""
        for found in self.journal.unfinished():
            output = self._new_output(found.session_id, found.prompt_ids, found.request)
            stopped = output.restore(found.token_ids)
            epoch, age_s = self.journal.incarnation << EPOCH_BITS, max(0.0, time.time() - found.wall_s)
            self.feed(on.SessionRestored(found.session_id, found.prompt_ids, found.request, found.token_ids, epoch, stopped, age_s))
            self.spawn(self._cancel_unless_heard(output, RETURN_S))

    def leave(self, output: SessionOutput) -> None:
        """A client's stream ended: if it was the last one, it has a moment to come back before its session is cancelled."""
        output.num_listeners -= 1
        if output.session_id in self._outputs:
            self.spawn(self._cancel_unless_heard(output, GRACE_S))

    async def _cancel_unless_heard(self, output: SessionOutput, wait_s: float) -> None:
        await asyncio.sleep(wait_s)
        if output.num_listeners == 0 and self._outputs.get(output.session_id) is output:
            with contextlib.suppress(NotFound):
                self.feed(on.SessionCancelled(output.session_id, "the client went away"))

    def _new_output(self, session_id: str, prompt_ids: tuple[int, ...], request: GenerateRequest) -> SessionOutput:
        if self.codec is None:
            raise AssertionError("a session before the model is known")
        output = self._outputs[session_id] = SessionOutput(session_id, prompt_ids, self.codec, request.stop)
        return output

    def report(self, message: pb.StepReport) -> None:
        """A step's outcome from a worker; the text decides about stop strings before the cluster hears of the token."""
        if message.unreachable_worker_id:
            why = message.unreachable_why[:160]
            self.feed(on.LinkBroken(message.worker_id, message.unreachable_worker_id, message.plan_version, why))
            return
        current = message.plan_version == self.cluster.plan_version
        outcomes = tuple(self._outcome(r, current) for r in message.results)
        self.feed(on.StepReported(message.worker_id, message.plan_version, message.step_id, outcomes, wire.timings_from(message.timings)))

    def _outcome(self, result: pb.SegmentResult, current: bool) -> on.SegmentOutcome:
        index = result.sample_index if result.sample_index >= 0 else None
        if result.code:
            return on.SegmentOutcome(result.session_id, result.epoch, index, 0, error=from_number(result.code, result.message))
        output, session = self._outputs.get(result.session_id), self.cluster.scheduler.get(result.session_id)
        is_new = current and session is not None and session.epoch == result.epoch and index == len(session.generated)
        stopped = output is not None and is_new and index is not None and output.take(index, result.token_id)
        return on.SegmentOutcome(result.session_id, result.epoch, index, result.token_id, stopped=stopped)

    # ------------------------------------------------------------------------------------------ commands
    def _carry_out(self, command: do.Command) -> None:
        match command:
            case do.EmitToken():
                output = self._outputs.get(command.session_id)
                if output is not None and output.journal_error is None:  # else it has ended
                    self.journal.append_token(command.session_id, command.index, command.token_id)
                    output.emit(command)
            case do.FinishSession():
                self._finish(command)
            case do.Record():
                self.record(command)
            case do.MeasureWorker():
                self.spawn(self._measure(command))
            case do.MeasureLinks():
                self.spawn(self._measure_links(command))
            case do.LoadStage() | do.PrepareStage() | do.CopyKv() | do.CommitStage() | do.ReleaseStage():
                self.spawn(self._orders.carry_out(command))
            case do.AdoptPlan():
                self.journal.adopt_plan(command.plan)
            case do.KeepDrained():
                self.journal.keep_drained(command.worker_ids)
            case do.DropWorker():
                member = self.cluster.members.get(command.worker_id)
                is_former = member is not None and member.generation != command.generation  # its successor is connected already
                if not is_former:
                    self.peers.drop(command.worker_id)

    def _give_up(self, command: do.Command, error: NoodleError) -> None:
        """A command failed, most likely the journal: the session whose token could not be kept ends here."""
        if isinstance(command, do.EmitToken):
            if output := self._outputs.get(command.session_id):
                output.journal_error = error
            if self.cluster.scheduler.get(command.session_id):
                self.feed(on.SessionCancelled(command.session_id, str(error)))

    def _finish(self, command: do.FinishSession) -> None:
        """End a session; one that lost a token to the disk has failed, even if the cluster knows all of them."""
        output, reason, error, status = self._outputs.pop(command.session_id, None), command.reason, command.error, command.status
        if output is not None:
            if output.journal_error is not None:
                reason, error = FinishReason.ERROR, output.journal_error
                status = with_error(status, error)
            output.finish(reason, error)
        self.journal.close_session(command.session_id, reason, error, status)

    def record(self, record: do.Record) -> None:
        """One event: to the journal, the log and whoever watches."""
        event = self.events.add(record)
        if self.recorder is not None:
            self.recorder.event(event)
        log.log(logging.ERROR if record.severity is Severity.ERROR else logging.INFO, "%s %s: %s", record.kind, record.subject, record.text)
        self.events.keep(event)

    def note(self, worker_id: str, text: str) -> None:
        """A line that a worker of this cluster has for the operator. Raises NotFound for anybody else."""
        self.record(note_record(self.peers.present(worker_id).worker_id, text))

    async def _measure(self, command: do.MeasureWorker) -> None:
        """One worker of a host at a time: two that measure on the same cores would measure each other."""
        member, card = self.cluster.members.get(command.worker_id), self.cluster.card
        if member is None or card is None:
            return
        async with self._measuring.setdefault(member.spec.host, asyncio.Lock()):
            await self.ask(command.worker_id, command.generation, self._measure_now(command, card))

    async def _measure_now(self, command: do.MeasureWorker, card: Any) -> on.ClusterEvent:
        reply = await self.peers[command.worker_id].measure(card)
        return on.WorkerMeasured(command.worker_id, command.generation, tuple(reply.decode_s), reply.base_s)

    async def _measure_links(self, command: do.MeasureLinks) -> None:
        """Not while a worker of the same host times items: each would disturb the other."""
        member, found = self.cluster.members.get(command.worker_id), list[MeasuredLink]()
        if member is not None:
            async with self._measuring.setdefault(member.spec.host, asyncio.Lock()):
                with contextlib.suppress(grpc.RpcError, NoodleError):  # a worker that is gone is found by its lease
                    found += await self._links_of(self.peers.connected(command.worker_id), command.peer_ids)
        self.feed(on.LinksMeasured(command.worker_id, command.generation, tuple(found)))

    async def _links_of(self, worker: WorkerPeer, peer_ids: tuple[str, ...]) -> list[MeasuredLink]:
        """To the coordinator as measured from here, to workers as measured there."""
        found = list[MeasuredLink]()
        if COORDINATOR in peer_ids:
            here = LinkPeer(worker.worker_id, worker.address)
            found += await measure_links(COORDINATOR, [here], self.peers.options.token, self.peers.options.credentials)
        if peers := [peer for peer_id in peer_ids if (peer := self.peers.get(peer_id))]:
            answer = await worker.measure_links(peers)
            found += [wire.from_message(MeasuredLink, link) for link in answer.links]
        return found

    async def profile(self, worker_id: str, quick: bool) -> AsyncIterator[pb.ProfileMessage]:
        """Progress, then the document, which the cluster has heard of by then. Raises NotFound, Unavailable or what the worker says."""
        peer, member, card = self.peers.present(worker_id), self.cluster.members.named(worker_id), self.cluster.card
        if card is None:
            raise Unavailable(self.cluster.state.failure or "the model is being prepared: try again in a few seconds")
        if worker_id in self._profiling:
            raise Refused(f"{worker_id} is being profiled already, and a second profile would measure the first: wait for its end")
        self._profiling.add(worker_id)
        self.record(do.Record(Severity.INFO, "node", worker_id, "is being profiled beside what it serves"))
        try:
            async for message in peer.profile(card, member.spec, quick):
                if message.profile_json:
                    self.feed(on.WorkerProfiled(worker_id, member.generation, Profile.from_json(message.profile_json), message.slowdown))
                yield message
        except grpc.RpcError as e:
            raise from_rpc_error(e, f"worker {worker_id}") from e
        finally:
            self._profiling.discard(worker_id)

    async def set_slowdown(self, worker_id: str, factor: float) -> None:
        """Raises NotFound for a worker that is not there, and what it answers."""
        peer = self.peers.present(worker_id)
        try:
            await peer.set_slowdown(factor)
        except grpc.RpcError as e:
            raise from_rpc_error(e, f"worker {worker_id}") from e
        self.record(do.Record(Severity.WARN, "node", worker_id, f"plays a machine {factor:g} times as slow from now on"))

    async def ask(self, worker_id: str, generation: int, question: Coroutine[Any, Any, on.ClusterEvent]) -> None:
        """Feed the answer of a worker, its refusal as a failure, and its silence as a loss."""
        try:
            if worker_id not in self.peers:
                question.close()
                return
            self.feed(await question)
        except grpc.RpcError as e:
            peer = self.peers.get(worker_id)
            error = peer.explain(e) if peer else None
            if e.code() is grpc.StatusCode.ABORTED:
                return  # a later order took its place, and its answer is what counts
            if e.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED) or error is None:
                self.feed(on.WorkerLost(worker_id, generation, str(error or "its connection broke")))
            else:
                self.feed(on.WorkerFailed(worker_id, generation, str(error)))

    def _undelivered(self, frame: pb.StepFrame, text: str) -> None:
        if frame.segments:
            self.feed(on.StepUndelivered(frame.plan_version, frame.step_id, text))

    # ------------------------------------------------------------------------------------------ tasks
    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` beside the event loop's other duties; its failure is a bug and is logged as one."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            as_noodle_error(error)

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await self.peers.close()
        self.journal.close()
        if self.recorder is not None:
            await asyncio.to_thread(self.recorder.close)
