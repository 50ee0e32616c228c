"""What to minimise: each strategy names an exact objective and the solver for it."""

from __future__ import annotations

from collections.abc import Callable

from engine.data import InvalidInput, Plan, Stage
from engine.planning.fixed_order import Placement, solve_balanced
from engine.planning.problem import Problem

STRATEGIES: dict[str, Callable[[Problem], Placement]] = {"balanced": solve_balanced}


def check_strategy(name: str) -> str:
    """Return `name` if there is such a strategy; else raise InvalidInput listing them."""
    if name not in STRATEGIES:
        raise InvalidInput(f"strategy {name[:80]!r} is unknown: choose one of {', '.join(STRATEGIES)}")
    return name


def make_plan(problem: Problem, strategy: str, plan_version: int) -> Plan:
    """Solve `problem` exactly and return the plan; raises InvalidInput or Infeasible."""
    placement = STRATEGIES[check_strategy(strategy)](problem)
    return Plan(
        plan_version=plan_version,
        strategy=strategy,
        stages=tuple(Stage(problem.nodes[node].node_id, start, stop) for node, start, stop in placement.cuts),
        stage_s=placement.stage_s,
        bottleneck_s=placement.bottleneck_s,
        round_trip_s=placement.round_trip_s,
        lower_bound=placement.bottleneck_s,
        optimal=True,
    )
