"""From a strategy's name to a plan: the one entry to the solvers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from engine.data.errors import InvalidInput
from engine.data.plan import Plan, Stage
from engine.planning.problem import Infeasible, Problem
from engine.planning.solution import Costs, Cut, Solution, evaluate
from engine.planning.solving.exact import Solver
from engine.planning.solving.interchangeable import interchangeable, last_matters
from engine.planning.solving.label_search import TooLarge, Work
from engine.planning.solving.objectives import OBJECTIVES, Best
from engine.planning.solving.rounding import CERTAIN, lowered, reading_below
from engine.planning.solving.strategy_keys import key_of, objective_of, solution_of
from engine.planning.solving.tables import PLAIN, Reading, Tables

STRATEGIES = tuple(OBJECTIVES)
MOST_UNROUNDED = 300_000  # work of a label search without a grid: about a second
UNROUNDED = Reading(has_grid=False)
FEW = 20  # items x nodes; smaller problems are searched as they are


def check_strategy(name: str) -> str:
    """Return `name` if there is such a strategy; else raise InvalidInput listing them."""
    if name not in STRATEGIES:
        raise InvalidInput(f"strategy {name[:80]!r} is unknown: choose one of {', '.join(STRATEGIES)}")
    return name


def solve(problem: Problem, strategy: str) -> Solution:
    """The best placement under `strategy` with its certificate; raises InvalidInput or Infeasible."""
    try:
        return solve_exactly(problem, strategy)
    except TooLarge:
        from engine.planning.solving.beam_plan import solve_large

        return solve_large(problem, strategy)


def forget_tables() -> None:
    """Drop what earlier problems left for later ones, so that a benchmark can time a first solve."""
    from engine.planning.solving.node_sets import whole_space

    whole_space.cache_clear()


def solve_exactly(problem: Problem, strategy: str, work: Work | None = None) -> Solution:
    """The best placement of all; raises TooLarge where that takes more than `work`, or more than any search may.

    Numbers of very unlike sizes can leave it open whether the placement is the best; then the problem is read again, more finely
    each time, and at last without a grid.
    """
    check_strategy(strategy)
    try:
        found = _exact(problem, strategy, work, PLAIN)
    except Infeasible:
        if problem.constraints.latency_limit_s == math.inf:
            raise
        return _exact(problem, strategy, Work(MOST_UNROUNDED), UNROUNDED)
    while not found.optimal:
        finer = _exact(problem, strategy, work, reading_below(problem, strategy, evaluate(problem, found.cuts)))
        is_last = finer.objective > 0.5 * found.objective
        known = found.lower_bound if strategy != "memory_aware" else 0.0
        found = replace(finer, lower_bound=max(known, finer.lower_bound))
        if is_last:
            break
    return found if found.optimal else _unrounded(problem, strategy, found)


def _unrounded(problem: Problem, strategy: str, found: Solution) -> Solution:
    """Searched without a grid, where that is not too much; else what is known."""
    try:
        return _exact(problem, strategy, Work(MOST_UNROUNDED), UNROUNDED)
    except TooLarge:
        if found.round_trip_s > problem.constraints.latency_limit_s:
            raise
        return found


def _exact(problem: Problem, strategy: str, work: Work | None, reading: Reading) -> Solution:
    orders = _given_orders(problem, strategy)
    found = [answer for given, nodes in orders if (answer := _solve(given, nodes, problem, strategy, work, reading)) is not None]
    if not found:
        raise Infeasible(shortage(problem))
    best = min(found, key=lambda answer: key_of(problem, strategy, answer.costs))
    objective = objective_of(strategy, best.costs)
    bound = min(lowered(answer.tables, strategy, objective, best.costs) for answer in found)
    is_optimal = bound >= objective * (1 - CERTAIN)
    chosen = best.best
    return solution_of(strategy, best.cuts, best.costs, bound, optimal=is_optimal, method=chosen.method, ties_searched=chosen.ties_searched)


@dataclass(frozen=True, slots=True)
class _Answer:
    """The best chain of one equivalent of the problem, placed on the real nodes."""

    best: Best
    tables: Tables
    cuts: tuple[Cut, ...]
    costs: Costs


def _solve(given: Problem, nodes: Sequence[int], problem: Problem, strategy: str, work: Work | None, reading: Reading) -> _Answer | None:
    """One equivalent of the problem, whose node k is nodes[k] of the real one."""
    solver = Solver(given, work, reading)
    if solver.too_many:
        raise TooLarge
    best = OBJECTIVES[strategy](solver)
    if best is None:
        return None
    cuts = tuple((nodes[u], start, stop) for u, start, stop in solver.tables.cuts(best.chain))
    return _Answer(best, solver.tables, cuts, evaluate(problem, cuts))


def _given_orders(problem: Problem, strategy: str) -> Iterator[tuple[Problem, Sequence[int]]]:
    """The problem itself; or, where any order of the nodes is as good, problems in a given order that together equal it.

    memory_aware compares with the best bottleneck of all orders, so several orders cannot be solved one by one.
    """
    everyone = range(len(problem.nodes))
    many = interchangeable(problem) and last_matters(problem)
    if len(problem.items) * len(problem.nodes) <= FEW or not interchangeable(problem) or (many and strategy == "memory_aware"):
        yield problem, everyone
        return
    for last in everyone if many else everyone[-1:]:
        nodes = [*(u for u in everyone if u != last), last]
        yield replace(problem, nodes=tuple(problem.nodes[u] for u in nodes), free_order=False), nodes


def shortage(problem: Problem) -> str:
    """What a refusal says at once; `explain.explain_infeasible` finds the smallest change by solving again."""
    need, rooms = problem.stage_bytes(0, len(problem.items)), {pool.pool_id: 0.0 for pool in problem.pools}
    for u, node in enumerate(problem.nodes):
        key = node.node_id if node.pool_id is None else node.pool_id
        rooms[key] = rooms.get(key, 0.0) + max(0.0, problem.room_bytes(u) - node.buffer_bytes)
    limits = {pool.pool_id: pool.memory_bytes for pool in problem.pools}
    have = sum(min(room, limits.get(key, room)) for key, room in rooms.items())
    return (
        f"no placement satisfies every limit: the model needs {need / 1e6:.0f} MB for weights and KV, the {len(problem.nodes)} nodes "
        f"together offer {have / 1e6:.0f} MB: add a worker, give one more --memory, or choose a smaller model"
    )


def make_plan(problem: Problem, strategy: str, plan_version: int) -> Plan:
    """Solve `problem` and return the plan; raises InvalidInput or Infeasible."""
    return plan_of(solve(problem, strategy), plan_version)


def plan_of(found: Solution, plan_version: int) -> Plan:
    """What a cluster keeps of a solution."""
    return Plan(
        plan_version=plan_version,
        strategy=found.strategy,
        stages=tuple(Stage(stage.node_id, stage.start, stage.stop) for stage in found.stages),
        stage_s=tuple(stage.time_s for stage in found.stages),
        bottleneck_s=found.bottleneck_s,
        round_trip_s=found.round_trip_s,
        lower_bound=found.lower_bound,
        optimal=found.optimal,
        gap=found.gap if found.gap < math.inf else 0.0,
        hop_s=tuple(stage.hop_s for stage in found.stages),
    )
