"""The cluster as a state machine: `handle(event, now_s) -> list[Command]`.

Three phases only: GATHERING (not enough measured workers, or no plan fits), LOADING (a plan is adopted, its stages are
loading), SERVING. Loss, cancellation and re-planning are version numbers: a message with an old plan version, epoch or
generation is dropped in one `if`. The gRPC coordinator, the simulator and the tests drive this same object; it knows no
clock, no network and no tensors. Those who own a part of its state return what follows for the plan, and only `_follow` carries it out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from engine.control import commands as do
from engine.control import events as on
from engine.control.adaptation.rules import Mode
from engine.control.adaptation.watching.view import AdaptationView
from engine.control.adapting import Adapting, view_of
from engine.control.config import ClusterConfig as ClusterConfig
from engine.control.consent import REQUESTED, check_seen, check_unchanged
from engine.control.faults import survived
from engine.control.moves import Wish
from engine.control.nodes import operating
from engine.control.nodes.attendance import Attendance
from engine.control.nodes.gathering import Gathering
from engine.control.nodes.members import NOTHING, Members, Supposed, capacity_tokens
from engine.control.nodes.watchdog import Watchdog
from engine.control.placement import law_for, loading, num_stages, plan_for, problem_of
from engine.control.plan_state import Begin, Consequence, DropMove, Fail, Interrupt, PlanState, Replan, Switch
from engine.control.rebalance import Rebalancer
from engine.control.sessions.metrics import PipelineMetrics
from engine.control.sessions.past_sessions import NO_PAST, PastSessions
from engine.control.sessions.scheduler import Scheduler
from engine.control.sessions.serving import Serving
from engine.data.errors import InvalidInput, Refused, Unavailable
from engine.data.model import ModelCard
from engine.data.plan import Plan, Stage
from engine.data.status import Phase, Severity
from engine.planning.problem import Infeasible, Problem
from engine.planning.strategies import check_strategy

Commands = list[do.Command]


class Cluster:
    """One model on one set of workers. Former coordinators leave the newest plan version they may have used, past sessions and drains."""

    def __init__(
        self, config: ClusterConfig, now_s: float, last_plan_version: int = 0, past: PastSessions = NO_PAST, drained: Iterable[str] = ()
    ) -> None:
        self.config, self.started_s = config, now_s
        self.card: ModelCard | None = None
        self.model_progress = ("preparing the model", -1.0)
        self.strategy = check_strategy(config.strategy)
        self.members = Members(config.leases, drained)
        self.gathering = Gathering(config.num_workers_expected, last_plan_version > 0, now_s)
        self.state = PlanState(last_plan_version, self.gathering.wanted())
        self.serving = Serving(config.limits, past, config.speculate, config.prefix_cache)
        self.attendance = Attendance(self.members, self.gathering, config.rules)
        self.rebalancer = Rebalancer(self.members, self.serving)
        self.watchdog = Watchdog()
        self.adapting = Adapting(config.adaptation)

    @property
    def phase(self) -> Phase:
        return self.state.phase

    @property
    def plan(self) -> Plan | None:
        return self.state.plan

    @property
    def plan_version(self) -> int:
        return self.state.plan_version

    @property
    def scheduler(self) -> Scheduler:
        return self.serving.scheduler

    @property
    def metrics(self) -> PipelineMetrics:
        return self.serving.metrics

    def handle(self, event: on.ClusterEvent, now_s: float) -> Commands:
        """Apply one event; raises a NoodleError only for what a client, an operator or a newcomer asks, and then changes nothing.

        A bug loses no command that was decided before it: a `Fault` follows them.
        """
        out: Commands = []
        handle = HANDLERS[type(event)]
        with contextlib.nullcontext() if isinstance(event, on.Request) else survived(out):
            handle(self, event, now_s, out)
        with survived(out):
            self._advance(now_s, out)
        return out

    # ------------------------------------------------------------------------------------------ the model
    def _model_ready(self, event: on.ModelReady, now_s: float, out: Commands) -> None:
        self.serving.prefixes.shared = event.shared_prefixes
        self.attendance.choose_from((event.card, *event.others))
        out.append(do.Record(Severity.OK, "model", event.card.ref.model, f"{event.card.ref.label}: {event.card.num_items} items"))
        self._take_card(event.card, now_s, out)

    def _take_card(self, card: ModelCard, now_s: float, out: Commands) -> None:
        self.card = card
        for member in self.members:
            self._follow(self.attendance.measure(member, card, out), now_s, out)

    def _model_progress(self, event: on.ModelProgress, now_s: float, out: Commands) -> None:
        self.model_progress = (event.detail, event.progress)

    def _model_failed(self, event: on.ModelFailed, now_s: float, out: Commands) -> None:
        self._follow(Fail(event.message), now_s, out)

    # ------------------------------------------------------------------------------------------ workers and links
    def _worker_registered(self, event: on.WorkerRegistered, now_s: float, out: Commands) -> None:
        if not self.attendance.is_newer(event):
            return
        if former := self.attendance.replaced(event):
            self._follow(self.attendance.lose(former, "it registered again", out), now_s, out)
        self._follow(self.attendance.register(event, self.card, now_s, out), now_s, out)

    def _heartbeat_arrived(self, event: on.HeartbeatArrived, now_s: float, out: Commands) -> None:
        member = self.attendance.beat(event, now_s, out)
        if member is not None and self.rebalancer.move is None:
            self.adapting.observe_memory(member, self.phase is Phase.SERVING, now_s)

    def _worker_measured(self, event: on.WorkerMeasured, now_s: float, out: Commands) -> None:
        if member := self.attendance.measured(event, now_s, out):
            self.state.forgive()
            self._follow(Replan(Wish(f"{event.worker_id} joined")) if member.eligible else None, now_s, out)

    def _worker_profiled(self, event: on.WorkerProfiled, now_s: float, out: Commands) -> None:
        self.attendance.profiled(event, self.card, out)

    def _worker_failed(self, event: on.WorkerFailed, now_s: float, out: Commands) -> None:
        if member := self.members.current(event.worker_id, event.generation):
            self._follow(self.attendance.leave_out(member, event.message, out), now_s, out)

    def _worker_lost(self, event: on.WorkerLost, now_s: float, out: Commands) -> None:
        if member := self.members.current(event.worker_id, event.generation):
            self._follow(self.attendance.lose(member, event.reason, out), now_s, out)

    def _links_measured(self, event: on.LinksMeasured, now_s: float, out: Commands) -> None:
        links, num_broken = self.members.links, self.members.links.num_broken
        out += links.answer(event, (m.spec.node_id for m in self.members if m.alive), now_s)
        if links.num_broken < num_broken:
            self.state.look_again()
            self._follow(Replan(Wish(f"{event.worker_id} has a link again")), now_s, out)

    def _link_broken(self, event: on.LinkBroken, now_s: float, out: Commands) -> None:
        links, trouble = self.members.links, f"{event.from_id} cannot reach {event.to_id}"
        if self.plan is not None and event.plan_version == self.plan_version:
            out += links.broke(event, now_s)
            self.watchdog.note(trouble, now_s)
        elif self.rebalancer.is_of(event.plan_version):
            out += links.broke(event, now_s)
            self._follow(self.rebalancer.give_up(trouble), now_s, out)

    # ------------------------------------------------------------------------------------------ stages
    def _stage_loaded(self, event: on.StageLoaded, now_s: float, out: Commands) -> None:
        if event.plan_version != self.plan_version or self.phase is not Phase.LOADING or self.plan is None:
            return
        self.attendance.loaded(event, out)
        if self.state.stage_loaded(self.plan, event.worker_id):
            out.append(do.Record(Severity.OK, "plan", f"#{self.plan_version}", f"serving on {num_stages(self.plan)}"))

    def _stage_prepared(self, event: on.StagePrepared, now_s: float, out: Commands) -> None:
        self.rebalancer.prepared(event)

    def _kv_copied(self, event: on.KvCopied, now_s: float, out: Commands) -> None:
        self.rebalancer.copied(event)

    def _stage_committed(self, event: on.StageCommitted, now_s: float, out: Commands) -> None:
        self.rebalancer.committed(event, now_s)

    def _move_failed(self, event: on.MoveFailed, now_s: float, out: Commands) -> None:
        self._follow(self.rebalancer.failed(event), now_s, out)

    # ------------------------------------------------------------------------------------------ sessions and steps
    def _session_submitted(self, event: on.SessionSubmitted, now_s: float, out: Commands) -> None:
        if self.state.failure or self.card is None:
            raise Unavailable(self.state.failure or "the model is not known yet: wait until the cluster is ready")
        self.serving.submit(event, self.card, self.phase is Phase.SERVING, now_s)

    def _session_restored(self, event: on.SessionRestored, now_s: float, out: Commands) -> None:
        self.serving.restore(event, self.card, now_s, out)

    def _session_cancelled(self, event: on.SessionCancelled, now_s: float, out: Commands) -> None:
        check_seen(self.plan_version, event.expected_plan_version)
        self.serving.cancel(event.session_id, event.reason, now_s, out)

    def _session_failed(self, event: on.SessionFailed, now_s: float, out: Commands) -> None:
        self.serving.fail(event, now_s, out)

    def _step_reported(self, event: on.StepReported, now_s: float, out: Commands) -> None:
        plan, flight = self.state.running, self.serving.flights.get(event.step_id)
        if plan is not None and self.card is not None and flight is not None and event.plan_version == plan.plan_version:
            self.watchdog.note(self.serving.report(event, self.card, now_s, out), now_s)
            self.adapting.observe(event, flight, now_s)

    def _step_undelivered(self, event: on.StepUndelivered, now_s: float, out: Commands) -> None:
        if (plan := self.state.running) is not None and event.plan_version == plan.plan_version:
            self.watchdog.note(self.serving.undelivered(event, now_s, out), now_s)

    # ------------------------------------------------------------------------------------------ operators
    def _replan_requested(self, event: on.ReplanRequested, now_s: float, out: Commands) -> None:
        check_unchanged(self.state, self.rebalancer.move, event.expected_plan_version)
        self.preview(event.strategy or ("" if event.stages else self.strategy), event.stages)
        self.strategy = event.strategy or self.strategy
        if event.strategy or not event.stages:  # a search was asked for: the layers that it was started with count no longer
            self.config = replace(self.config, layers=())
        self.state.want(Wish(REQUESTED, event.stages, event.strategy))

    def _drain_requested(self, event: on.DrainRequested, now_s: float, out: Commands) -> None:
        check_unchanged(self.state, self.rebalancer.move, event.expected_plan_version)
        self._follow(operating.drain(self.members, event.worker_ids, self.rebalancer.leads_to, out), now_s, out)

    def _leave_requested(self, event: on.LeaveRequested, now_s: float, out: Commands) -> None:
        self._follow(operating.leave(self.members, event, self.rebalancer.leads_to, out), now_s, out)

    def _undrain_requested(self, event: on.UndrainRequested, now_s: float, out: Commands) -> None:
        check_unchanged(self.state, self.rebalancer.move, event.expected_plan_version)
        self._follow(operating.undrain(self.members, self.gathering, event.worker_ids, now_s, out), now_s, out)

    def _forget_requested(self, event: on.ForgetRequested, now_s: float, out: Commands) -> None:
        operating.forget(self.members, self.gathering, event.worker_id, out)
        if not self.state.had_plan and not self.state.failure:
            self.state.wait(self.gathering.wanted())

    def _adaptation_mode_set(self, event: on.AdaptationModeSet, now_s: float, out: Commands) -> None:
        self.adapting.set_mode(event.mode, event.expected_mode, now_s, out)

    def _suggestion_confirmed(self, event: on.SuggestionConfirmed, now_s: float, out: Commands) -> None:
        self._follow(self.adapting.confirm(event.decision_id, self._adaptation_view(), now_s, out), now_s, out)

    # ------------------------------------------------------------------------------------------ time
    def _coordinator_lagged(self, event: on.CoordinatorLagged, now_s: float, out: Commands) -> None:
        self.members.widen_leases(event.lag_s)

    def _tick(self, event: on.Tick, now_s: float, out: Commands) -> None:
        self.serving.tick(now_s)
        for member in self.attendance.expired(now_s, out):
            self._follow(self.attendance.lose(member, f"no heartbeat for {now_s - member.seen_s:.1f} s", out), now_s, out)
        out += self.members.links.try_again({m.spec.node_id: m.generation for m in self.members.eligible()}, now_s)
        if self.phase is Phase.SERVING:
            self._look_for_stuck_steps(now_s, out)
        self.serving.time_out_queue(self.state.detail, now_s, out)
        view = self._adaptation_view() if self.adapting.mode is not Mode.OFF else None
        self._follow(self.adapting.tick(view, now_s, out), now_s, out)

    def _look_for_stuck_steps(self, now_s: float, out: Commands) -> None:
        for member in self.watchdog.silent(self.members, self.serving, self.rebalancer.holds_steps, now_s):
            self._follow(self.attendance.lose(member, f"silent for {now_s - member.seen_s:.1f} s while a step waited", out), now_s, out)
        if self.phase is Phase.SERVING:
            self._follow(self.watchdog.broken(self.serving, now_s) or self.rebalancer.overdue(now_s), now_s, out)

    def _advance(self, now_s: float, out: Commands) -> None:
        """Whatever the newest event made possible."""
        self.adapting.settle(self.rebalancer.reports, now_s, out)
        if card := self.attendance.choice(out):
            self._take_card(card, now_s, out)
        if self.phase is Phase.GATHERING and self._may_plan(now_s):
            self._adopt(now_s, out)
        if self.phase is Phase.SERVING and self.state.wish is not None and self.rebalancer.is_free(now_s):
            self._start_move(self.state.wish, now_s, out)
        if self.phase is Phase.SERVING:
            self._follow(self.rebalancer.advance(now_s, out), now_s, out)
            if self.plan is not None and not self.rebalancer.holds_steps:
                self.serving.fill(self.plan, now_s, out)

    # ------------------------------------------------------------------------------------------ plans
    def _may_plan(self, now_s: float) -> bool:
        is_ready = self.card is not None and not self.state.failure and not self.members.links.is_waiting(now_s)
        return is_ready and self.gathering.is_over(self.members, self.state.had_plan, now_s)

    def problem(self, supposed: Supposed = NOTHING) -> Problem:
        """What the planner is asked now, or would be. Raises Refused without a model, Infeasible."""
        return self.adapting.corrected(problem_of(self.card, self.members, self.plan, supposed))

    def preview(self, strategy: str = "", stages: tuple[Stage, ...] = (), supposed: Supposed = NOTHING) -> Plan:
        """The plan the cluster would adopt now, or as `problem` says; raises Refused, InvalidInput or Infeasible with the reason."""
        name = check_strategy(strategy or self.strategy)
        law = law_for(self.members, self.serving.seen.load, self.plan, supposed)
        plan = plan_for(self.problem(supposed), self.config, name, self.state.last_version + 1, stages, bool(strategy), law)
        return replace(plan, for_version=self.plan_version)

    def _adopt(self, now_s: float, out: Commands) -> None:
        eligible = tuple((m.spec.node_id, m.generation) for m in self.members.eligible())
        if self.state.is_infeasible_for(eligible):
            return
        try:
            plan = self.preview()
        except (Infeasible, InvalidInput) as e:
            self.state.find_infeasible(eligible, str(e))
            out.append(do.Record(Severity.ERROR, "plan", f"#{self.state.last_version + 1}", str(e)))
            if not self.state.had_plan and self.gathering.is_complete(self.members):
                self._follow(Fail(str(e)), now_s, out)
            return
        self.state.begin_loading(plan)
        self._follow(Switch(plan), now_s, out)
        out += loading(plan, self.members)

    def _start_move(self, wish: Wish, now_s: float, out: Commands) -> None:
        self.state.take_wish()
        try:
            plan = self.preview(wish.strategy if wish.stages else "", wish.stages)
        except Refused as e:  # a node left meanwhile, or nothing else fits: the present plan serves on
            out.append(do.Record(Severity.WARN, "plan", f"#{self.plan_version}", f"no move: {wish.cause}; {e}"))
            return
        self._begin(plan, wish, now_s, out)

    def _begin(self, plan: Plan, wish: Wish, now_s: float, out: Commands) -> None:
        if self.plan is None or self.card is None:
            raise AssertionError("a move without a plan to move from")
        self.state.give_version(plan.plan_version)
        self._follow(self.rebalancer.start(self.plan, plan, self.card, wish, now_s, out), now_s, out)

    def _adaptation_view(self) -> AdaptationView | None:
        """What adaptation may decide on: a plan that serves, while no other move is under way or due."""
        plan, card = self.state.running, self.card if self.rebalancer.move is None and self.state.wish is None else None
        return view_of(plan, card, self.members, self.serving, self.strategy) if plan is not None and card is not None else None

    # ------------------------------------------------------------------------------------------ what follows
    def _follow(self, consequence: Consequence | None, now_s: float, out: Commands) -> None:
        """Carry out what somebody found to follow for the plan: nobody else changes it."""
        match consequence:
            case Replan() if self.plan is not None:
                self.state.want(consequence.wish)
            case DropMove() if not consequence.to or self.rebalancer.leads_to(consequence.to):
                self._follow(self.rebalancer.drop(consequence.why, now_s, out, consequence.again), now_s, out)
            case Interrupt():
                self._interrupt(consequence.cause, now_s, out)
            case Fail():
                self._fail(consequence.why, now_s, out)
            case Switch():
                self._switch(consequence.plan)
            case Begin():
                plan = replace(consequence.plan, plan_version=self.state.last_version + 1)
                self._begin(plan, consequence.wish, now_s, out)
                self.adapting.begun(plan.plan_version, self.rebalancer.move is not None, now_s)

    def _switch(self, plan: Plan) -> None:
        if self.card is None:
            raise AssertionError("a plan without a model")
        self.state.switch(plan)
        self.watchdog.forget()
        self.members.take_stages(plan)
        specs = [self.members.named(s.node_id).spec for s in plan.stages]
        self.serving.start_plan(plan, self.card, capacity_tokens(self.card, plan, self.members), specs)

    def _interrupt(self, cause: str, now_s: float, out: Commands) -> None:
        """The current plan no longer runs: its sessions wait for the next one and go on there."""
        self.rebalancer.drop(cause, now_s, out)
        self.state.interrupt(cause)
        self.members.take_stages(None)
        self.serving.interrupt(cause, now_s, out)

    def _fail(self, message: str, now_s: float, out: Commands) -> None:
        self.rebalancer.drop(message, now_s, out)
        self.state.fail(message)
        self.members.take_stages(None)
        self.serving.fail_all(Unavailable(message), now_s, out)


HANDLERS: Mapping[type, Callable[[Cluster, Any, float, Commands], None]] = {
    on.ModelReady: Cluster._model_ready,
    on.ModelProgress: Cluster._model_progress,
    on.ModelFailed: Cluster._model_failed,
    on.WorkerRegistered: Cluster._worker_registered,
    on.HeartbeatArrived: Cluster._heartbeat_arrived,
    on.WorkerMeasured: Cluster._worker_measured,
    on.WorkerProfiled: Cluster._worker_profiled,
    on.WorkerFailed: Cluster._worker_failed,
    on.WorkerLost: Cluster._worker_lost,
    on.LinksMeasured: Cluster._links_measured,
    on.LinkBroken: Cluster._link_broken,
    on.StageLoaded: Cluster._stage_loaded,
    on.StagePrepared: Cluster._stage_prepared,
    on.KvCopied: Cluster._kv_copied,
    on.StageCommitted: Cluster._stage_committed,
    on.MoveFailed: Cluster._move_failed,
    on.SessionSubmitted: Cluster._session_submitted,
    on.SessionRestored: Cluster._session_restored,
    on.SessionCancelled: Cluster._session_cancelled,
    on.SessionFailed: Cluster._session_failed,
    on.StepReported: Cluster._step_reported,
    on.StepUndelivered: Cluster._step_undelivered,
    on.ReplanRequested: Cluster._replan_requested,
    on.DrainRequested: Cluster._drain_requested,
    on.LeaveRequested: Cluster._leave_requested,
    on.UndrainRequested: Cluster._undrain_requested,
    on.ForgetRequested: Cluster._forget_requested,
    on.AdaptationModeSet: Cluster._adaptation_mode_set,
    on.SuggestionConfirmed: Cluster._suggestion_confirmed,
    on.CoordinatorLagged: Cluster._coordinator_lagged,
    on.Tick: Cluster._tick,
}
