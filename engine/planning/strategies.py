"""From a strategy's name to a plan: the one entry to the solvers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from engine.data.errors import InvalidInput
from engine.data.plan import Plan, Stage
from engine.planning.problem import Infeasible, Problem
from engine.planning.solution import Costs, Cut, Solution, evaluate
from engine.planning.solving.exact import Solver
from engine.planning.solving.interchangeable import interchangeable, last_matters
from engine.planning.solving.label_search import TooLarge, Work
from engine.planning.solving.objectives import OBJECTIVES, Best
from engine.planning.solving.strategy_keys import key_of, solution_of

STRATEGIES = tuple(OBJECTIVES)
HOPELESS = 1e4
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
    """The best placement of all; raises TooLarge where that takes more than `work`, or more than any search may."""
    check_strategy(strategy)
    found = _exact(problem, strategy, work)
    finer = _without_hopeless(problem, found)
    return found if finer is None else _exact(finer, strategy, work)


def _without_hopeless(problem: Problem, found: Solution) -> Problem | None:
    """The problem without items on nodes where they take far longer than the whole of a known plan, None if there are none.

    Such times (1e9 to say "never") would coarsen the grid of all the others. No better plan contains one: its bottleneck
    would be larger. Under `cost` that does not follow, so nothing is taken away.
    """
    never_s = HOPELESS * max(found.period_s, found.bottleneck_s)
    if found.strategy == "cost" or never_s <= 0 or not any(never_s < t < math.inf for node in problem.nodes for t in node.time_s):
        return None
    nodes = (replace(n, time_s=tuple(math.inf if t > never_s else t for t in n.time_s)) for n in problem.nodes)
    return replace(problem, nodes=tuple(nodes))


def _exact(problem: Problem, strategy: str, work: Work | None) -> Solution:
    orders = _given_orders(problem, strategy)
    found = [answer for given, nodes in orders if (answer := _solve(given, nodes, problem, strategy, work)) is not None]
    if not found:
        raise Infeasible(shortage(problem))
    best, cuts, costs = min(found, key=lambda answer: key_of(problem, strategy, answer[2]))
    return solution_of(strategy, cuts, costs, math.inf, optimal=True, method=best.method, ties_searched=best.ties_searched)


def _solve(
    given: Problem, nodes: Sequence[int], problem: Problem, strategy: str, work: Work | None
) -> tuple[Best, tuple[Cut, ...], Costs] | None:
    """One equivalent of the problem, whose node k is nodes[k] of the real one."""
    solver = Solver(given, work)
    if solver.too_many:
        raise TooLarge
    best = OBJECTIVES[strategy](solver)
    if best is None:
        return None
    cuts = tuple((nodes[u], start, stop) for u, start, stop in solver.tables.cuts(best.chain))
    return best, cuts, evaluate(problem, cuts)


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
