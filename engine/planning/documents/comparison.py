"""All strategies on one problem beside the plan that runs: what `noodle-engine plan --compare` shows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engine.planning.documents.partition_plan import CURRENT, PartitionPlan
from engine.planning.documents.plan_diff import PlanDiff, diff
from engine.planning.live_plan import solve_stable
from engine.planning.problem import Infeasible, Problem
from engine.planning.strategies import STRATEGIES, solve


@dataclass(frozen=True, slots=True)
class ComparedPlan:
    """One strategy's plan, or why it has none; `moves` from the running plan, None without one."""

    strategy: str
    plan: PartitionPlan | None = None
    moves: PlanDiff | None = None
    failure: str = ""


def compare(
    problem: Problem, running: PartitionPlan | None, now_s: Callable[[], float], strategies: Sequence[str] = STRATEGIES
) -> tuple[ComparedPlan, ...]:
    """The running plan first, then every strategy; beside a running plan its order is kept unless another pays.

    `now_s` is the caller's clock, for the time that each took to solve.
    """
    rows = [] if running is None else [ComparedPlan(CURRENT, running)]
    for strategy in strategies:
        began_s = now_s()
        try:
            solution = solve_stable(problem, strategy) if running else solve(problem, strategy)
        except Infeasible as error:
            rows.append(ComparedPlan(strategy, failure=str(error)))
            continue
        plan = PartitionPlan.of(problem, solution, model=running.model if running else "", solve_ms=1e3 * (now_s() - began_s))
        rows.append(ComparedPlan(strategy, plan, diff(running, plan) if running else None))
    return tuple(rows)
