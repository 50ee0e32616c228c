"""The clairvoyant: knows the whole trace and spends the least that is possible, found by dynamic programming.

It is told of every change, and how long it will last, at the moment it happens; moving takes it as long and costs as much as
everybody else. States are the placements that are best under some condition of the trace, and the first one.
"""

from __future__ import annotations

import math

from engine.control.adaptation.cost import MigrationRates
from engine.data.plan import Stage
from engine.planning.strategies import make_plan
from engine.simulation.adaptation.plant import IN_FLIGHT, best_plan, period_s, problem
from engine.simulation.adaptation.run import DEATH_S, Loss
from engine.simulation.adaptation.traces import Condition, Trace

Stages = tuple[Stage, ...]


def clairvoyant(trace: Trace) -> Loss:
    """The smallest regret, and the migrations that it takes."""
    start = make_plan(problem(trace.started_with), trace.strategy, 1).stages
    states = list(dict.fromkeys([start, *(best_plan(c, trace.strategy).stages for _, c in trace.segments)]))
    losses: dict[Stages, tuple[float, int]] = {start: (0.0, 0)}
    for steps, condition in trace.segments:
        best_s = period_s(best_plan(condition, trace.strategy).stages, condition)
        losses = {state: _cheapest(state, losses, steps, condition, best_s) for state in states}
        losses = {state: loss for state, loss in losses.items() if math.isfinite(loss[0])}
    regret_s, num = min(losses.values())
    return Loss(excess_s=regret_s, num_migrations=num)


def _cheapest(state: Stages, losses: dict[Stages, tuple[float, int]], steps: int, condition: Condition, best_s: float) -> tuple[float, int]:
    """Being in `state` at the end of a segment, having come from any state at its beginning."""
    here_s = period_s(state, condition)
    if math.isinf(here_s):
        return (math.inf, 0)
    return min(
        (before_s + _move_s(source, state, condition, here_s) + steps * (here_s - best_s), num + (source != state))
        for source, (before_s, num) in losses.items()
    )


def _move_s(source: Stages, target: Stages, condition: Condition, target_s: float) -> float:
    """Loading on the old plan, then the migration; a plan that cannot run any more leaves no choice."""
    if source == target:
        return 0.0
    cost = MigrationRates().cost(problem().items, source, target, condition.point.context * IN_FLIGHT)
    source_s = period_s(source, condition)
    if math.isinf(source_s):
        died = any(s.node_id in condition.nodes and condition.leak_bytes.get(s.node_id, 0.0) > 0.0 for s in source)
        return cost.cost_s + (DEATH_S if died else 0.0)
    return cost.cost_s + max(0.0, cost.load_s * (1.0 - target_s / source_s))
