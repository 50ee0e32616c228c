"""Lets the adaptive planner watch a running cluster and move its layers. Pure; off unless the cluster was told otherwise.

The planner judges, the rebalancer moves; this tells the first what the cluster saw and returns what it orders. A plan that an
operator cut by hand is left alone: who drew it knows something that the planner does not.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.control import commands as do
from engine.control import events as on
from engine.control.adaptation.history import Decision, Verdict
from engine.control.adaptation.planner import AdaptivePlanner
from engine.control.adaptation.rules import AdaptationSettings, Mode, check_mode
from engine.control.adaptation.watching.view import AdaptationView, MemorySample, StepSample, even_hops
from engine.control.moves import Wish
from engine.control.nodes.members import Member, Members
from engine.control.placement import law_for, problem_of
from engine.control.plan_state import Begin
from engine.control.sessions.batching import Flight
from engine.control.sessions.serving import Serving
from engine.data.adaptation import AdaptationEntry, AdaptationStatus
from engine.data.errors import Refused
from engine.data.model import ModelCard
from engine.data.moves import MoveReport
from engine.data.plan import Plan
from engine.data.status import Severity
from engine.planning.problem import Infeasible, Problem
from engine.planning.strategies import STRATEGIES
from engine.profile.point import DECODE, Point

DONE = "done"


class Adapting:
    """One cluster's adaptive planner and the one order of it that is being carried out."""

    def __init__(self, settings: AdaptationSettings) -> None:
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
    def observe(self, event: on.StepReported, flight: Flight, now_s: float) -> None:
        """A step of the running plan came back; without a cost model only decode steps can be compared, so only they count."""
        if self.mode is Mode.OFF or not flight.is_decode or any(o.error for o in event.outcomes):
            return
        hops = even_hops(event.timings, now_s - flight.sent_s)
        self.planner.observe(StepSample(event.plan_version, _point(flight), event.timings, hops), now_s)

    def observe_memory(self, member: Member, is_serving: bool, now_s: float) -> None:
        """What a worker's newest heartbeat says, while nothing moves. Its limit counts weights and KV, the heartbeat the runtime too: that
        is known while it has no stage."""
        if self.mode is Mode.OFF:
            return
        worker_id, spec = member.spec.node_id, member.spec
        key = worker_id, member.generation
        if member.stage is None:
            self._idle_bytes[key] = max(self._idle_bytes.get(key, 0), member.heartbeat.gauges.resident_bytes)
        elif key in self._idle_bytes and is_serving:
            cap_bytes = spec.memory_bytes + self._idle_bytes[key]
            said = member.heartbeat.gauges
            sample = MemorySample(worker_id, said.resident_bytes, cap_bytes, said.kv_used_bytes, kv_budget_bytes=spec.kv_budget_bytes)
            self.planner.observe_memory(sample, now_s)

    # ------------------------------------------------------------------------------------------ decisions
    def tick(self, view: AdaptationView | None, now_s: float, out: list[do.Command]) -> Begin | None:
        """Look and decide; without a `view` only the time passes."""
        self._now_s, begin = now_s, None
        if view is None:
            return None
        for decision in self.planner.tick(view, now_s):
            out.append(_record(decision))
            begin = self._order_of(decision) if decision.orders_migration else begin
        return begin

    def suggestion_id(self, plan_version: int) -> int:
        """The suggestion for that plan which waits to be confirmed; 0 if there is none."""
        open_ = self.planner.suggestion_for(plan_version)
        return open_.decision_id if open_ is not None else 0

    def set_mode(self, name: str, expected: str, now_s: float, out: list[do.Command]) -> None:
        """Raises InvalidInput listing the modes, Refused if the mode is not the `expected` one ("" expects nothing)."""
        mode = check_mode(name)
        if expected and expected != self.mode:
            raise Refused(f"adaptation is {self.mode} now, the request was made when it was {expected[:20]}: look again")
        if mode is not self.mode:
            out.append(_record(self.planner.set_mode(mode, now_s)))

    def confirm(self, decision_id: int, view: AdaptationView | None, now_s: float, out: list[do.Command]) -> Begin | None:
        """Carry a suggestion out; raises Refused if it is not open any more, or if a move is under way."""
        if view is None:
            raise Refused("no plan that adaptation may change serves, or a move is under way: look at the history again")
        decision = self.planner.confirm(decision_id, view, now_s)
        out.append(_record(decision))
        return self._order_of(decision)

    def _order_of(self, decision: Decision) -> Begin | None:
        if decision.plan is None:
            return None
        self._order = decision
        return Begin(decision.plan, Wish(f"adaptation #{decision.decision_id}", is_retried=False))

    def begun(self, plan_version: int, has_begun: bool, now_s: float) -> None:
        """The plan that was ordered got this version, and its move has begun or could not."""
        order, self._order_version = self._order, plan_version
        if not has_begun and order is not None:
            self._order = None
            self.planner.abandoned(order.decision_id, "the running sessions do not fit into it", now_s)

    def settle(self, reports: Sequence[MoveReport], now_s: float, out: list[do.Command]) -> None:
        """Tell the planner how the move that it ordered ended."""
        order = self._order
        if order is None or not reports or reports[-1].plan_version != self._order_version:
            return
        self._order, report = None, reports[-1]
        if report.outcome == DONE:
            ended = self.planner.committed(order.decision_id, now_s, pause_s=report.pause_s, load_s=report.prepare_s)
        else:
            ended = self.planner.abandoned(order.decision_id, report.outcome, now_s)
        out.append(do.Record(Severity.INFO, "adapt", f"#{order.decision_id}", ended.outcome))

    def status(self, now_s: float) -> AdaptationStatus:
        return AdaptationStatus(str(self.mode), tuple(_entry(d, now_s) for d in self.planner.history))


def view_of(plan: Plan, card: ModelCard, members: Members, serving: Serving, strategy: str) -> AdaptationView | None:
    """What the planner may look at; None for a plan that was not made by a planner, or if nobody could make one now."""
    if plan.strategy not in STRATEGIES:
        return None
    try:
        problem = problem_of(card, members, plan)
    except (Refused, Infeasible):
        return None
    running = serving.scheduler.running()
    in_flight = max(1, min(serving.num_lanes, len(running)))
    cost_model = next((m.cost_model for m in members.eligible() if m.cost_model), None)
    law = law_for(members, serving.seen.load, plan)
    return AdaptationView(plan, problem, strategy, in_flight, sum(s.num_landed for s in running), cost_model, law)


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
    return do.Record(severity, "adapt", f"#{decision.decision_id}", decision.sentence, is_again=decision.num_times > 1)
