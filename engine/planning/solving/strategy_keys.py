"""What each strategy minimises, in order, as a tuple of one placement's costs; objectives.py says it in words."""

from __future__ import annotations

from engine.planning.problem import Problem
from engine.planning.solution import Costs, Cut, Solution

BOTTLENECK_SLACK = 1.05  # of the smallest bottleneck: what `memory_aware` may spend


def objective_of(strategy: str, costs: Costs) -> float:
    """What `strategy` minimises first (after the number of nodes in use, under `balanced`); seconds are those of a token."""
    return {
        "balanced": costs.bottleneck_s * costs.steps.per_token,
        "bottleneck_first": costs.bottleneck_s * costs.steps.per_token,
        "memory_aware": costs.memory_ratio,
        "latency_optimized": costs.period_s,
        "cost": costs.price_per_s * costs.period_s,
    }[strategy]


def key_of(problem: Problem, strategy: str, costs: Costs) -> tuple:
    """The whole key; smaller is better."""
    each, objective = costs.steps.per_token, objective_of(strategy, costs)
    if strategy == "balanced":
        return -len(costs.stages), objective, sum((s.time_s * each) ** 2 for s in costs.stages), costs.round_trip_s * each
    if strategy == "bottleneck_first":
        stages = sorted((problem.stage_cost_s(s.time_s, s.link_s) * each for s in costs.stages), reverse=True)
        return [max(objective, stages[0]), *stages[1:]], len(costs.stages)
    if strategy == "cost":
        return objective, len(costs.stages), costs.period_s
    return objective, costs.bottleneck_s * each


def solution_of(
    strategy: str, cuts: tuple[Cut, ...], costs: Costs, bound: float, *, optimal: bool, method: str, ties_searched: bool = False
) -> Solution:
    """A placement with its certificate; no placement's objective is below `bound`, which says nothing more if it is `optimal`."""
    objective = objective_of(strategy, costs)
    lower_bound = objective if optimal else min(bound, objective)
    figures = costs.stages, costs.bottleneck_s, costs.round_trip_s, costs.period_s
    return Solution(strategy, cuts, *figures, objective, lower_bound, optimal, method, ties_searched, steps=costs.steps)
