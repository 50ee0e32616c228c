"""One problem with the searches of its route.

Where it is regular without further limits, the threshold search answers directly. Else a relaxed problem may be regular, or easy
in its given order: its bottleneck is a lower bound, and the label search needs to visit only states that lie on one of its chains.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from engine.planning.constraints import PlanningConstraints
from engine.planning.problem import Problem
from engine.planning.route import Kind, Route
from engine.planning.solving.label_search import Bounds, Found, Goal, LabelSearch, Lost, StageCost, Work
from engine.planning.solving.stage_times import PLAIN, Reading
from engine.planning.solving.structure import is_regular, of_single_stages, relaxation
from engine.planning.solving.tables import Chain, Tables

if TYPE_CHECKING:
    from engine.planning.solving.fixed_order import Ordered
    from engine.planning.solving.prices.additive_search import Trip
    from engine.planning.solving.thresholds.leximin import Descent


def _extend_bottleneck(value: float, step: StageCost) -> float:
    return max(value, step.cost_s)


BOTTLENECK = Goal(0.0, _extend_bottleneck)


class Solver:
    """The searches of one problem on its route. What they find counts only if `gave_up` is False afterwards."""

    def __init__(self, problem: Problem, chosen: Route, work: Work | None = None, reading: Reading = PLAIN) -> None:
        self.kind, limits = chosen.kind, chosen.limits
        self.tables = Tables(problem, reading=reading, limits=limits)
        self.work = work or Work(limits.label_work)
        self.search = LabelSearch(self.tables, self.work)
        self.bounds = _bounds(self.tables)
        self.relaxed: Tables | None = None  # regular; for nodes in free order
        self.ordered: Ordered | None = None  # for nodes in a given order
        if self.kind is Kind.THRESHOLD:
            self.relaxed = self.tables
        elif self.kind is Kind.RELAXED:
            self.relaxed = self.tables if is_regular(problem) else self._looser(of_single_stages(problem.constraints))
        elif self.kind is Kind.FIXED_ORDER:
            self.ordered = self._in_order()

    def _in_order(self) -> Ordered:
        from engine.planning.solving.fixed_order import Ordered

        anytime = replace(self.tables.problem.constraints, latency_limit_s=math.inf)
        return Ordered(self.tables if self.tables.times.uniform else self._looser(anytime))

    def _looser(self, constraints: PlanningConstraints) -> Tables:
        """The relaxation, on the same classes of nodes."""
        problem = relaxation(self.tables.problem, constraints)
        return Tables(problem, self.tables.classes, self.tables.reading, self.tables.limits)

    @property
    def gave_up(self) -> bool:
        return self.work.is_spent

    @property
    def exact(self) -> bool:
        """Whether the threshold search answers directly."""
        return self.kind is Kind.THRESHOLD

    @property
    def additive_exact(self) -> bool:
        """Whether the additive programme answers directly: every stage's time is a sum over its items, and there are no further limits
        than on the number of stages."""
        return (self.exact or self.is_counted) and not any(self.tables.times.table)

    @property
    def is_counted(self) -> bool:
        """Whether the only further limit is on the number of stages, which must be several."""
        return self.is_counted_within and self.tables.problem.constraints.bottleneck_limit_s == math.inf

    @property
    def is_counted_within(self) -> bool:
        """The same, and perhaps a bottleneck that plans must keep."""
        c = self.tables.problem.constraints
        return self.relaxed is self.tables and c.min_stages > 1 and c.latency_limit_s == math.inf

    def has_its_count(self, chain: Chain) -> bool:
        """Whether a chain has a number of stages that is allowed."""
        return self.bounds.stages[0] <= len(chain) <= self.bounds.stages[1]

    def shortest(self, priced: bool) -> Trip | None:
        from engine.planning.solving.prices.additive_search import shortest

        return shortest(self.tables, self.work, priced=priced, stages=self.bounds.stages)

    def shortest_period(self, in_flight: int) -> Trip | None:
        from engine.planning.solving.prices.additive_search import shortest, shortest_period

        if in_flight == 1:
            return shortest(self.tables, self.work, stages=self.bounds.stages)
        descent = self.descent()
        least_s = None if descent is None else descent.bottleneck_s
        return None if least_s is None else shortest_period(self.tables, self.work, in_flight, least_s, self.bounds.stages)

    def descent(self) -> Descent | None:
        """The threshold search after its first level, None if even the relaxed problem is infeasible."""
        from engine.planning.solving.thresholds.leximin import Descent

        assert self.relaxed is not None  # noqa: S101  an invariant, not validation
        descent = Descent(self.relaxed, self.bounds.stages[1])
        return descent if descent.bottleneck() else None

    def emptiest(self, most_s: float, least_s: float, chain: Chain) -> Chain:
        """Of the chains with a bottleneck within `most_s`: the least share of memory, then the least bottleneck.

        `least_s` is the smallest bottleneck of all, and `chain` has it.
        """
        from engine.planning.solving.thresholds.leximin import Descent
        from engine.planning.solving.thresholds.memory_share import emptiest, no_fuller

        share, chain = emptiest(self.tables, most_s, chain, self.bounds.stages[1])
        descent = Descent(no_fuller(self.tables, share), self.bounds.stages[1])
        descent.between(least_s, chain)
        return descent.chain

    def bottleneck(self, bounds: Bounds) -> tuple[float, Chain] | None:
        """The smallest bottleneck within the bounds and a chain that has it."""
        if self.relaxed is None and self.ordered is None:
            found = self.search.best(BOTTLENECK, bounds)
            return None if found is None else (found.value, found.chain)
        least = self._least()
        if least is None or (bounds == self.bounds and self.exact):
            return least
        most_s = bounds.cost_s
        if least[0] > most_s:
            return None
        if bounds == self.bounds and self.is_counted_within and self.has_its_count(least[1]):
            return least
        for factor in (1.0, 1.01, 1.03, 1.1, 1.3, 2.0, math.inf):
            found = self.search_within(BOTTLENECK, replace(bounds, cost_s=min(least[0] * factor if least[0] else math.inf, most_s)))
            if found is not None:
                return found.value, found.chain
            if least[0] * factor >= most_s:
                break
        return None

    def _least(self) -> tuple[float, Chain] | None:
        """The relaxed problem's bottleneck and chain."""
        if self.ordered is not None:
            return self.ordered.bottleneck()
        descent = self.descent()
        return None if descent is None else (descent.bottleneck_s, descent.chain)

    def search_within(self, goal: Goal, bounds: Bounds) -> Found | None:
        """The label search over the states that the relaxed problem leaves within bounds.cost_s."""
        return self.search.best(goal, bounds, self._lost(bounds.cost_s) if bounds.cost_s < math.inf else None)

    def _lost(self, cost_s: float) -> Lost | None:
        if self.ordered is not None:
            return self.ordered.lost(cost_s)
        if self.relaxed is None:
            return None
        from engine.planning.solving.thresholds.threshold_search import earliest

        needed = earliest(self.relaxed, cost_s)
        return lambda used, stop: stop < needed[used]


def _bounds(tables: Tables) -> Bounds:
    """The problem's own bounds on a chain."""
    problem, num_nodes = tables.problem, len(tables.nodes)
    most = min(problem.constraints.max_stages or num_nodes, num_nodes)
    fewest = num_nodes if problem.use_all_nodes else problem.constraints.min_stages
    return Bounds(problem.constraints.bottleneck_limit_s, round_trip_s=problem.constraints.latency_limit_s, stages=(fewest, most))
