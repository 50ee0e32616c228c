"""The coordinator's shell around the pure `Cluster`: feeds it events and carries out its commands in order.

All of it runs on one event loop, so that no lock is needed. It knows streams, the clock and the journal; it decides nothing.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import time
from collections.abc import Coroutine
from typing import Any

import grpc

from engine.control import commands as do
from engine.control import events as on
from engine.control.cluster import Cluster
from engine.control.status import cluster_status
from engine.data import ClusterStatus, Event, NoodleError, Severity
from engine.measured_link import MeasuredLink
from engine.service import wire
from engine.service.errors import as_noodle_error, from_number
from engine.service.journal import Journal
from engine.service.recorder import Recorder
from engine.service.session_output import SessionOutput
from engine.service.text import TextCodec
from engine.service.worker_peer import PeerOptions, WorkerPeer
from protos import noodle_pb2 as pb

log = logging.getLogger(__name__)

TICK_S = 0.1
LAG_S = 0.5
MAX_EVENTS = 2000


class ClusterShell:
    """One cluster, its workers' connections and its sessions' outputs."""

    def __init__(self, cluster: Cluster, cluster_id: str, journal: Journal, peer_options: PeerOptions) -> None:
        self.cluster, self.cluster_id, self.journal = cluster, cluster_id, journal
        self.codec: TextCodec | None = None
        self.recorder: Recorder | None = None
        self.events: collections.deque[Event] = collections.deque(maxlen=MAX_EVENTS)
        self._peer_options = peer_options
        self._peers: dict[str, WorkerPeer] = {}
        self._outputs: dict[str, SessionOutput] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._measuring: dict[str, asyncio.Lock] = {}
        self._sequence = 0
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
                self._peers[command.first_worker_id].send_step(command)
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
        return cluster_status(self.cluster, self.cluster_id, time.monotonic())

    def connect_peer(self, worker_id: str, address: str) -> None:
        """A worker registered: talk to it at `address` from now on."""
        old = self._peers.get(worker_id)
        if old is not None and old.address == address:
            return
        if old is not None:
            self.spawn(old.close())
        self._peers[worker_id] = WorkerPeer(worker_id, address, self._peer_options, self._undelivered)

    # ------------------------------------------------------------------------------------------ sessions
    def open_session(self, session_id: str, prompt_ids: tuple[int, ...], event: on.SessionSubmitted) -> SessionOutput:
        """Journal and submit a session; raises what the journal or the cluster says against it."""
        if self.codec is None:
            raise AssertionError("a session before the model is known")
        output = SessionOutput(session_id, self.codec, event.request.stop)
        self._outputs[session_id] = output
        try:
            self.journal.open_session(session_id, prompt_ids, event.request)
            self.feed(event)
        except NoodleError:
            self._outputs.pop(session_id, None)
            raise
        return output

    def report(self, message: pb.StepReport) -> None:
        """A step's outcome from a worker; the text decides about stop strings before the cluster hears of the token."""
        current = message.plan_version == self.cluster.plan_version
        outcomes = tuple(self._outcome(r, current) for r in message.results)
        self.feed(on.StepReported(message.worker_id, message.plan_version, message.step_id, outcomes, wire.timings_from(message.timings)))

    def _outcome(self, result: pb.SegmentResult, current: bool) -> on.SegmentOutcome:
        index = result.sample_index if result.sample_index >= 0 else None
        if result.code:
            return on.SegmentOutcome(result.session_id, result.epoch, index, 0, error=from_number(result.code, result.message))
        output = self._outputs.get(result.session_id)
        stopped = output is not None and current and index is not None and output.take(index, result.token_id)
        return on.SegmentOutcome(result.session_id, result.epoch, index, result.token_id, stopped=stopped)

    # ------------------------------------------------------------------------------------------ commands
    def _carry_out(self, command: do.Command) -> None:
        match command:
            case do.EmitToken():
                self.journal.append_token(command.session_id, command.index, command.token_id)
                if output := self._outputs.get(command.session_id):
                    output.emit(command)
            case do.FinishSession():
                self._finish(command)
            case do.Record():
                self._record(command)
            case do.MeasureWorker():
                self.spawn(self._measure(command))
            case do.MeasureLinks():
                self.spawn(self._measure_links(command))
            case do.LoadStage():
                self.spawn(self._load(command))
            case do.AdoptPlan():
                self.journal.adopt_plan(command.plan)
            case do.DropWorker():
                if peer := self._peers.pop(command.worker_id, None):
                    self.spawn(peer.close())

    def _give_up(self, command: do.Command, error: NoodleError) -> None:
        """A command failed, most likely the journal: the session whose token could not be kept ends here."""
        if isinstance(command, do.EmitToken) and self.cluster.scheduler.get(command.session_id):
            if output := self._outputs.get(command.session_id):
                output.journal_error = error
            self.feed(on.SessionCancelled(command.session_id, str(error)))

    def _finish(self, command: do.FinishSession) -> None:
        output = self._outputs.pop(command.session_id, None)
        if output is not None:
            output.finish(command.reason, command.error)
        self.journal.close_session(command.session_id, command.reason)

    def _record(self, record: do.Record) -> None:
        self._sequence += 1
        event = Event(self._sequence, time.time(), record.severity, record.kind, record.subject, record.text, record.cause_id)
        self.events.append(event)
        if self.recorder is not None:
            self.recorder.event(event)
        log.log(logging.ERROR if record.severity is Severity.ERROR else logging.INFO, "%s %s: %s", record.kind, record.subject, record.text)
        self.journal.add_event(event)

    async def _measure(self, command: do.MeasureWorker) -> None:
        """One worker of a host at a time: two that measure on the same cores would measure each other."""
        member, card = self.cluster.members.get(command.worker_id), self.cluster.card
        if member is None or card is None:
            return
        async with self._measuring.setdefault(member.spec.host, asyncio.Lock()):
            await self._ask(command.worker_id, command.generation, self._measure_now(command, card))

    async def _measure_now(self, command: do.MeasureWorker, card: Any) -> on.ClusterEvent:
        reply = await self._peers[command.worker_id].measure(card)
        return on.WorkerMeasured(command.worker_id, command.generation, tuple(reply.decode_s))

    async def _measure_links(self, command: do.MeasureLinks) -> None:
        """Not while a worker of the same host times items: each would disturb the other."""
        member, links = self.cluster.members.get(command.worker_id), pb.Links()
        if member is not None:
            async with self._measuring.setdefault(member.spec.host, asyncio.Lock()):
                peers = [peer for peer_id in command.peer_ids if (peer := self._peers.get(peer_id))]
                with contextlib.suppress(grpc.RpcError, KeyError):  # a worker that is gone is found by its lease
                    links = await self._peers[command.worker_id].measure_links(peers)
        found = tuple(wire.from_message(MeasuredLink, link) for link in links.links)
        self.feed(on.LinksMeasured(command.worker_id, command.generation, found))

    async def _load(self, command: do.LoadStage) -> None:
        next_peer = self._peers.get(command.next_worker_id) if command.next_worker_id else None
        await self._ask(command.worker_id, command.generation, self._load_now(command, next_peer))

    async def _load_now(self, command: do.LoadStage, next_peer: WorkerPeer | None) -> on.ClusterEvent:
        if self.cluster.card is None:
            raise AssertionError("a plan without a model")
        reply = await self._peers[command.worker_id].load(command, self.cluster.card, next_peer)
        growth = max(0, reply.peak_resident_bytes - reply.resident_before_bytes)
        return on.StageLoaded(command.worker_id, command.plan_version, reply.weight_bytes, growth, reply.load_s)

    async def _ask(self, worker_id: str, generation: int, question: Coroutine[Any, Any, on.ClusterEvent]) -> None:
        """Feed the answer of a worker, its refusal as a failure, and its silence as a loss."""
        try:
            if worker_id not in self._peers:
                question.close()
                return
            self.feed(await question)
        except grpc.RpcError as e:
            peer = self._peers.get(worker_id)
            error = peer.explain(e) if peer else None
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
        for peer in self._peers.values():
            await peer.close()
        self.journal.close()
        if self.recorder is not None:
            await asyncio.to_thread(self.recorder.close)
