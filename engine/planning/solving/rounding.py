"""What the grid of `tables` can have hidden, and how a problem is read so that it hides less.

Every number on the grid is off by at most half a step, so a stage's cost is off by `(items + 2) / 2` steps and a round trip by
`(items + 2 stages + 2) / 2`. The best chain of the grid is then no further above the optimum than twice that: its figure, lowered
by so much, is a lower bound whatever the numbers are. It counts as the optimum where that is less than `CERTAIN` of it.

Where times that mean "never" stand beside microseconds it is more. A plan that is known then tells which numbers no better plan
can contain; they count as twice the known plan (`reading_below`), which leaves every better plan as it was and every other one
worse than the known one, and makes the grid as fine as the plans that matter.
"""

from __future__ import annotations

import math
from itertools import pairwise

from engine.planning.problem import Problem
from engine.planning.solution import Costs
from engine.planning.solving.stage_times import PLAIN, Reading
from engine.planning.solving.strategy_keys import BOTTLENECK_SLACK, objective_of
from engine.planning.solving.tables import Tables

CERTAIN = 1e-9  # of an objective: differences below it are rounding
TOLD_APART_BITS = 32  # of a stage's cost: two that are closer are equal, for rounding alone could have told them apart


def cost_slack_s(tables: Tables) -> float:
    """How far a stage's cost on the grid can be from the true one."""
    return 0.5 * (tables.n + 2) * tables.times.grid.tick


def trip_slack_s(tables: Tables) -> float:
    """How far a round trip on the grid can be from the true one."""
    return 0.5 * (tables.n + 2 * min(sum(tables.size), tables.n) + 2) * tables.times.grid.tick


def lowered(tables: Tables, strategy: str, objective: float, costs: Costs) -> float:
    """A bound of every placement's objective, from the one that is best on the grid; `costs` are its true ones."""
    limit_s = tables.problem.constraints.latency_limit_s
    if costs.round_trip_s > limit_s or (limit_s < math.inf and trip_slack_s(tables) > CERTAIN * limit_s):
        return 0.0  # the grid decides which plans are within the limit
    if strategy == "memory_aware":  # memory is exact, but the grid decides which plans are within the bottleneck
        return objective if 2 * cost_slack_s(tables) <= CERTAIN * costs.bottleneck_s else 0.0
    if strategy == "cost":
        return objective * _sure_share(tables) ** 2
    return max(0.0, objective - 2 * slack(tables, strategy))


def slack(tables: Tables, strategy: str) -> float:
    """How far an objective in seconds on the grid, or the period that a price is multiplied by, can be from the true one."""
    if strategy in ("latency_optimized", "cost"):
        return max(cost_slack_s(tables), trip_slack_s(tables) / tables.problem.in_flight)
    return cost_slack_s(tables)


def is_blurred(tables: Tables, strategy: str, bottleneck_s: float) -> bool:
    """Whether the grid is so coarse that it pays to read the problem again, below a plan of this bottleneck."""
    return slack(tables, strategy) > CERTAIN * bottleneck_s


def _sure_share(tables: Tables) -> float:
    """What a price times a period on the grid is at least of the true one, or the other way round."""
    least_s, least_price = _least_period_s(tables), min((p for p in tables.price if p > 0), default=math.inf)
    hidden_price = 0.5 * sum(tables.size) * tables.price_grid.tick
    return max(0.0, 1 - _ratio(slack(tables, "cost"), least_s)) * max(0.0, 1 - _ratio(hidden_price, least_price))


def _ratio(hidden: float, least: float) -> float:
    return 0.0 if hidden <= 0 else hidden / (least - hidden) if least > hidden else math.inf


def _least_period_s(tables: Tables) -> float:
    """No chain has a smaller period: the stage that holds an item takes as long as the item, or as the shortest stage there."""
    times = [[b - a for a, b in pairwise(row)] for row in tables.times.prefix]
    trips = [[b - a for a, b in pairwise(row)] for row in tables.times.trip_prefix]
    least = [min(table) if table else base for table, base in zip(tables.times.table, tables.times.base, strict=True)]
    able = [[c for c in range(len(least)) if tables.limit[c][i] > i] for i in range(tables.n)]
    longest = max(
        min((least[c] + (0.0 if tables.times.table[c] else times[c][i]) for c in some), default=0.0) for i, some in enumerate(able)
    )
    if any(tables.times.table):
        return longest
    return max(longest, math.fsum(min((trips[c][i] for c in some), default=0.0) for i, some in enumerate(able)) / tables.problem.in_flight)


def reading_below(problem: Problem, strategy: str, costs: Costs) -> Reading:
    """For plans as good as one with these costs; nothing is bounded where that plan costs nothing."""
    objective = objective_of(strategy, costs) if strategy != "memory_aware" else BOTTLENECK_SLACK * costs.bottleneck_s
    floor = min((node.price_per_s for node in problem.nodes if node.price_per_s > 0), default=1.0) if strategy == "cost" else None
    most, most_s = 2 * objective, 2 * objective / (floor or 1.0)
    if most <= 0 or not math.isfinite(most_s):
        return PLAIN
    limit_s = problem.constraints.latency_limit_s
    least_s = 2 * limit_s if limit_s < math.inf else 0.0  # the limit must go on to bind
    most_back_s = max(most_s * problem.in_flight, least_s)
    return Reading(most, max(most_s, least_s), most_back_s, least_s, floor)
