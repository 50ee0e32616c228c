"""Lets the adaptive planner watch a running cluster and move its layers. Pure; off unless the cluster was told otherwise.

The planner judges, the rebalancer moves; this tells the first what the cluster saw and the second what was ordered. A plan that
an operator cut by hand is left alone: who drew it knows something that the planner does not.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from engine.control import commands as do
from engine.control import events as on
from engine.control.adaptation.history import Decision, Verdict
from engine.control.adaptation.planner import AdaptivePlanner
from engine.control.adaptation.rules import AdaptationSettings, Mode, check_mode
from engine.control.adaptation.view import AdaptationView, MemorySample, StepSample, even_hops
from engine.control.batching import Flight
from engine.control.moves import Wish
from engine.control.placement import problem_of
from engine.data.adaptation import AdaptationEntry, AdaptationStatus
from engine.data.errors import Refused
from engine.data.plan import Plan
from engine.data.status import Phase, Severity
from engine.planning.problem import Infeasible, Problem
from engine.planning.strategies import STRATEGIES
from engine.profile.point import DECODE, Point

if TYPE_CHECKING:
    from engine.control.cluster import Cluster

DONE = "done"


class Adapting:
    """One cluster's adaptive planner and the one order of it that is being carried out."""

    def __init__(self, cluster: Cluster, settings: AdaptationSettings) -> None:
        self._cluster = cluster
        self.planner = AdaptivePlanner(settings)
        self._order: Decision | None = None
        self._order_version = 0
        self._idle_bytes: dict[tuple[str, int], int] = {}  # by registration: the most that it took without a stage
        self._now_s = 0.0

    @property
    def mode(self) -> Mode:
        return self.planner.mode

    def corrected(self, problem: Problem) -> Problem:
        """`problem` with the times that nodes really take; as it is while adaptation is off."""
        return problem if self.mode is Mode.OFF else self.planner.corrected(problem, self._now_s)

    # ------------------------------------------------------------------------------------------ observations
    def observe(self, event: on.StepReported, now_s: float) -> None:
        """A step of the running plan came back; without a cost model only decode steps can be compared, so only they count."""
        flight = self._cluster.serving.flights.get(event.step_id)
        if self.mode is Mode.OFF or flight is None or not flight.is_decode or any(o.error for o in event.outcomes):
            return
        hops = even_hops(event.timings, now_s - flight.sent_s)
        self.planner.observe(StepSample(event.plan_version, _point(flight), event.timings, hops), now_s)

    def observe_memory(self, event: on.HeartbeatArrived, now_s: float) -> None:
        """A worker's memory limit counts weights and KV, its heartbeat the runtime too: that is known while it has no stage."""
        member = self._cluster.members.current(event.worker_id, event.generation)
        if self.mode is Mode.OFF or member is None or self._cluster.rebalancer.move is not None:
            return
        key = event.worker_id, event.generation
        if member.stage is None:
            self._idle_bytes[key] = max(self._idle_bytes.get(key, 0), event.resident_bytes)
        elif key in self._idle_bytes and self._cluster.phase is Phase.SERVING:
            cap_bytes = member.spec.memory_bytes + self._idle_bytes[key]
            sample = MemorySample(
                event.worker_id, event.resident_bytes, cap_bytes, event.kv_used_bytes, kv_budget_bytes=member.spec.kv_budget_bytes
            )
            self.planner.observe_memory(sample, now_s)

    # ------------------------------------------------------------------------------------------ decisions
    def tick(self, now_s: float, out: list[do.Command]) -> None:
        """Look and decide, while a plan of the planner's own serves and no other move is under way or due."""
        self._now_s = now_s
        view = self._view() if self.mode is not Mode.OFF else None
        if view is None:
            return
        for decision in self.planner.tick(view, now_s):
            out.append(_record(decision))
            if decision.orders_migration and decision.plan is not None:
                self._carry_out(decision, decision.plan, now_s, out)

    @property
    def suggestion_id(self) -> int:
        """The suggestion that waits to be confirmed; 0 if there is none for the plan that serves."""
        open_ = self.planner.suggestion_for(self._cluster.plan_version)
        return open_.decision_id if open_ is not None else 0

    def set_mode(self, name: str, expected: str, now_s: float, out: list[do.Command]) -> None:
        """Raises InvalidInput listing the modes, Refused if the mode is not the `expected` one ("" expects nothing)."""
        mode = check_mode(name)
        if expected and expected != self.mode:
            raise Refused(f"adaptation is {self.mode} now, the request was made when it was {expected[:20]}: look again")
        if mode is not self.mode:
            out.append(_record(self.planner.set_mode(mode, now_s)))

    def confirm(self, decision_id: int, now_s: float, out: list[do.Command]) -> None:
        """Carry a suggestion out; raises Refused if it is not open any more, or if a move is under way."""
        view = self._view()
        if view is None:
            raise Refused("no plan that adaptation may change serves, or a move is under way: look at the history again")
        decision = self.planner.confirm(decision_id, view, now_s)
        out.append(_record(decision))
        if decision.plan is not None:
            self._carry_out(decision, decision.plan, now_s, out)

    def settle(self, now_s: float, out: list[do.Command]) -> None:
        """Tell the planner how the move that it ordered ended."""
        reports, order, cluster = self._cluster.rebalancer.reports, self._order, self._cluster
        if order is None or not reports or reports[-1].plan_version != self._order_version:
            return
        self._order, report = None, reports[-1]
        if report.outcome == DONE:
            ended = self.planner.committed(order.decision_id, now_s, pause_s=report.pause_s, load_s=report.prepare_s)
        else:
            ended = self.planner.abandoned(order.decision_id, report.outcome, now_s)
            if cluster.wish is not None and cluster.wish.cause == report.cause:
                cluster.wish = None  # whether to try it again is the planner's decision
        out.append(do.Record(Severity.INFO, "adapt", f"#{order.decision_id}", ended.outcome))

    def status(self, now_s: float) -> AdaptationStatus:
        return AdaptationStatus(str(self.mode), tuple(_entry(d, now_s) for d in self.planner.history))

    # ------------------------------------------------------------------------------------------ inside
    def _carry_out(self, decision: Decision, plan: Plan, now_s: float, out: list[do.Command]) -> None:
        cluster = self._cluster
        cluster.last_version += 1
        self._order, self._order_version = decision, cluster.last_version
        cluster.rebalancer.start(replace(plan, plan_version=self._order_version), Wish(f"adaptation #{decision.decision_id}"), now_s, out)
        if cluster.rebalancer.move is None:
            self._order, cluster.wish = None, None
            self.planner.abandoned(decision.decision_id, "the running sessions do not fit into it", now_s)

    def _view(self) -> AdaptationView | None:
        cluster, plan = self._cluster, self._cluster.plan
        is_busy = cluster.rebalancer.move is not None or cluster.wish is not None or cluster.phase is not Phase.SERVING
        if is_busy or plan is None or plan.strategy not in STRATEGIES:
            return None
        try:
            problem = problem_of(cluster.card, cluster.members, plan)
        except (Refused, Infeasible):
            return None
        running = cluster.scheduler.running()
        in_flight = max(1, min(cluster.serving.num_lanes, len(running)))
        cost_model = next((m.cost_model for m in cluster.members.eligible() if m.cost_model), None)
        kv_tokens = sum(s.num_landed for s in running)
        return AdaptationView(plan, problem, cluster.strategy, in_flight, kv_tokens, cost_model)


def _point(flight: Flight) -> Point:
    batch = len(flight.segments)
    return Point(DECODE, 1, sum(s.position for s in flight.segments) // batch, batch)


def _entry(d: Decision, now_s: float) -> AdaptationEntry:
    cost_s = d.cost.cost_s if d.cost else 0.0
    figures = d.before_s, d.predicted_s, cost_s, d.realised_s, d.realised_pause_s
    stages, for_version = (d.plan.stages, d.plan.for_version) if d.plan else ((), 0)
    return AdaptationEntry(d.decision_id, now_s - d.at_s, str(d.verdict), d.sentence, d.outcome, *figures, stages, for_version)


def _record(decision: Decision) -> do.Record:
    severity = Severity.WARN if decision.verdict is Verdict.ROLLBACK else Severity.INFO
    return do.Record(severity, "adapt", f"#{decision.decision_id}", decision.sentence)
