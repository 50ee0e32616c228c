"""The coordinator's shell around the pure `Cluster`: feeds it events and carries out its commands in order.

All of it runs on one event loop, so that no lock is needed. It knows streams, the clock and the journal; it decides nothing.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import time
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc

from engine.control import commands as do
from engine.control import events as on
from engine.control.cluster import Cluster
from engine.control.status import cluster_status
from engine.data.errors import NoodleError, Refused, Unavailable
from engine.data.plan import NodeSpec
from engine.data.status import Alarms, ClusterStatus, Severity
from engine.data.version import Version, check_protocol
from engine.profile.profile import Profile
from engine.service import wire
from engine.service.coordinator.event_list import EventList
from engine.service.coordinator.journal.journal import Journal
from engine.service.coordinator.lookout import Lookout
from engine.service.coordinator.metrics.recorder import Recorder
from engine.service.coordinator.orders import Orders
from engine.service.coordinator.outputs.session_outputs import SessionOutputs
from engine.service.coordinator.peers import Peers
from engine.service.coordinator.text.prompts import Prompts
from engine.service.coordinator.weight_sources import note_record
from engine.service.coordinator.worker_peer import WorkerPeer
from engine.service.errors import as_noodle_error, from_rpc_error, logged, surviving
from engine.service.trust.access import Access
from protos import noodle_pb2 as pb

if TYPE_CHECKING:  # prometheus_client and OpenTelemetry are for those who ask for figures and traces
    from engine.service.coordinator.metrics.tally import Tally
    from engine.service.coordinator.metrics.tracer import Tracer

EVENTS_LOG = __name__  # every event is a line of that log
log = logging.getLogger(EVENTS_LOG)

TICK_S = 0.1
LAG_S = 0.1  # a loop that is this late has not heard what workers said either
MAX_TURNED_AWAY = 256  # names of workers that cannot join, of which it is known what was said last


class ClusterShell:
    """One cluster, its workers' connections and its sessions' outputs."""

    def __init__(self, cluster: Cluster, cluster_id: str, journal: Journal, access: Access) -> None:
        self.cluster, self.cluster_id, self.journal = cluster, cluster_id, journal
        self._recorder: Recorder | None = None
        self._tally: Tally | None = None
        self._tracer: Tracer | None = None
        self.events, self._lookout = EventList(journal), Lookout(journal.folder)
        self.peers = Peers(cluster.members, access, self._undelivered)
        self._orders = Orders(cluster, self.peers, self.feed, self.record)
        self.outputs = SessionOutputs(journal, self.feed, self.record, self.spawn)
        self.prompts: Prompts | None = None  # known with the model
        self._tasks: set[asyncio.Task[None]] = set()
        self._turned_away: dict[str, str] = {}  # workers that ask to join, and why they cannot
        self._generation = int(time.time() * 1000)  # the newest registration's; it rises over restarts too
        self._profiling: set[str] = set()
        self.ready = asyncio.Event()  # set once the model is known and former sessions are taken over, or never will be
        self._backlog: collections.deque[do.Command] = collections.deque()
        self._faults: set[str] = set()  # places in the code where the cluster failed
        self._draining = False

    def speak(self, prompts: Prompts) -> None:
        """The model's tokenizer and templates are known: sessions may begin."""
        self.prompts = prompts
        self.outputs.speak(prompts.codec, prompts.grammars)

    def record_to(self, recorder: Recorder) -> None:
        """Keep the run's metrics from now on; the recorder ends with the shell."""
        self._recorder = recorder

    def count_in(self, tally: Tally) -> None:
        """Count for scrapes from now on."""
        self._tally = tally

    def trace_by(self, tracer: Tracer) -> None:
        """Follow requests from now on; the tracer ends with the shell."""
        self._tracer = tracer

    # ------------------------------------------------------------------------------------------ events
    def feed(self, event: on.ClusterEvent) -> None:
        """Handle one event now; raises the NoodleError with which the cluster refuses a request.

        Steps leave at once; journal, clients and the rest follow in order while the first stage computes already.
        """
        now_s = time.monotonic()
        try:
            commands = self.cluster.handle(event, now_s)
        except NoodleError as e:
            if self._tally is not None:
                self._tally.refused(event, e)
            raise
        for command in commands:
            if isinstance(command, do.SendStep):
                self._send(command)
            else:
                self._backlog.append(command)
        if self._backlog and not self._draining:
            self._draining = True
            asyncio.get_running_loop().call_soon(self._drain)
        if self._recorder is not None:
            with surviving():
                self._recorder.observe(event, commands, now_s)
        if self._tally is not None:
            with surviving():
                self._tally.observe(event, commands, now_s)
        if self._tracer is not None:
            with surviving():
                self._tracer.observe(event, commands, now_s)

    def _send(self, command: do.SendStep) -> None:
        """Put a step on its way; a segment that cannot be written down stays behind, and its session ends."""
        segments = list[pb.Segment]()
        for segment in command.segments:
            try:
                message = wire.segment_to_message(segment)
                if (session := self.cluster.scheduler.get(segment.session_id)) is not None:
                    message.mask = self.outputs.mask(segment, session.generated)
                segments.append(message)
            except Exception as e:
                self._backlog.append(do.Fault(as_noodle_error(e), segment.session_id))
        if peer := self.peers.get(command.first_worker_id):  # else its loss is on the way
            peer.send_step(command, segments)

    def _drain(self) -> None:
        while self._backlog:
            if tokens := self._tokens():
                is_journalled = len(tokens) > 1 and self.outputs.journal_together(tokens)
                for token in tokens:
                    self._try(token, partial(self.outputs.emit, token, is_journalled=is_journalled))
            else:
                command = self._backlog.popleft()
                self._try(command, partial(self._carry_out, command))
        self._draining = False

    def _tokens(self) -> list[do.EmitToken]:
        """Take those that stand first in the backlog: of a step, as a rule."""
        found = list[do.EmitToken]()
        while self._backlog and isinstance(first := self._backlog[0], do.EmitToken):
            found.append(first)
            self._backlog.popleft()
        return found

    def _try(self, command: do.Command, work: Callable[[], object]) -> None:
        try:
            work()
        except Exception as e:
            with surviving():
                self._give_up(command, logged(e))

    async def tick_forever(self) -> None:
        """Feed the clock; when this loop itself stood still, say so before anybody is accused of silence."""
        last_s = time.monotonic()
        while True:
            await asyncio.sleep(TICK_S)
            now_s = time.monotonic()
            if (lag_s := now_s - last_s - TICK_S) > LAG_S:
                self._lookout.lagged(lag_s, now_s)
                self.feed(on.CoordinatorLagged(lag_s))
            self.feed(on.Tick())
            if self._lookout.is_due(now_s):
                with surviving():
                    self._look_out(now_s)
            last_s = now_s

    def status(self) -> ClusterStatus:
        now_s, events = time.monotonic(), self.events
        status = self._lookout.completed(cluster_status(self.cluster, self.cluster_id, now_s), now_s)
        return replace(status, alarms=Alarms(events.acknowledged, events.num_unacknowledged, self._lookout.troubles))

    def _look_out(self, now_s: float) -> None:
        for record in self._lookout.look(self.status(), now_s):
            self.record(record)
        self.spawn(self._lookout.look_ahead(self.cluster, now_s))

    async def admit(self, spec: NodeSpec, ready: bool, version: Version) -> int:
        """Take a worker in and return the number of its registration.

        Raises Refused if it speaks another protocol or another living process has its name, Unavailable if it is not found at the
        address it gave.
        """
        try:
            check_protocol(spec.node_id, version)
            peer = await self.peers.reach(spec)
            generation = self._register(spec, ready, peer)
        except NoodleError as e:
            if self._turned_away.get(spec.node_id) != str(e):  # it asks again and again
                self._turned_away[spec.node_id] = str(e)
                if len(self._turned_away) > MAX_TURNED_AWAY:
                    del self._turned_away[next(iter(self._turned_away))]
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

    def report(self, message: pb.StepReport) -> None:
        """A step's outcome from a worker; the text decides about stop strings before the cluster hears of the token.

        Raises nothing: what fails here is not the worker's fault, and ends the sessions that it is about.
        """
        try:
            self._drain()  # the texts of all tokens before these
            if message.unreachable_worker_id:
                why = message.unreachable_why[:160]
                self.feed(on.LinkBroken(message.worker_id, message.unreachable_worker_id, message.plan_version, why))
                return
            outcomes, timings = self.outputs.outcomes(message.results), wire.timings_from(message.timings)
            self.feed(on.StepReported(message.worker_id, message.plan_version, message.step_id, outcomes, timings))
        except Exception as e:
            error = logged(e)
            for result in message.results:
                with surviving():
                    self.outputs.fail(result.session_id, error)

    # ------------------------------------------------------------------------------------------ commands
    def _carry_out(self, command: do.Command) -> None:
        match command:
            case do.FinishSession():
                self._finish(command)
            case do.Fault():
                self._say_fault(command)
            case do.Record():
                self.record(command)
            case do.MeasureWorker() | do.MeasureLinks() | do.LoadStage():
                self.spawn(self._orders.carry_out(command))
            case do.PrepareStage() | do.CopyKv() | do.CommitStage() | do.ReleaseStage():
                self.spawn(self._orders.carry_out(command))
            case do.AdoptPlan():
                self.journal.adopt_plan(command.plan)
            case do.KeepDrained():
                self.journal.keep_drained(command.worker_ids)
            case do.KeepDtype():
                self.journal.keep_dtype(command.dtype)
            case do.DropWorker():
                member = self.cluster.members.get(command.worker_id)
                is_former = member is not None and member.generation != command.generation  # its successor is connected already
                if not is_former:
                    self.peers.drop(command.worker_id)

    def _finish(self, command: do.FinishSession) -> None:
        reason, error = self.outputs.finish(command)
        if self._tally is not None:
            self._tally.ended(command.session_id, reason, error, time.monotonic())
        if self._tracer is not None:
            with surviving():
                self._tracer.ended(command.session_id, reason, error, time.monotonic())

    def _give_up(self, command: do.Command, error: NoodleError) -> None:
        """A command failed: the session whose token was not kept, or has no text, ends here."""
        if isinstance(command, do.EmitToken):
            self.outputs.fail(command.session_id, error)

    def _say_fault(self, fault: do.Fault) -> None:
        """The cluster went on after a bug. One that comes back with every tick is told once."""
        if fault.session_id:
            self.outputs.fail(fault.session_id, as_noodle_error(fault.error))
        elif (place := _place_of(fault.error)) not in self._faults:
            self._faults.add(place)
            self.record(do.Record(Severity.ERROR, "cluster", "coordinator", str(as_noodle_error(fault.error))))

    def record(self, record: do.Record) -> None:
        """One event: to whoever watches, the log, the journal. A disk that is full is no reason to stop what led to it."""
        event = self.events.add(record)
        log.log(logging.ERROR if record.severity is Severity.ERROR else logging.INFO, "%s %s: %s", record.kind, record.subject, record.text)
        if self._recorder is not None:
            with surviving():
                self._recorder.event(event)
        with surviving():
            self.events.keep(event)

    def note(self, worker_id: str, text: str) -> None:
        """A line that a worker of this cluster has for the operator. Raises NotFound for anybody else."""
        self.record(note_record(self.peers.present(worker_id).worker_id, text))

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
            with _asking(worker_id):
                async for message in peer.profile(card, member.spec, quick):
                    if message.profile_json:
                        self.feed(
                            on.WorkerProfiled(worker_id, member.generation, Profile.from_json(message.profile_json), message.slowdown)
                        )
                    yield message
        finally:
            self._profiling.discard(worker_id)

    async def set_slowdown(self, worker_id: str, factor: float) -> None:
        """Raises NotFound for a worker that is not there, and what it answers."""
        peer = self.peers.present(worker_id)
        with _asking(worker_id):
            await peer.set_slowdown(factor)
        self.record(do.Record(Severity.WARN, "node", worker_id, f"slowed down on purpose: takes {factor:g} times as long from now on"))

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
        for task in (running := list(self._tasks)):
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)  # what they started ends with them
        await self.peers.close()
        self.journal.close()
        if self._recorder is not None:
            await asyncio.to_thread(self._recorder.close)
        if self._tracer is not None:
            await asyncio.to_thread(self._tracer.close)


@contextlib.contextmanager
def _asking(worker_id: str) -> Iterator[None]:
    """What goes wrong with a question to a worker, in the caller's words. gRPC cancels calls of a channel that is closed as if the
    caller had gone, and nobody would hear of it."""
    try:
        yield
    except grpc.RpcError as e:
        raise from_rpc_error(e, f"worker {worker_id}") from e
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise Unavailable(f"worker {worker_id} left before it had answered") from None


def _place_of(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__} at {frames[-1].filename}:{frames[-1].lineno}" if frames else type(error).__name__
