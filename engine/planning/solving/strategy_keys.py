"""What each strategy minimises, in order, as a tuple of one placement's costs; objectives.py says it in words."""

from __future__ import annotations

from engine.planning.problem import Problem
from engine.planning.solution import Costs, Cut, Solution


def objective_of(strategy: str, costs: Costs) -> float:
    """What `strategy` minimises first (after the number of nodes in use, under `balanced`)."""
    return {
        "balanced": costs.bottleneck_s,
        "bottleneck_first": costs.bottleneck_s,
        "memory_aware": costs.memory_ratio,
        "latency_optimized": costs.period_s,
        "cost": costs.price_per_s * costs.period_s,
    }[strategy]


def key_of(problem: Problem, strategy: str, costs: Costs) -> tuple:
    """The whole key; smaller is better."""
    if strategy == "balanced":
        return -len(costs.stages), costs.bottleneck_s, sum(s.time_s**2 for s in costs.stages), costs.round_trip_s
    if strategy == "bottleneck_first":
        return sorted((problem.stage_cost_s(s.time_s, s.hop_s) for s in costs.stages), reverse=True), len(costs.stages)
    if strategy == "cost":
        return objective_of(strategy, costs), len(costs.stages), costs.period_s
    return objective_of(strategy, costs), costs.bottleneck_s


def solution_of(
    strategy: str, cuts: tuple[Cut, ...], costs: Costs, bound: float, *, optimal: bool, method: str, ties_searched: bool = False
) -> Solution:
    """A placement with its certificate; no placement's objective is below `bound`, which says nothing more if it is `optimal`."""
    objective = objective_of(strategy, costs)
    lower_bound = objective if optimal else min(bound, objective)
    figures = costs.stages, costs.bottleneck_s, costs.round_trip_s, costs.period_s
    return Solution(strategy, cuts, *figures, objective, lower_bound, optimal, method, ties_searched)
