"""What no placement can be below, in little time: bounds of a regular relaxation, for every order of the nodes.

The relaxation gives all nodes the best link, no shared memory and no way to the coordinator. Where few sets of nodes are left
it is solved; else its bottleneck comes from the threshold search over sets, its round trip from prices of memory, and under
`cost` every set of nodes is bounded by itself. All limits count operations, never time.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from engine.planning.problem import Problem
from engine.planning.route import DEFAULT, Limits
from engine.planning.solution import Solution
from engine.planning.solving.beam_plan import least_item_share
from engine.planning.solving.bounds import ROUNDING, least_bottleneck
from engine.planning.solving.prices.memory_dual import MemoryDual
from engine.planning.solving.rounding import slack
from engine.planning.solving.shared_steps import shapes_of
from engine.planning.solving.strategy_keys import BOTTLENECK_SLACK
from engine.planning.solving.structure import is_regular, relaxation
from engine.planning.solving.tables import Tables
from engine.planning.solving.thresholds.leximin import Descent
from engine.planning.solving.thresholds.memory_share import emptiest, least_share

EASIER = ("bottleneck_first", "latency_optimized", "cost")  # a relaxation's best is no worse than the best


class Certificate:
    """Bounds of one problem; `order` is the order of the relaxation's best chain, () where it was not looked for.

    `bottleneck_s`: no placement has a smaller one. `relaxed` is the relaxation's best placement under the strategy, None where
    that was too much to search. Of an infeasible problem only `is_feasible` is known: not even the relaxation has a placement.
    """

    def __init__(self, problem: Problem, relaxed: Solution | None, limits: Limits = DEFAULT) -> None:
        self.problem, self.limits = problem, limits
        looser = relaxation(problem)
        self.tables = t = Tables(looser, limits=limits)
        self._relaxed, self._descent, self.is_feasible = relaxed, None, True
        if is_regular(looser) and math.prod(size + 1 for size in t.size) * len(t.size) <= limits.live.bounded:
            self._descent = Descent(t)
            self.is_feasible = self._descent.bottleneck()
        self.bottleneck_s = self._descent.bottleneck_s if self._descent else least_bottleneck(t)
        cuts = relaxed.cuts if relaxed else t.cuts(self._descent.chain) if self._descent else ()
        self.order = tuple(u for u, _, _ in cuts)

    def bound(self, strategy: str, num_stages: int, bottleneck_s: float) -> float:
        """No placement's objective is below it; of those with `num_stages` or more, where `balanced` compares them first.

        `bottleneck_s` is that of some placement, so memory_aware compares none that is more than 5 % slower.
        """
        known = self._relaxed
        if known is not None and (strategy in EASIER or (strategy == "balanced" and len(known.cuts) == num_stages)):
            return known.lower_bound
        if strategy == "memory_aware":
            return max(self._share(bottleneck_s), least_share(self.tables), least_item_share(self.problem, self.tables))
        if strategy in ("balanced", "bottleneck_first"):
            return max(0.0, self.bottleneck_s - slack(self.tables, strategy))
        return self._period_s() if strategy == "latency_optimized" else self._price()

    def _period_s(self) -> float:
        least_s = max(self.bottleneck_s, self._round_trip_s() / self.problem.in_flight)
        return max(0.0, least_s - slack(self.tables, "latency_optimized"))

    def _share(self, bottleneck_s: float) -> float:
        if self._descent is None or not math.isfinite(bottleneck_s):
            return 0.0
        return emptiest(self.tables, BOTTLENECK_SLACK * bottleneck_s * (1 + 1e-9), self._descent.chain)[0]

    def _times(self) -> Any:
        """[class, item] seconds, inf where the item cannot be."""
        t = self.tables
        if any(t.times.table):
            return np.zeros((len(t.size), t.n))
        return np.where(t.limit_array[:, : t.n] <= np.arange(t.n), np.inf, np.diff(np.array(t.times.prefix), axis=1))

    def _round_trip_s(self) -> float:
        times, ends = self._times(), [self.problem.ends_s(u) for u in self.tables.nodes]
        within_s = max(float(times.min(axis=0).sum()), float(MemoryDual(self.tables, times).rest[0]) if times.any() else 0.0)
        return max(0.0, within_s) * (1 - 1e-9) + min(end[0] for end in ends) + min(end[1] for end in ends)

    def _price(self) -> float:
        """Of any set of nodes that can hold the model: its price times the best period that it may have."""
        t, problem = self.tables, self.problem
        least_s, price = self._period_s(), [problem.nodes[u].price_per_s for u in t.first]
        nodes = [c for c, size in enumerate(t.size) for _ in range(size)]
        if 2 ** len(nodes) * len(nodes) > t.limits.live.bounded:
            return min(price) * least_s * ROUNDING
        each = _every_set([price[c] for c in nodes], np.add, 0.0)
        room = _every_set([max(0.0, t.rooms.of_class[c] - problem.nodes[t.first[c]].buffer_bytes) for c in nodes], np.add, 0.0)
        num_nodes = _every_set([1.0] * len(nodes), np.add, 0.0)
        trip_s, times = (num_nodes - 1) * min(t.times.hop[1:-1], default=0.0), self._times()
        for row in times.T:
            trip_s = trip_s + _every_set(row[nodes].tolist(), np.minimum, math.inf)
        least_s = np.maximum(least_s, _spread_s(times, nodes) - slack(t, "cost"))
        period_s = np.maximum(least_s, trip_s / problem.in_flight - slack(t, "cost"))
        able = (room * (1 + 1e-9) >= problem.stage_bytes(0, t.n)) & np.isfinite(period_s) & (num_nodes > 0)
        return float((each[able] * period_s[able]).min()) * (1 - 1e-9) if able.any() else 0.0


class SharedCertificate:
    """The same where sessions share steps: no placement is below the least of the bounds of all numbers of steps in flight."""

    def __init__(self, problem: Problem, relaxed: Solution | None, limits: Limits = DEFAULT) -> None:
        self.limits, self._relaxed = limits, relaxed
        certified = [(shape, Certificate(shape.problem, None, limits)) for shape in shapes_of(problem)]
        self._shapes = [(shape, each) for shape, each in certified if each.is_feasible]
        self.is_feasible = bool(self._shapes)
        self.bottleneck_s = 0.0  # steps differ, so none is known
        likely = min(self._shapes, key=lambda pair: pair[1].bottleneck_s * pair[0].steps.per_token, default=None)
        self.order = tuple(u for u, _, _ in relaxed.cuts) if relaxed else likely[1].order if likely else ()

    def bound(self, strategy: str, num_stages: int, bottleneck_s: float) -> float:
        """As `Certificate.bound`; objectives are those of a token. What is within 5 % of a bottleneck is not asked here."""
        known = self._relaxed
        if known is not None and (strategy in EASIER or (strategy == "balanced" and len(known.cuts) == num_stages)):
            return known.lower_bound
        shapes = [(s, each) for s, each in self._shapes if strategy != "balanced" or s.stages[1] >= num_stages]
        per = (
            1.0 if strategy == "memory_aware" else s.steps.per_token * s.steps.in_flight / s.steps.num_trips * ROUNDING for s, _ in shapes
        )
        return min((each.bound(strategy, num_stages, math.inf) * p for (_, each), p in zip(shapes, per, strict=True)), default=0.0)


def certificate_of(problem: Problem, relaxed: Solution | None, limits: Limits) -> Certificate | SharedCertificate:
    """The bounds of a problem, whether or not sessions share steps."""
    return (SharedCertificate if problem.is_batched else Certificate)(problem, relaxed, limits)


def _spread_s(times: Any, nodes: list[int]) -> Any:
    """[set] no chain on these nodes has a smaller bottleneck: in time T a node moves at most T * max_i(w_i / t_i) of weights w."""
    weights = np.where(np.isfinite(times), times, np.inf).min(axis=0)
    weights = np.where(np.isfinite(weights), weights, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.where(weights > 0, weights / times, 0.0)
        speeds = _every_set(shares.max(axis=1)[nodes].tolist(), np.add, 0.0)
        return np.where(speeds > 0, weights.sum() / speeds, np.inf if weights.any() else 0.0) * (1 - 1e-9)


def _every_set(figures: list[float], join: Any, empty: float) -> Any:
    """[set of nodes as a bit mask] the figures of its nodes joined."""
    found = np.array([empty])
    for figure in figures:
        found = np.concatenate([found, join(found, figure)])
    return found
