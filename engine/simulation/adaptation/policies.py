"""The policies that the table compares: ours, and five simpler ones that people use.

The simpler ones know a stage's planned time and its observed time, as their originals do; they plan with the same planner.
"""

from __future__ import annotations

import math

from engine.control.adaptation.history import Decision
from engine.control.adaptation.planner import AdaptivePlanner
from engine.control.adaptation.rules import AdaptationSettings
from engine.control.adaptation.watching.problem import corrected
from engine.control.adaptation.watching.view import AdaptationView, MemorySample, StepSample
from engine.data.plan import Plan
from engine.planning.problem import Infeasible
from engine.planning.strategies import make_plan


class Adaptive:
    """Ours. Orders are carried out by the run, which shows the new plan in the view."""

    def __init__(self, settings: AdaptationSettings | None = None) -> None:
        self.planner = AdaptivePlanner(settings)
        self._order: Decision | None = None

    @property
    def num_alarms(self) -> int:
        return self.planner.watch.metrics.num_alarms

    def observe(self, sample: StepSample, now_s: float) -> None:
        self.planner.observe(sample, now_s)

    def observe_memory(self, sample: MemorySample, now_s: float) -> None:
        self.planner.observe_memory(sample, now_s)

    def tick(self, view: AdaptationView, now_s: float) -> Plan | None:
        order = next((d for d in self.planner.tick(view, now_s) if d.orders_migration), None)
        self._order = order or self._order
        return order.plan if order else None

    def committed(self, pause_s: float, load_s: float, now_s: float) -> None:
        """As a cluster says it: what was ordered last is done."""
        order, self._order = self._order, None
        if order is not None:
            self.planner.committed(order.decision_id, now_s, pause_s=pause_s, load_s=load_s)


class Ratios:
    """Base of the simpler policies: the latest observed / measured ratio of every node, smoothed by `weight`."""

    def __init__(self, weight: float = 1.0) -> None:
        self.num_alarms = 0
        self.weight = weight
        self.ratio: dict[str, float] = {}
        self.planned: dict[str, float] = {}  # the ratios that the running plan was made for
        self._stage_s: dict[str, float] = {}
        self._plan_version = 0

    def observe(self, sample: StepSample, now_s: float) -> None:
        if sample.plan_version != self._plan_version:
            return
        for timing in sample.timings:
            seen = timing.compute_s / self._stage_s[timing.worker_id]
            last = self.ratio.get(timing.worker_id, seen)
            self.ratio[timing.worker_id] = last + self.weight * (seen - last)
        self.check(now_s)

    def observe_memory(self, sample: MemorySample, now_s: float) -> None:
        """They do not look at memory."""

    def committed(self, pause_s: float, load_s: float, now_s: float) -> None:
        """They do not weigh what a migration costs."""

    def check(self, now_s: float) -> None:
        """Called after every step."""

    def wants(self, now_s: float) -> bool:
        """Called at every tick: plan again now?"""
        return False

    def error(self) -> float:
        """The worst relative error of a stage against its plan."""
        return max((abs(r / self.planned.get(n, 1.0) - 1.0) for n, r in self.ratio.items()), default=0.0)

    def tick(self, view: AdaptationView, now_s: float) -> Plan | None:
        self._follow(view)
        if not self.wants(now_s):
            return None
        levels = {n: math.log(r) for n, r in self.ratio.items()}
        try:
            plan = make_plan(corrected(view.problem, levels), view.strategy, view.plan.plan_version + 1)
        except Infeasible:
            return None
        self.planned = dict(self.ratio)
        return plan if plan.stages != view.plan.stages else None

    def _follow(self, view: AdaptationView) -> None:
        if view.plan.plan_version == self._plan_version:
            return
        self._plan_version = view.plan.plan_version
        times = {n.node_id: n.time_s for n in view.problem.nodes}
        self._stage_s = {s.node_id: sum(times[s.node_id][s.start : s.stop]) for s in view.plan.stages if s.node_id in times}
        self.ratio = {n: r for n, r in self.ratio.items() if n in times}


class Never(Ratios):
    """Keeps the first plan while it can run."""


class BareRule(Ratios):
    """Any stage off by more than 15 % in any step."""

    def __init__(self) -> None:
        super().__init__()
        self._due = False

    def check(self, now_s: float) -> None:
        if self.error() > 0.15:
            self.num_alarms += 1
            self._due = True

    def wants(self, now_s: float) -> bool:
        due, self._due = self._due, False
        return due


class SmoothedRule(Ratios):
    """An exponential mean off by more than 15 %, at most every 30 s."""

    def __init__(self) -> None:
        super().__init__(weight=0.1)
        self._last_s = -math.inf

    def wants(self, now_s: float) -> bool:
        if self.error() <= 0.15 or now_s - self._last_s < 30.0:
            return False
        self.num_alarms += 1
        self._last_s = now_s
        return True


class Autoscaler(Ratios):
    """Like a horizontal autoscaler: looks every 15 s, tolerates 10 %, acts when all looks of the last 300 s agreed."""

    def __init__(self) -> None:
        super().__init__(weight=0.02)
        self._last_s = 0.0
        self._since_s: float | None = None

    def wants(self, now_s: float) -> bool:
        if now_s - self._last_s < 15.0:
            return False
        self._last_s = now_s
        if self.error() <= 0.10:
            self._since_s = None
            return False
        self.num_alarms += 1
        self._since_s = now_s if self._since_s is None else self._since_s
        if now_s - self._since_s < 300.0:
            return False
        self._since_s = None
        return True


class Periodic(Ratios):
    """Plans again every 10 s with the mean of late and takes what comes out."""

    def __init__(self) -> None:
        super().__init__(weight=0.1)
        self._last_s = 0.0

    def wants(self, now_s: float) -> bool:
        if now_s - self._last_s < 10.0:
            return False
        self._last_s = now_s
        return True
