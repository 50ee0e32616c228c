"""From a strategy's name to a plan: the one entry to the solvers."""

from __future__ import annotations

from engine.data import InvalidInput, Plan, Stage
from engine.planning.labels import LabelSearch
from engine.planning.objectives import OBJECTIVES, limits_of
from engine.planning.problem import Infeasible, Problem
from engine.planning.solution import Costs, Solution, evaluate
from engine.planning.tables import Tables

STRATEGIES = tuple(OBJECTIVES)


def check_strategy(name: str) -> str:
    """Return `name` if there is such a strategy; else raise InvalidInput listing them."""
    if name not in STRATEGIES:
        raise InvalidInput(f"strategy {name[:80]!r} is unknown: choose one of {', '.join(STRATEGIES)}")
    return name


def solve(problem: Problem, strategy: str) -> Solution:
    """The best placement under `strategy` with its certificate; raises InvalidInput or Infeasible."""
    check_strategy(strategy)
    tables = Tables(problem)
    search = LabelSearch(tables)
    best = OBJECTIVES[strategy](search, limits_of(search))
    if best is None:
        raise Infeasible("nothing fits")
    cuts = tables.cuts(best.chain)
    costs = evaluate(problem, cuts)
    objective = objective_of(strategy, costs)
    return Solution(
        strategy, cuts, costs.stages, costs.bottleneck_s, costs.round_trip_s, costs.period_s, objective, objective, True, method="labels"
    )


def objective_of(strategy: str, costs: Costs) -> float:
    """What `strategy` minimises first, of a placement's costs."""
    return {
        "balanced": costs.bottleneck_s,
        "bottleneck_first": costs.bottleneck_s,
        "memory_aware": costs.memory_ratio,
        "latency_optimized": costs.period_s,
        "cost": costs.price_per_s * costs.period_s,
    }[strategy]


def make_plan(problem: Problem, strategy: str, plan_version: int) -> Plan:
    """Solve `problem` and return the plan; raises InvalidInput or Infeasible."""
    found = solve(problem, strategy)
    return Plan(
        plan_version=plan_version,
        strategy=strategy,
        stages=tuple(Stage(stage.node_id, stage.start, stage.stop) for stage in found.stages),
        stage_s=tuple(stage.time_s for stage in found.stages),
        bottleneck_s=found.bottleneck_s,
        round_trip_s=found.round_trip_s,
        lower_bound=found.lower_bound,
        optimal=found.optimal,
    )
