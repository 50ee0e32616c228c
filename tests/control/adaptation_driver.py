"""An `AdaptivePlanner` driven end to end against a modelled pipeline in memory, the way a cluster has to drive it.

Steps are observed, ticks are made, orders are carried out after their loading time, and everything that must always hold is
checked after every tick.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

from engine.control.adaptation.history import Decision, Verdict
from engine.control.adaptation.planner import AdaptivePlanner
from engine.control.adaptation.rules import AdaptationSettings, Mode
from engine.control.adaptation.watching.problem import corrected
from engine.control.adaptation.watching.view import AdaptationView, MemorySample, StepSample
from engine.data.generation import StageTiming
from engine.data.model import Item
from engine.data.plan import Plan
from engine.planning.problem import PlanningNode, Problem
from engine.planning.strategies import make_plan
from engine.profile.point import DECODE, Point

ITEM_S = 0.001
NUM_ITEMS = 24
POINT = Point(DECODE, 1, 16, 1)


@dataclass
class Pipeline:
    """`factors` and `cliffs` (node: items that it bears before it gets three times slower) may change at any time."""

    nodes: tuple[str, ...] = ("w1", "w2", "w3")
    mode: Mode = Mode.AUTO
    noise: float = 0.03
    seed: int = 0
    in_flight: int = 4
    strategy: str = "balanced"
    carries_out: bool = True
    item_s: float = ITEM_S
    weight_bytes: int = 10_000_000
    factors: dict[str, float] = field(default_factory=dict)
    cliffs: dict[str, int] = field(default_factory=dict)
    memory: dict[str, MemorySample] = field(default_factory=dict)
    decisions: list[Decision] = field(default_factory=list)
    now_s: float = 0.0

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.planner = AdaptivePlanner(AdaptationSettings(mode=self.mode))
        self.plan: Plan = make_plan(self.problem(), self.strategy, 1)
        self.order: Decision | None = None
        self.num_steps = 0
        self.tick()

    def problem(self) -> Problem:
        items = tuple(Item(f"h.{i}", self.weight_bytes, 1000, 4000) for i in range(NUM_ITEMS))
        return Problem(items, tuple(PlanningNode(n, 1e9, (self.item_s,) * NUM_ITEMS) for n in self.nodes))

    def view(self) -> AdaptationView:
        return AdaptationView(self.plan, self.problem(), self.strategy, self.in_flight)

    def stage_s(self) -> list[float]:
        """True seconds of every stage, without noise."""
        falls = [3.0 if s.num_items > self.cliffs.get(s.node_id, NUM_ITEMS) else 1.0 for s in self.plan.stages]
        pairs = zip(self.plan.stages, falls, strict=True)
        return [s.num_items * self.item_s * self.factors.get(s.node_id, 1.0) * fall for s, fall in pairs]

    def period_s(self) -> float:
        return max(*self.stage_s(), math.fsum(self.stage_s()) / self.in_flight)

    def best_s(self) -> float:
        """The bottleneck of the plan that knows the factors."""
        truth = corrected(self.problem(), {n: math.log(f) for n, f in self.factors.items()})
        return make_plan(truth, self.strategy, 1).bottleneck_s

    def run(self, num_steps: int) -> None:
        for _ in range(num_steps):
            times = [s * math.exp(self.rng.gauss(0.0, self.noise)) for s in self.stage_s()]
            timings = tuple(StageTiming(s.node_id, t, 0.0, 0.0, 0.0) for s, t in zip(self.plan.stages, times, strict=True))
            self._pass(self.period_s())
            self.num_steps += 1
            self.planner.observe(StepSample(self.plan.plan_version, POINT, timings), self.now_s)
            if self.num_steps % 8 == 0:
                self.tick()

    def tick(self) -> list[Decision]:
        for sample in self.memory.values():
            self.planner.observe_memory(sample, self.now_s)
        self._carry_out()
        new = self.planner.tick(self.view(), self.now_s)
        self.check(new)
        self.decisions += new
        for decision in new:
            if decision.orders_migration:
                self.order = decision
        return new

    def _pass(self, duration_s: float) -> None:
        """Whole ticks of the clock, so that a later start does not round otherwise."""
        self.now_s += round(duration_s * 2**24) / 2**24

    def _carry_out(self) -> None:
        if self.order is None or not self.carries_out or self.order.plan is None or self.order.cost is None:
            return
        if self.now_s >= self.order.at_s + self.order.cost.load_s:
            order, self.order = self.order, None
            self._pass(order.cost.pause_s)
            self.plan = order.plan
            self.planner.committed(order.decision_id, self.now_s, pause_s=order.cost.pause_s, load_s=order.cost.load_s)

    def check(self, new: list[Decision]) -> None:
        """What holds after every tick."""
        kept = list(self.planner.history)
        ids = [d.decision_id for d in kept]
        assert ids == sorted(set(ids)), "ids rise"
        assert {d.decision_id for d in new} <= set(ids), "every decision is in the history"
        orders = [d for d in new if d.orders_migration]
        assert len(orders) <= 1 and not (orders and self.order), "one migration at a time"
        for order in orders:
            assert order.plan is not None and order.plan.plan_version == self.plan.plan_version + 1
            assert order.plan.stages != self.plan.stages and order.cost is not None and order.cost.moves
        assert all(d.sentence.isascii() and d.sentence for d in kept)
        assert self.planner.case.owed_s >= 0.0

    def verdicts(self, *verdicts: Verdict) -> list[Decision]:
        return [d for d in self.planner.history if d.verdict in verdicts]
