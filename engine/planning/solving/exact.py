"""One problem with the searches that fit its structure.

`exact`: the problem is regular and has no limits beyond it, so the threshold search answers directly. Else a relaxed
problem is regular: without shared pools, latency limit, numbers of stages and items, and with the best link for all. Its
bottleneck is a lower bound, and the label search needs to visit only states that lie on one of its chains.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from engine.planning.constraints import PlanningConstraints
from engine.planning.problem import Link, Problem
from engine.planning.solving.label_search import Found, Goal, LabelSearch, Limits, Step, Work
from engine.planning.solving.tables import PLAIN, Chain, Reading, Tables

if TYPE_CHECKING:
    from engine.planning.solving.additive_search import Trip
    from engine.planning.solving.fixed_order import Ordered
    from engine.planning.solving.leximin import Descent

DIRECT = 300  # states x items; smaller problems are searched at once, without arrays
MAX_STATES = 300_000


def _extend_bottleneck(value: float, step: Step) -> float:
    return max(value, step.cost_s)


BOTTLENECK = Goal(0.0, _extend_bottleneck)


class Solver:
    def __init__(self, problem: Problem, work: Work | None = None, reading: Reading = PLAIN) -> None:
        self.tables = tables = Tables(problem, reading=reading)
        self.search = LabelSearch(tables, work)
        self.limits = _limits(tables)
        num_states = math.prod(size + 1 for size in tables.size) if problem.free_order else len(tables.size)
        self.relaxed: Tables | None = None  # regular; for nodes in free order
        self.ordered: Ordered | None = None  # for nodes in a given order
        self.exact = False
        self.too_many = num_states > MAX_STATES
        if not tables.size or not reading.has_grid or num_states * tables.n <= DIRECT:
            return
        if problem.free_order and num_states <= MAX_STATES:
            self._relax()
        elif not problem.free_order:
            self._order()

    def _order(self) -> None:
        from engine.planning.solving.fixed_order import MOST_COSTS, Ordered

        tables = self.tables if self.tables.uniform else self._looser(replace(self.tables.problem.constraints, latency_limit_s=math.inf))
        if len(tables.size) * tables.n**2 <= MOST_COSTS:
            self.ordered = Ordered(tables)

    def _relax(self) -> None:
        from engine.planning.solving.regular import is_regular

        tables, free = self.tables, Limits(stages=(1, len(self.tables.nodes)))
        if is_regular(tables):
            self.relaxed, self.exact = tables, self.limits == free
            return
        problem = tables.problem
        kept = PlanningConstraints(
            pins=problem.constraints.pins,
            forbidden_nodes=problem.constraints.forbidden_nodes,
            max_items_per_stage=problem.constraints.max_items_per_stage,
            memory_reserve_bytes=problem.constraints.memory_reserve_bytes,
        )
        looser = self._looser(kept)
        if is_regular(looser):
            self.relaxed = looser

    def _looser(self, constraints: PlanningConstraints) -> Tables:
        """The problem with the best link for all and no shared pools, on the same classes of nodes."""
        problem = replace(without_coordinator(self.tables.problem), links=best_link(self.tables.problem), constraints=constraints)
        return Tables(without_pools(problem), self.tables.classes, self.tables.reading)

    @property
    def additive_exact(self) -> bool:
        """Whether the additive programme answers directly: exact, and every stage's time a sum over its items."""
        return self.exact and not any(self.tables.table)

    def shortest(self, priced: bool) -> Trip | None:
        from engine.planning.solving.additive_search import shortest

        return shortest(self.tables, priced=priced)

    def shortest_period(self, in_flight: int) -> Trip | None:
        from engine.planning.solving.additive_search import shortest, shortest_period

        if in_flight == 1:
            return shortest(self.tables)
        descent = self.descent()
        return None if descent is None else shortest_period(self.tables, in_flight, descent.bottleneck_s)

    def descent(self) -> Descent | None:
        """The threshold search after its first level, None if even the relaxed problem is infeasible."""
        from engine.planning.solving.leximin import Descent

        assert self.relaxed is not None  # noqa: S101  an invariant, not validation
        descent = Descent(self.relaxed)
        return descent if descent.bottleneck() else None

    def emptiest(self, most_s: float, least_s: float, chain: Chain) -> Chain:
        """Of the chains with a bottleneck within `most_s`: the least share of memory, then the least bottleneck.

        `least_s` is the smallest bottleneck of all, and `chain` has it.
        """
        from engine.planning.solving.leximin import Descent
        from engine.planning.solving.memory_share import emptiest, no_fuller

        share, chain = emptiest(self.tables, most_s, chain)
        descent = Descent(no_fuller(self.tables, share))
        descent.between(least_s, chain)
        return descent.chain

    def bottleneck(self, limits: Limits) -> tuple[float, Chain] | None:
        """The smallest bottleneck within the limits and a chain that has it."""
        if self.relaxed is None and self.ordered is None:
            found = self.search.best(BOTTLENECK, limits)
            return None if found is None else (found.value, found.chain)
        least = self._least()
        if least is None or (self.exact and limits == self.limits):
            return least
        for factor in (1.0, 1.01, 1.03, 1.1, 1.3, 2.0, math.inf):
            found = self.search_within(BOTTLENECK, replace(limits, cost_s=least[0] * factor if least[0] else math.inf))
            if found is not None:
                return found.value, found.chain
        return None

    def _least(self) -> tuple[float, Chain] | None:
        """The relaxed problem's bottleneck and chain."""
        if self.ordered is not None:
            return self.ordered.bottleneck()
        descent = self.descent()
        return None if descent is None else (descent.bottleneck_s, descent.chain)

    def search_within(self, goal: Goal, limits: Limits) -> Found | None:
        """The label search over the states that the relaxed problem leaves within limits.cost_s."""
        self.search.lost = self._lost(limits.cost_s) if limits.cost_s < math.inf else None
        found = self.search.best(goal, limits)
        self.search.lost = None
        return found

    def _lost(self, cost_s: float) -> Callable[[int, int], bool] | None:
        if self.ordered is not None:
            return self.ordered.lost(cost_s)
        if self.relaxed is None:
            return None
        from engine.planning.solving.threshold_search import earliest

        needed = earliest(self.relaxed, cost_s)
        return lambda used, stop: stop < needed[used]


def _limits(tables: Tables) -> Limits:
    """The problem's own bounds on a chain."""
    problem, num_nodes = tables.problem, len(tables.nodes)
    most = min(problem.constraints.max_stages or num_nodes, num_nodes)
    fewest = num_nodes if problem.use_all_nodes else 1
    return Limits(round_trip_s=problem.constraints.latency_limit_s, stages=(fewest, most))


def best_link(problem: Problem) -> Link:
    """A link that is at least as fast as every pair's."""
    if isinstance(problem.links, Link):
        return problem.links
    links = [pair.link for pair in problem.links]
    return Link(min((x.latency_s for x in links), default=0.0), max((x.bandwidth_bytes_per_s for x in links), default=math.inf))


def without_coordinator(problem: Problem) -> Problem:
    """The problem without what depends on where the coordinator is; no round trip is longer."""
    return replace(problem, coordinator=(), return_hop=False) if problem.coordinator else problem


def without_pools(problem: Problem) -> Problem:
    nodes = tuple(replace(node, pool_id=None) for node in problem.nodes)
    return replace(problem, nodes=nodes, pools=())


def relaxation(problem: Problem) -> Problem:
    """The best link for all, no shared memory, no way to the coordinator: no placement gets worse."""
    return without_pools(replace(without_coordinator(problem), links=best_link(problem)))
