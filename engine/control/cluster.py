"""The cluster as a state machine: `handle(event, now_s) -> list[Command]`, `check()` for the invariants.

Three phases only: GATHERING (not enough measured workers, or no plan fits), LOADING (a plan is adopted, its stages are
loading), SERVING. Loss, cancellation and re-planning are version numbers: a message with an old plan version, epoch or
generation is dropped in one `if`. The gRPC coordinator, the simulator and the tests drive this same object; it knows no
clock, no network and no tensors. Workers that come and go are `attendance`'s affair, sessions and steps `serving`'s, a live change of
plan `rebalancer`'s.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import singledispatchmethod

from engine.control import commands as do
from engine.control import events as on
from engine.control import operating
from engine.control.adapting import Adapting
from engine.control.attendance import Attendance
from engine.control.batching import num_lanes
from engine.control.config import ClusterConfig as ClusterConfig
from engine.control.consent import REQUESTED, check_seen, check_unchanged
from engine.control.gathering import Gathering
from engine.control.invariants import check_cluster
from engine.control.members import Member, Members, capacity_tokens
from engine.control.metrics import PipelineMetrics
from engine.control.moves import Move, Wish
from engine.control.past_sessions import NO_PAST, PastSessions
from engine.control.placement import describe, loading, plan_for, problem_of
from engine.control.rebalance import Rebalancer
from engine.control.scheduler import Scheduler
from engine.control.serving import Serving
from engine.control.watchdog import Watchdog
from engine.data.errors import InvalidInput, Refused, Unavailable
from engine.data.model import ModelCard
from engine.data.plan import Plan, Stage
from engine.data.status import NodeState, Phase, Severity
from engine.planning.problem import Infeasible, Problem
from engine.planning.strategies import check_strategy


class Cluster:
    """One model on one set of workers. Former coordinators leave the newest plan version they may have used, the sessions that ended and
    the names of `drained` nodes."""

    def __init__(
        self,
        config: ClusterConfig,
        now_s: float,
        last_plan_version: int = 0,
        past: PastSessions = NO_PAST,
        drained: Iterable[str] = (),
    ) -> None:
        self.config = config
        self.started_s = now_s
        self.phase = Phase.GATHERING
        self.failure = ""
        self.card: ModelCard | None = None
        self.model_progress = ("preparing the model", -1.0)
        self.strategy = check_strategy(config.strategy)
        self.members = Members(config.leases, drained)
        self.serving = Serving(config.limits, past)
        self.attendance = Attendance(self)
        self.rebalancer = Rebalancer(self)
        self.watchdog = Watchdog()
        self.adapting = Adapting(self, config.adaptation)
        self.plan: Plan | None = None
        self.plan_version = last_plan_version
        self.wish: Wish | None = None  # a move is due as soon as none is under way
        self.last_version = last_plan_version
        self.had_plan = False
        self._loaded: set[str] = set()
        self._infeasible_for: tuple[object, ...] = ()
        self.gathering = Gathering(config.num_workers_expected, last_plan_version > 0, now_s)
        self.detail = self.gathering.wanted()

    @property
    def scheduler(self) -> Scheduler:
        return self.serving.scheduler

    @property
    def metrics(self) -> PipelineMetrics:
        return self.serving.metrics

    # ------------------------------------------------------------------------------------------ events in
    def handle(self, event: on.ClusterEvent, now_s: float) -> list[do.Command]:
        """Apply one event; raises a NoodleError only for what a client, an operator or a newcomer asks, and then changes nothing."""
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
            self.attendance.measure(member, now_s, out)

    @_on.register
    def _(self, event: on.ModelProgress, now_s: float, out: list[do.Command]) -> None:
        self.model_progress = (event.detail, event.progress)

    @_on.register
    def _(self, event: on.ModelFailed, now_s: float, out: list[do.Command]) -> None:
        self.fail(event.message, now_s, out)

    @_on.register
    def _(self, event: on.WorkerRegistered, now_s: float, out: list[do.Command]) -> None:
        self.attendance.registered(event, now_s, out)

    @_on.register
    def _(self, event: on.HeartbeatArrived, now_s: float, out: list[do.Command]) -> None:
        self.attendance.beat(event, now_s, out)

    @_on.register
    def _(self, event: on.WorkerMeasured, now_s: float, out: list[do.Command]) -> None:
        self.attendance.measured(event, now_s, out)

    @_on.register
    def _(self, event: on.WorkerProfiled, now_s: float, out: list[do.Command]) -> None:
        self.attendance.profiled(event, out)

    @_on.register
    def _(self, event: on.WorkerFailed, now_s: float, out: list[do.Command]) -> None:
        if member := self.members.current(event.worker_id, event.generation):
            self.attendance.leave_out(member, event.message, now_s, out)

    @_on.register
    def _(self, event: on.WorkerLost, now_s: float, out: list[do.Command]) -> None:
        if member := self.members.current(event.worker_id, event.generation):
            self.attendance.lose(member, event.reason, now_s, out)

    @_on.register
    def _(self, event: on.LinksMeasured, now_s: float, out: list[do.Command]) -> None:
        links, num_broken = self.members.links, self.members.links.num_broken
        out += links.answer(event, (m.spec.node_id for m in self.members if m.alive), now_s)
        if links.num_broken < num_broken:
            self._infeasible_for = ()
            if self.plan is not None:
                self.wish = Wish(f"{event.worker_id} has a link again")

    @_on.register
    def _(self, event: on.LinkBroken, now_s: float, out: list[do.Command]) -> None:
        move, is_current = self.rebalancer.move, self.plan is not None and event.plan_version == self.plan_version
        is_to_come = move is not None and move.new.plan_version == event.plan_version
        if not is_current and not is_to_come:
            return
        out += self.members.links.broke(event, now_s)
        trouble = f"{event.from_id} cannot reach {event.to_id}"
        if is_current:
            self.watchdog.note(trouble, now_s)
        elif move is not None:
            self._give_up_move(move, trouble, now_s, out)

    @_on.register
    def _(self, event: on.StageLoaded, now_s: float, out: list[do.Command]) -> None:
        if event.plan_version != self.plan_version or self.phase is not Phase.LOADING or self.plan is None:
            return
        self._loaded.add(event.worker_id)
        self.member(event.worker_id).state = NodeState.OK
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
    def _(self, event: on.SessionRestored, now_s: float, out: list[do.Command]) -> None:
        if self.card is None:
            raise AssertionError("sessions are restored once the model is known")
        self.serving.restore(event, self.card, now_s, out)

    @_on.register
    def _(self, event: on.SessionCancelled, now_s: float, out: list[do.Command]) -> None:
        check_seen(self, event.expected_plan_version)
        self.serving.cancel(event.session_id, event.reason, now_s, out)

    @_on.register
    def _(self, event: on.StepReported, now_s: float, out: list[do.Command]) -> None:
        plan = self._running_plan()
        if plan is not None and self.card is not None and event.plan_version == plan.plan_version:
            self.adapting.observe(event, now_s)
            self.watchdog.note(self.serving.report(event, self.card, now_s, out), now_s)

    @_on.register
    def _(self, event: on.StepUndelivered, now_s: float, out: list[do.Command]) -> None:
        plan = self._running_plan()
        if plan is not None and event.plan_version == plan.plan_version:
            self.watchdog.note(self.serving.undelivered(event, now_s, out), now_s)

    @_on.register
    def _(self, event: on.StagePrepared, now_s: float, out: list[do.Command]) -> None:
        self.rebalancer.prepared(event)

    @_on.register
    def _(self, event: on.KvCopied, now_s: float, out: list[do.Command]) -> None:
        self.rebalancer.copied(event)

    @_on.register
    def _(self, event: on.StageCommitted, now_s: float, out: list[do.Command]) -> None:
        self.rebalancer.committed(event, now_s)

    @_on.register
    def _(self, event: on.MoveFailed, now_s: float, out: list[do.Command]) -> None:
        move = self.rebalancer.move
        if move is not None and event.plan_version == move.new.plan_version:
            self._give_up_move(move, f"{event.worker_id}: {event.message}", now_s, out)

    @_on.register
    def _(self, event: on.ReplanRequested, now_s: float, out: list[do.Command]) -> None:
        check_unchanged(self, event.expected_plan_version)
        self.preview(event.strategy, event.stages)
        self.strategy = event.strategy or self.strategy
        self.wish = Wish(REQUESTED, event.stages, event.strategy)

    @_on.register
    def _(self, event: on.DrainRequested, now_s: float, out: list[do.Command]) -> None:
        operating.drain(self, event, out)

    @_on.register
    def _(self, event: on.UndrainRequested, now_s: float, out: list[do.Command]) -> None:
        operating.undrain(self, event, now_s, out)

    @_on.register
    def _(self, event: on.ForgetRequested, now_s: float, out: list[do.Command]) -> None:
        operating.forget(self, event, out)

    @_on.register
    def _(self, event: on.AdaptationModeSet, now_s: float, out: list[do.Command]) -> None:
        self.adapting.set_mode(event.mode, event.expected_mode, now_s, out)

    @_on.register
    def _(self, event: on.SuggestionConfirmed, now_s: float, out: list[do.Command]) -> None:
        self.adapting.confirm(event.decision_id, now_s, out)

    @_on.register
    def _(self, event: on.CoordinatorLagged, now_s: float, out: list[do.Command]) -> None:
        self.members.widen_leases(event.lag_s)

    @_on.register
    def _(self, event: on.Tick, now_s: float, out: list[do.Command]) -> None:
        self.metrics.tick(now_s)
        for member in self.members.newly_suspect(now_s):
            out.append(do.Record(Severity.WARN, "node", member.spec.node_id, f"heartbeat late by {now_s - member.seen_s:.1f} s"))
        for member in self.members.expired(now_s):
            self.attendance.lose(member, f"no heartbeat for {now_s - member.seen_s:.1f} s", now_s, out)
        out += self.members.links.try_again({m.spec.node_id: m.generation for m in self.members.eligible()}, now_s)
        self._look_for_stuck_steps(now_s, out)
        self.serving.time_out_queue(self.detail, now_s, out)
        self.adapting.tick(now_s, out)

    # ------------------------------------------------------------------------------------------ what follows
    def _advance(self, now_s: float, out: list[do.Command]) -> None:
        self.adapting.settle(now_s, out)
        if self.phase is Phase.GATHERING and self._may_plan(now_s):
            self._adopt(now_s, out)
        if self.phase is Phase.SERVING and self.wish is not None and self._may_move(now_s):
            self._start_move(self.wish, now_s, out)
        if self.phase is Phase.SERVING:
            self.rebalancer.advance(now_s, out)
            if self.plan is not None and not self.rebalancer.holds_steps:
                self.serving.fill(self.plan, now_s, out)

    def _may_move(self, now_s: float) -> bool:
        is_free = self.rebalancer.move is None and now_s >= self.rebalancer.not_before_s
        return is_free and not self.members.links.is_waiting(now_s)

    def _running_plan(self) -> Plan | None:
        return self.plan if self.phase is Phase.SERVING else None

    def _look_for_stuck_steps(self, now_s: float, out: list[do.Command]) -> None:
        for member in self.watchdog.silent(self, now_s) if self.phase is Phase.SERVING else ():
            self.attendance.lose(member, f"silent for {now_s - member.seen_s:.1f} s while a step waited", now_s, out)
        if self.phase is not Phase.SERVING:
            return
        if why := self.watchdog.broken(self, now_s):
            self.interrupt(why, now_s, out)
        elif (move := self.rebalancer.overdue(now_s)) is not None:
            self._give_up_move(move, "the barrier was down for too long", now_s, out)

    def _give_up_move(self, move: Move, why: str, now_s: float, out: list[do.Command]) -> None:
        """Before its commit the old plan serves on; after it the new one has to be loaded from scratch."""
        if move.committed:
            self.interrupt(f"the switch to #{move.new.plan_version} failed: {why}", now_s, out)
        else:
            self.rebalancer.drop(why, now_s, out, again=True)

    def _may_plan(self, now_s: float) -> bool:
        if self.card is None or self.failure or self.members.links.is_waiting(now_s):
            return False
        return self.gathering.is_over(self.members, self.had_plan, now_s)

    def problem(self, without: str = "", including: str = "") -> Problem:
        """What the planner is asked now, or would be `without` a worker or `including` one that is drained.

        Raises Refused until the model is known, Infeasible if no node is left.
        """
        return self.adapting.corrected(problem_of(self.card, self.members, self.plan, without, including))

    def preview(self, strategy: str = "", stages: tuple[Stage, ...] = (), without: str = "", including: str = "") -> Plan:
        """The plan the cluster would adopt now, or as `problem` says; raises Refused, InvalidInput or Infeasible with the reason."""
        name = check_strategy(strategy or self.strategy)
        problem = self.problem(without, including)
        plan = plan_for(problem, self.config, name, self.last_version + 1, stages, is_asked=bool(strategy))
        return replace(plan, for_version=self.plan_version)

    def _adopt(self, now_s: float, out: list[do.Command]) -> None:
        eligible = tuple((m.spec.node_id, m.generation) for m in self.members.eligible())
        if eligible == self._infeasible_for:
            return
        try:
            plan = self.preview()
        except (Infeasible, InvalidInput) as e:
            self._infeasible_for, self.detail = eligible, str(e)
            out.append(do.Record(Severity.ERROR, "plan", f"#{self.last_version + 1}", str(e)))
            if self.members.all_accounted_for(self.gathering.num_expected) and not self.had_plan and not self.gathering.is_restart:
                self.fail(str(e), now_s, out)
            return
        self.phase, self.detail = Phase.LOADING, f"loading plan #{plan.plan_version}"
        self._loaded = set()
        self.switch_to(plan)
        out.append(do.AdoptPlan(plan))
        out.append(do.Record(Severity.INFO, "plan", f"#{plan.plan_version}", describe(plan)))
        out.extend(loading(plan, self.members))

    def _start_move(self, wish: Wish, now_s: float, out: list[do.Command]) -> None:
        self.wish = None
        try:
            plan = self.preview(wish.strategy if wish.stages else "", wish.stages)
        except Refused as e:  # a node left meanwhile, or nothing else fits: the present plan serves on
            out.append(do.Record(Severity.WARN, "plan", f"#{self.plan_version}", f"no move: {wish.cause}; {e}"))
            return
        self.last_version = plan.plan_version
        self.rebalancer.start(plan, wish, now_s, out)

    def switch_to(self, plan: Plan) -> None:
        """`plan` is the plan from now on: its version, its stages, its room."""
        if self.card is None:
            raise AssertionError("a plan without a model")
        self.plan, self.plan_version, self.had_plan = plan, plan.plan_version, True
        self.last_version = max(self.last_version, plan.plan_version)
        self._infeasible_for = ()
        self.watchdog.forget()
        for member in self.members:
            member.stage = plan.stage_of(member.spec.node_id)
        lanes = num_lanes(self.member(s.node_id).spec for s in plan.stages)
        self.serving.start_plan(capacity_tokens(self.card, plan, self.members), lanes)

    def is_moving_to(self, worker_id: str) -> bool:
        move = self.rebalancer.move
        return move is not None and not move.committed and move.new.stage_of(worker_id) is not None

    def interrupt(self, cause: str, now_s: float, out: list[do.Command]) -> None:
        """The current plan no longer runs: its sessions wait for the next one and go on there."""
        self.rebalancer.drop(cause, now_s, out)
        self.phase, self.detail, self.wish = Phase.GATHERING, f"re-planning: {cause}", None
        self.plan, self._infeasible_for = None, ()
        for member in self.members:
            member.stage = None
        self.serving.interrupt(cause, now_s, out)

    def fail(self, message: str, now_s: float, out: list[do.Command]) -> None:
        self.rebalancer.drop(message, now_s, out)
        self.failure = self.detail = message
        self.phase, self.plan = Phase.GATHERING, None
        for member in self.members:
            member.stage = None
        out.append(do.Record(Severity.ERROR, "cluster", "model", message))
        self.serving.fail_all(Unavailable(message), now_s, out)

    def member(self, worker_id: str) -> Member:
        """The member of that name; a plan names nobody else."""
        member = self.members.get(worker_id)
        if member is None:
            raise AssertionError(f"the plan names {worker_id}, which never registered")
        return member

    def check(self) -> None:
        """Raise AssertionError if an invariant does not hold; tests call it after every event."""
        check_cluster(self)
