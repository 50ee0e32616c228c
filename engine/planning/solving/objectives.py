"""The five strategies over the general label search: each one's objective and tie-breaks, in exact phases.

`key` tuples are what a strategy minimises, in order; the enumerating reference of the tests computes the same tuples.

balanced            as many nodes in use as can be (all of them if they fit), then the bottleneck, then the sum of squares of
                    the stages' compute times, then the round trip
bottleneck_first    stage costs in descending order, compared one by one (a shorter list first where one is the other's start)
memory_aware        largest used / available memory over nodes and shared pools, among plans with a bottleneck of at most
                    1.05 times the smallest one; then the bottleneck
latency_optimized   P(m), then the bottleneck
cost                summed price of the nodes in use times P(m), then the number of nodes, then P(m)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from engine.planning.solving.exact import BOTTLENECK, Solver
from engine.planning.solving.grid import Grid
from engine.planning.solving.label_search import Bounds, Found, Goal, StageCost, extend_ratio
from engine.planning.solving.rounding import CERTAIN, TOLD_APART_BITS, cost_slack_s
from engine.planning.solving.strategy_keys import BOTTLENECK_SLACK
from engine.planning.solving.tables import Chain

if TYPE_CHECKING:
    from engine.planning.solving.prices.additive_search import Trip


def _extend_descending(value: tuple[float, ...], step: StageCost) -> tuple[float, ...]:
    at = len(value)
    while at and value[at - 1] < step.cost_s:
        at -= 1
    return (*value[:at], step.cost_s, *value[at:])


def _extend_latency(value: tuple[float, float], step: StageCost) -> tuple[float, float]:
    return value[0] + step.spent_s, max(value[1], step.cost_s)


DESCENDING = Goal((), _extend_descending)
LATENCY = Goal((0.0, 0.0), _extend_latency)
RATIO = Goal(0.0, extend_ratio)
TRIP = Goal(0.0, lambda value, step: value + step.spent_s, trades_price=True)


@dataclass(frozen=True, slots=True)
class Best:
    """The chain that was found, how, and whether the tie-breaks were searched; the objective is optimal in any case."""

    chain: Chain
    method: str
    ties_searched: bool = True


def _balanced(solver: Solver) -> Best | None:
    square = solver.tables.times.square

    def extend(value: tuple[float, float], step: StageCost) -> tuple[float, float]:
        return value[0] + square(step.compute_s), value[1] + step.spent_s

    for bounds in _most_stages_first(solver):
        fastest = solver.bottleneck(bounds)
        if fastest is not None:
            return _tie(solver, Goal((0.0, 0.0), extend), replace(bounds, cost_s=fastest[0]), fastest[1])
    return None


def _most_stages_first(solver: Solver) -> Iterator[Bounds]:
    """The same bounds with exactly as many stages as possible, then one fewer, and so on."""
    fewest, most = solver.bounds.stages
    for count in range(min(most, solver.tables.n), fewest - 1, -1):
        yield replace(solver.bounds, stages=(count, count))


def _bottleneck_first(solver: Solver) -> Best | None:
    if solver.exact or solver.is_counted:
        descent = solver.descent()
        if descent is None:
            return None
        if descent.decide_rest() and solver.has_its_count(descent.chain):
            return Best(descent.chain, "threshold search over sets of nodes")
        if solver.exact:
            return _leximin(solver, descent.bottleneck_s, descent.chain)
    fastest = solver.bottleneck(solver.bounds)
    return None if fastest is None else _leximin(solver, *fastest)


def _leximin(solver: Solver, bottleneck_s: float, chain: Chain) -> Best:
    """Stage costs one by one, where two that only rounding tells apart are equal: else what comes after them would not be compared."""
    coarse = Grid.of_tick(math.ldexp(1.0, math.frexp(bottleneck_s)[1] - TOLD_APART_BITS)) if bottleneck_s > 0 else Grid()

    def extend(value: tuple[float, ...], step: StageCost) -> tuple[float, ...]:
        return _extend_descending(value, replace(step, cost_s=coarse.rounded(step.cost_s)))

    return _tie(solver, Goal((), extend), replace(solver.bounds, cost_s=bottleneck_s), chain)


def _memory_aware(solver: Solver) -> Best | None:
    fastest = solver.bottleneck(solver.bounds)
    if fastest is None:
        return None
    limit_s = solver.bounds.cost_s
    most_s = BOTTLENECK_SLACK * fastest[0] if limit_s == math.inf else limit_s
    if solver.exact:
        return Best(solver.emptiest(most_s, *fastest), "threshold search over sets of nodes")
    if solver.is_counted_within and solver.has_its_count(fastest[1]):
        chain = solver.emptiest(most_s, *fastest)
        if solver.has_its_count(chain):
            return Best(chain, "threshold search over sets of nodes")
    near = replace(solver.bounds, cost_s=most_s)
    emptiest = solver.search_within(RATIO, near)
    return None if emptiest is None else _tie(solver, BOTTLENECK, replace(near, ratio=emptiest.value), emptiest.chain)


def _latency_optimized(solver: Solver) -> Best | None:
    in_flight = solver.tables.problem.in_flight
    if solver.additive_exact:
        return _trip(solver.shortest_period(in_flight))
    if in_flight == 1:
        return _found(solver.search.best(LATENCY, solver.bounds))

    def period(found: Found) -> tuple[float, float]:
        return max(found.value, found.round_trip_s / in_flight), found.value

    return _found(min(solver.search.every(replace(BOTTLENECK, trades_round_trip=True), solver.bounds), key=period, default=None))


def _cost(solver: Solver) -> Best | None:
    in_flight = solver.tables.problem.in_flight
    if solver.additive_exact and in_flight == 1:
        return _trip(solver.shortest(priced=True))
    goal = TRIP if in_flight == 1 else replace(BOTTLENECK, trades_round_trip=True, trades_price=True)

    def price(found: Found) -> tuple[float, int, float]:
        period = found.value if in_flight == 1 else max(found.value, found.round_trip_s / in_flight)
        return found.price * period, found.num_stages, period

    return _found(min(solver.search.every(goal, solver.bounds), key=price, default=None))


def _trip(trip: Trip | None) -> Best | None:
    return None if trip is None else Best(trip.chain, "additive programme over sets of nodes", trip.ties_searched)


def _tie(solver: Solver, goal: Goal, bounds: Bounds, chain: Chain) -> Best:
    """The best chain by `goal` within the bounds that `chain` keeps, but for rounding; `chain` itself if there are too many to compare."""
    near_s = bounds.cost_s + min(2 * cost_slack_s(solver.tables), CERTAIN / 2 * bounds.cost_s)
    found = solver.search_within(goal, replace(bounds, cost_s=near_s))
    return Best(found.chain, "labels within the optimum") if found else Best(chain, "threshold search", ties_searched=False)


def _found(found: Found | None) -> Best | None:
    return None if found is None else Best(found.chain, "labels")


OBJECTIVES: dict[str, Callable[[Solver], Best | None]] = {
    "balanced": _balanced,
    "bottleneck_first": _bottleneck_first,
    "memory_aware": _memory_aware,
    "latency_optimized": _latency_optimized,
    "cost": _cost,
}
