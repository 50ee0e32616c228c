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
from collections.abc import Callable
from dataclasses import dataclass, replace

from engine.planning.labels import Found, Goal, LabelSearch, Limits, Step, Value, extend_ratio
from engine.planning.tables import Chain

BOTTLENECK_SLACK = 1.05


def _extend_bottleneck(value: float, step: Step) -> float:
    return max(value, step.cost_s)


def _extend_descending(value: tuple[float, ...], step: Step) -> tuple[float, ...]:
    at = len(value)
    while at and value[at - 1] < step.cost_s:
        at -= 1
    return (*value[:at], step.cost_s, *value[at:])


def _extend_latency(value: tuple[float, float], step: Step) -> tuple[float, float]:
    return value[0] + step.spent_s, max(value[1], step.cost_s)


BOTTLENECK = Goal(0.0, _extend_bottleneck)
DESCENDING = Goal((), _extend_descending)
LATENCY = Goal((0.0, 0.0), _extend_latency)
RATIO = Goal(0.0, extend_ratio)


@dataclass(frozen=True, slots=True)
class Best:
    """An optimal chain with the value of the strategy's objective on the grid."""

    chain: Chain
    objective: float


def limits_of(search: LabelSearch) -> Limits:
    """The problem's own bounds on a chain."""
    problem, num_nodes = search.tables.problem, len(search.tables.nodes)
    most = min(problem.constraints.max_stages or num_nodes, num_nodes)
    fewest = num_nodes if problem.use_all_nodes else 1
    return Limits(round_trip_s=problem.constraints.latency_limit_s, stages=(fewest, most))


def _balanced(search: LabelSearch, limits: Limits) -> Best | None:
    best = min(search.every(BOTTLENECK, limits), key=lambda found: (-found.num_stages, found.value), default=None)
    if best is None:
        return None
    square = search.tables.square

    def extend(value: tuple[float, float], step: Step) -> tuple[float, float]:
        return value[0] + square(step.compute_s), value[1] + step.spent_s

    even = search.best(Goal((0.0, 0.0), extend), replace(limits, cost_s=best.value, stages=(best.num_stages, best.num_stages)))
    return _best(even, best.value)


def _bottleneck_first(search: LabelSearch, limits: Limits) -> Best | None:
    best = search.best(DESCENDING, limits)
    return best and _best(best, best.value[0])


def _memory_aware(search: LabelSearch, limits: Limits) -> Best | None:
    fastest = search.best(BOTTLENECK, limits)
    if fastest is None:
        return None
    near = replace(limits, cost_s=BOTTLENECK_SLACK * fastest.value)
    emptiest = search.best(RATIO, near)
    if emptiest is None:
        return None
    return _best(search.best(BOTTLENECK, replace(near, ratio=emptiest.value)), emptiest.value)


def _latency_optimized(search: LabelSearch, limits: Limits) -> Best | None:
    in_flight = search.tables.problem.in_flight
    if in_flight == 1:
        best = search.best(LATENCY, limits)
        return best and _best(best, best.value[0])

    def period(found: Found) -> tuple[float, float]:
        return max(found.value, found.round_trip_s / in_flight), found.value

    found = min(search.every(replace(BOTTLENECK, trades_round_trip=True), limits), key=period, default=None)
    return found and _best(found, period(found)[0])


def _cost(search: LabelSearch, limits: Limits) -> Best | None:
    in_flight = search.tables.problem.in_flight
    goal = Goal(0.0, lambda value, step: value + step.spent_s) if in_flight == 1 else replace(BOTTLENECK, trades_round_trip=True)

    def price(found: Found) -> tuple[float, int, float]:
        period = found.value if in_flight == 1 else max(found.value, found.round_trip_s / in_flight)
        return found.price * period, found.num_stages, period

    found = min(search.every(replace(goal, trades_price=True), limits), key=price, default=None)
    return found and _best(found, price(found)[0])


def _best(found: Found | None, objective: Value) -> Best | None:
    return None if found is None or math.isnan(objective) else Best(found.chain, objective)


OBJECTIVES: dict[str, Callable[[LabelSearch, Limits], Best | None]] = {
    "balanced": _balanced,
    "bottleneck_first": _bottleneck_first,
    "memory_aware": _memory_aware,
    "latency_optimized": _latency_optimized,
    "cost": _cost,
}
