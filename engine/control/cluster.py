"""The cluster as a state machine: `handle(event, now_s) -> list[Command]`, `check()` for the invariants.

Three phases only: GATHERING (not enough measured workers, or no plan fits), LOADING (a plan is adopted, its stages are
loading), SERVING. Loss, cancellation and re-planning are version numbers: a message with an old plan version, epoch or
generation is dropped in one `if`. The gRPC coordinator, the simulator and the tests drive this same object; it knows no
clock, no network and no tensors.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import singledispatchmethod

from engine.control import commands as do
from engine.control import events as on
from engine.control.invariants import check_cluster
from engine.control.members import LeaseRules, Member, Members, capacity_tokens, planning_node
from engine.control.metrics import PipelineMetrics
from engine.control.scheduler import Flight, Scheduler, SchedulerLimits, Session
from engine.data import (
    Cancelled,
    Exhausted,
    FinishReason,
    ModelCard,
    NodeState,
    NoodleError,
    NotFound,
    Phase,
    Plan,
    Refused,
    Severity,
    Unavailable,
)
from engine.planning.problem import Infeasible, Problem
from engine.planning.strategies import check_strategy, make_plan


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """How many workers to wait for before the first plan, and the limits that hold all the time."""

    num_workers_expected: int = 1
    strategy: str = "balanced"
    leases: LeaseRules = field(default_factory=LeaseRules)
    limits: SchedulerLimits = field(default_factory=SchedulerLimits)


class Cluster:
    """One model on one set of workers."""

    def __init__(self, config: ClusterConfig, now_s: float) -> None:
        self.config = config
        self.started_s = now_s
        self.phase = Phase.GATHERING
        self.detail = f"waiting for {config.num_workers_expected} workers"
        self.failure = ""
        self.card: ModelCard | None = None
        self.model_progress = ("preparing the model", -1.0)
        self.strategy = check_strategy(config.strategy)
        self.members = Members(config.leases)
        self.scheduler = Scheduler(config.limits)
        self.metrics = PipelineMetrics()
        self.plan: Plan | None = None
        self.plan_version = 0
        self.num_done = 0
        self.num_failed = 0
        self._had_plan = False
        self._replan_cause = ""  # a re-plan is due as soon as no session runs
        self._loaded: set[str] = set()
        self._flights: dict[int, Flight] = {}
        self._next_step_id = 1

    # ------------------------------------------------------------------------------------------ events in
    def handle(self, event: on.ClusterEvent, now_s: float) -> list[do.Command]:
        """Apply one event; raises a NoodleError only for requests of a client or operator, and then changes nothing."""
        out: list[do.Command] = []
        self._on(event, now_s, out)
        self._advance(now_s, out)
        return out

    @singledispatchmethod
    def _on(self, event: on.ClusterEvent, now_s: float, out: list[do.Command]) -> None:
        raise TypeError(f"no such event: {event!r}")

    @_on.register
    def _(self, event: on.ModelReady, now_s: float, out: list[do.Command]) -> None:
        self.card = event.card
        out.append(do.Record(Severity.OK, "model", event.card.ref.model, f"{event.card.ref.label}: {event.card.num_items} items"))
        for member in self.members:
            self._measure(member, out)

    @_on.register
    def _(self, event: on.ModelProgress, now_s: float, out: list[do.Command]) -> None:
        self.model_progress = (event.detail, event.progress)

    @_on.register
    def _(self, event: on.ModelFailed, now_s: float, out: list[do.Command]) -> None:
        self._fail(event.message, out)

    @_on.register
    def _(self, event: on.WorkerRegistered, now_s: float, out: list[do.Command]) -> None:
        worker_id = event.spec.node_id
        before = self.members.get(worker_id)
        if before and event.generation <= before.generation:
            return
        promoted = before is not None and before.alive and before.spec.pid == event.spec.pid and before.stage is None
        if before and before.alive and not promoted:
            self._lose(before, "it registered again", out)
        member = self.members.register(event.spec, event.generation, event.ready, now_s)
        if not promoted:
            out.append(do.Record(Severity.INFO, "node", worker_id, f"joined from {event.spec.host}, pid {event.spec.pid}"))
        if event.ready:
            self._measure(member, out)

    @_on.register
    def _(self, event: on.HeartbeatArrived, now_s: float, out: list[do.Command]) -> None:
        member = self.members.current(event.worker_id, event.generation)
        if member is None:
            return
        if member.suspect:
            out.append(do.Record(Severity.OK, "node", event.worker_id, f"heartbeat back after {now_s - member.seen_s:.1f} s"))
        member.seen_s, member.suspect = now_s, False
        member.detail, member.progress = event.detail, event.progress
        member.resident_bytes, member.kv_used_bytes = event.resident_bytes, event.kv_used_bytes
        member.cpu_utilisation, member.queue_depth = event.cpu_utilisation, event.queue_depth
        member.gpu_utilisation, member.gpu_temperature_c = event.gpu_utilisation, event.gpu_temperature_c
        member.cpu_temperature_c = event.cpu_temperature_c

    @_on.register
    def _(self, event: on.WorkerMeasured, now_s: float, out: list[do.Command]) -> None:
        member = self.members.current(event.worker_id, event.generation)
        if member is None:
            return
        member.decode_s, member.state = event.decode_s, NodeState.OK
        self.failure = ""
        total_ms = 1e3 * sum(event.decode_s)
        out.append(do.Record(Severity.INFO, "node", event.worker_id, f"measured: all items take {total_ms:.1f} ms per token here"))
        out += self.members.links.ask(event.worker_id, event.generation, (m.spec.node_id for m in self.members.eligible()), now_s)
        if self._had_plan:
            self._replan_cause = f"{event.worker_id} joined"

    @_on.register
    def _(self, event: on.LinksMeasured, now_s: float, out: list[do.Command]) -> None:
        out += self.members.links.answer(event, (m.spec.node_id for m in self.members if m.alive))

    @_on.register
    def _(self, event: on.WorkerFailed, now_s: float, out: list[do.Command]) -> None:
        member = self.members.current(event.worker_id, event.generation)
        if member is None:
            return
        member.failure, member.stage, member.state = event.message, None, NodeState.OK
        out.append(do.Record(Severity.ERROR, "node", event.worker_id, f"left out: {event.message}"))
        if not self.members.eligible() and not self.members.still_preparing():
            self._fail(event.message, out)
        elif self.phase is not Phase.GATHERING:
            self._stop_serving(f"{event.worker_id} could not load its stage", out)

    @_on.register
    def _(self, event: on.WorkerLost, now_s: float, out: list[do.Command]) -> None:
        member = self.members.current(event.worker_id, event.generation)
        if member is not None:
            self._lose(member, event.reason, out)

    @_on.register
    def _(self, event: on.StageLoaded, now_s: float, out: list[do.Command]) -> None:
        if event.plan_version != self.plan_version or self.phase is not Phase.LOADING or self.plan is None:
            return
        self._loaded.add(event.worker_id)
        self._member(event.worker_id).state = NodeState.OK
        memory = f"memory rose by {event.peak_growth_bytes / 1e6:.0f} MB at most"
        text = f"loaded {event.weight_bytes / 1e6:.0f} MB in {event.load_s:.1f} s, {memory}"
        out.append(do.Record(Severity.INFO, "node", event.worker_id, text))
        if self._loaded == {s.node_id for s in self.plan.stages}:
            self.phase, self.detail = Phase.SERVING, ""
            out.append(do.Record(Severity.OK, "plan", f"#{self.plan_version}", f"serving on {len(self.plan.stages)} stages"))

    @_on.register
    def _(self, event: on.SessionSubmitted, now_s: float, out: list[do.Command]) -> None:
        if self.failure or self.card is None:
            raise Unavailable(self.failure or "the model is not known yet: wait until the cluster is ready")
        session = self.scheduler.submit(event.session_id, event.prompt_ids, event.request, self.card.context_tokens, now_s)
        if self.phase is Phase.SERVING and session.reserve_tokens > self.scheduler.capacity_tokens:
            self.scheduler.remove(session)
            raise self.scheduler.too_large(session)

    @_on.register
    def _(self, event: on.SessionCancelled, now_s: float, out: list[do.Command]) -> None:
        session = self.scheduler.get(event.session_id)
        if session is None:
            raise NotFound(f"session {event.session_id} is not running: it ended, or the id is wrong")
        self._finish(session, FinishReason.CANCELLED, Cancelled(event.reason), now_s, out)

    @_on.register
    def _(self, event: on.StepReported, now_s: float, out: list[do.Command]) -> None:
        flight = self._flights.pop(event.step_id, None) if event.plan_version == self.plan_version else None
        if flight is None:
            return
        step_s = now_s - flight.sent_s
        if flight.is_decode and not any(o.error for o in event.outcomes):
            self.metrics.add_step(event.timings, step_s)
        for outcome in event.outcomes:
            self._conclude(outcome, event, step_s, now_s, out)

    @_on.register
    def _(self, event: on.StepUndelivered, now_s: float, out: list[do.Command]) -> None:
        flight = self._flights.pop(event.step_id, None) if event.plan_version == self.plan_version else None
        session = self.scheduler.get(flight.session_id) if flight else None
        if session:
            self._finish(session, FinishReason.ERROR, Unavailable(event.message), now_s, out)

    @_on.register
    def _(self, event: on.ReplanRequested, now_s: float, out: list[do.Command]) -> None:
        if event.expected_plan_version != self.plan_version:
            raise Refused(f"the plan is #{self.plan_version} now, the request was made for #{event.expected_plan_version}: look again")
        self.preview(event.strategy)
        self.strategy = event.strategy or self.strategy
        self._replan_cause = "requested by the operator"

    @_on.register
    def _(self, event: on.DrainRequested, now_s: float, out: list[do.Command]) -> None:
        member = self.members.get(event.worker_id)
        if member is None or not member.alive:
            raise NotFound(f"worker {event.worker_id} is not in the cluster: see `noodle-engine status`")
        if [m for m in self.members.eligible() if m is not member] == []:
            raise Refused(f"{event.worker_id} is the only worker that can hold the model: add another one first")
        member.draining = True
        out.append(do.Record(Severity.INFO, "node", event.worker_id, "draining: its items move when the running sessions have ended"))
        if member.stage is not None:
            self._replan_cause = f"{event.worker_id} is draining"

    @_on.register
    def _(self, event: on.CoordinatorLagged, now_s: float, out: list[do.Command]) -> None:
        self.members.widen_leases(event.lag_s)

    @_on.register
    def _(self, event: on.Tick, now_s: float, out: list[do.Command]) -> None:
        self.metrics.tick(now_s)
        for member in self.members.newly_suspect(now_s):
            out.append(do.Record(Severity.WARN, "node", member.spec.node_id, f"heartbeat late by {now_s - member.seen_s:.1f} s"))
        for member in self.members.expired(now_s):
            self._lose(member, f"no heartbeat for {now_s - member.seen_s:.1f} s", out)
        for session in self.scheduler.overdue(now_s):
            waited = f"waited {now_s - session.submitted_s:.0f} s in the queue: {self.detail or 'the KV budget is taken by other sessions'}"
            self._finish(session, FinishReason.ERROR, Exhausted(f"{waited}; try again later"), now_s, out)

    # ------------------------------------------------------------------------------------------ what follows
    def _advance(self, now_s: float, out: list[do.Command]) -> None:
        if self._replan_cause and not self.scheduler.running():
            self._stop_serving(self._replan_cause, out)
        if self.phase is Phase.GATHERING and self._may_plan(now_s):
            self._adopt(out)
        if self.phase is Phase.SERVING and not self._replan_cause:
            for session in self.scheduler.hopeless():
                self._finish(session, FinishReason.ERROR, self.scheduler.too_large(session), now_s, out)
            while admitted := self.scheduler.admit_next():
                for segment in self.scheduler.prompt_segments(admitted):
                    self._send(admitted, segment, now_s, out)

    def _may_plan(self, now_s: float) -> bool:
        if self.card is None or self.failure or not self.members.eligible() or self.members.links.is_waiting(now_s):
            return False
        return self._had_plan or (len(self.members.eligible()) >= self.config.num_workers_expected) or self._nobody_else_comes()

    def _nobody_else_comes(self) -> bool:
        """All expected workers are accounted for, some of them failed: go on with the rest."""
        known = sum(m.eligible or bool(m.failure) for m in self.members)
        return known >= self.config.num_workers_expected and not self.members.still_preparing()

    def _measure(self, member: Member, out: list[do.Command]) -> None:
        if self.card is not None and member.ready and member.alive and not member.decode_s and not member.failure:
            member.state = NodeState.MEASURING
            out.append(do.MeasureWorker(member.spec.node_id, member.generation))

    def problem(self) -> Problem:
        """What the planner is asked now; raises Refused until the model is known, Infeasible without a node."""
        if self.card is None:
            raise Refused("the model is not known yet: wait until the cluster is ready")
        nodes = tuple(planning_node(m) for m in self.members.eligible())
        links = self.members.links.for_planning([node.node_id for node in nodes])
        return Problem(self.card.items, nodes, links, free_order=False)

    def preview(self, strategy: str = "") -> Plan:
        """The plan the cluster would adopt now; raises Refused or Infeasible with the reason."""
        return make_plan(self.problem(), strategy or self.strategy, self.plan_version + 1)

    def _adopt(self, out: list[do.Command]) -> None:
        if self.card is None:
            return
        try:
            plan = self.preview()
        except Infeasible as e:
            if self.detail != str(e):
                self.detail = str(e)
                out.append(do.Record(Severity.ERROR, "plan", f"#{self.plan_version + 1}", str(e)))
            if self._nobody_else_comes() and not self._had_plan:
                self._fail(str(e), out)
            return
        self.plan, self.plan_version, self._had_plan = plan, plan.plan_version, True
        self.phase, self.detail = Phase.LOADING, f"loading plan #{plan.plan_version}"
        self._loaded = set()
        self.metrics.start_plan()
        self.scheduler.capacity_tokens = capacity_tokens(self.card, plan, self.members)
        out.append(do.AdoptPlan(plan))
        text = " | ".join(f"{s.node_id} {s.start}-{s.stop - 1}" for s in plan.stages)
        text = f"{plan.strategy}: {text}, bottleneck {1e3 * plan.bottleneck_s:.1f} ms"
        out.append(do.Record(Severity.INFO, "plan", f"#{plan.plan_version}", text))
        self._load_stages(plan, out)

    def _load_stages(self, plan: Plan, out: list[do.Command]) -> None:
        following = [s.node_id for s in plan.stages[1:]] + [None]
        for member in self.members:
            member.stage = plan.stage_of(member.spec.node_id)
        for stage, next_worker_id in zip(plan.stages, following, strict=True):
            member = self._member(stage.node_id)
            member.state = NodeState.LOADING
            out.append(do.LoadStage(stage.node_id, member.generation, plan.plan_version, stage, next_worker_id))

    def _send(self, session: Session, segment: do.Segment, now_s: float, out: list[do.Command]) -> None:
        if self.plan is None:
            raise AssertionError("a step without a plan")
        step_id, self._next_step_id = self._next_step_id, self._next_step_id + 1
        self._flights[step_id] = Flight(session.session_id, now_s, is_decode=segment.position >= len(session.prompt_ids))
        first = self.plan.stages[0].node_id
        out.append(do.SendStep(self.plan_version, step_id, first, (segment,), session.reserve_tokens))

    def _conclude(self, outcome: on.SegmentOutcome, event: on.StepReported, step_s: float, now_s: float, out: list[do.Command]) -> None:
        session = self.scheduler.get(outcome.session_id)
        if session is None or session.epoch != outcome.epoch or self.card is None:
            return
        if outcome.error is not None:
            self._finish(session, FinishReason.ERROR, outcome.error, now_s, out)
            return
        if outcome.sample_index is None:
            return
        if outcome.sample_index != len(session.generated):
            return
        self.scheduler.accept_token(session, outcome.token_id, now_s)
        self.metrics.add_token(now_s)
        reason = self.scheduler.finish_reason(session, self.card.eos_token_ids, outcome.stopped)
        if reason is None:
            self._send(session, self.scheduler.next_segment(session), now_s, out)
        out.append(do.EmitToken(session.session_id, outcome.sample_index, outcome.token_id, event.timings, step_s))
        if reason is not None:
            self._finish(session, reason, None, now_s, out)

    def _finish(self, session: Session, reason: FinishReason, error: NoodleError | None, now_s: float, out: list[do.Command]) -> None:
        was_running = session in self.scheduler.running()
        self.scheduler.remove(session)
        failed = reason is FinishReason.ERROR
        self.num_failed += failed
        self.num_done += not failed
        if was_running and self.phase is Phase.SERVING and self.plan is not None:
            step_id, self._next_step_id = self._next_step_id, self._next_step_id + 1
            out.append(do.SendStep(self.plan_version, step_id, self.plan.stages[0].node_id, (), 0, (session.session_id,)))
        text = f"{reason}: {len(session.generated)} tokens in {now_s - session.submitted_s:.1f} s"
        if error is not None and failed:
            text += f": {error}"
        out.append(do.Record(Severity.ERROR if failed else Severity.INFO, "session", session.session_id, text))
        out.append(do.FinishSession(session.session_id, reason, error))

    def _lose(self, member: Member, reason: str, out: list[do.Command]) -> None:
        worker_id, stage = member.spec.node_id, member.stage
        member.state, member.suspect, member.stage, member.detail = NodeState.LOST, False, None, reason
        self.members.links.forget(worker_id)
        out.append(do.Record(Severity.ERROR, "node", worker_id, f"lost: {reason}"))
        out.append(do.DropWorker(worker_id, member.generation))
        if stage is not None and self.phase is not Phase.GATHERING:
            self._stop_serving(f"{worker_id} was lost ({reason})", out)

    def _stop_serving(self, cause: str, out: list[do.Command]) -> None:
        """The current plan no longer runs: its sessions end with an error, the queue waits for the next plan."""
        self.phase, self.detail, self._replan_cause = Phase.GATHERING, f"re-planning: {cause}", ""
        self._flights.clear()
        self.plan = None
        for session in self.scheduler.running():
            text = f"{cause} after {len(session.generated)} tokens; the cluster is re-planning: send the prompt again"
            self.scheduler.remove(session)
            self.num_failed += 1
            out.append(do.Record(Severity.ERROR, "session", session.session_id, f"error: {text}"))
            out.append(do.FinishSession(session.session_id, FinishReason.ERROR, Unavailable(text)))

    def _fail(self, message: str, out: list[do.Command]) -> None:
        self.failure = self.detail = message
        self.phase, self.plan = Phase.GATHERING, None
        self._flights.clear()
        out.append(do.Record(Severity.ERROR, "cluster", "model", message))
        for session in list(self.scheduler):
            self.scheduler.remove(session)
            self.num_failed += 1
            out.append(do.FinishSession(session.session_id, FinishReason.ERROR, Unavailable(message)))

    def _member(self, worker_id: str) -> Member:
        member = self.members.get(worker_id)
        if member is None:
            raise AssertionError(f"the plan names {worker_id}, which never registered")
        return member

    def check(self) -> None:
        """Raise AssertionError if an invariant does not hold; tests call it after every event."""
        check_cluster(self)

    def in_flight(self) -> tuple[str, ...]:
        """The session of every step that was sent and not yet reported."""
        return tuple(f.session_id for f in self._flights.values())
