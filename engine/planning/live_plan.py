"""In which order the nodes of a running cluster should stand: as they do, unless another order pays.

The nodes of the problem are listed in their present order. Times and links are measurements, so among equal nodes the order
of least cost follows the noise, and every change of order moves layers. Therefore the best plan in the present order is kept
unless the best of all orders has an objective, or with no worse objective a round trip, that is smaller by `PAYS` and by no
less than `PAYS_S` or `PAYS_ROOM`.

A cluster plans while it serves, so the search is bounded, in operations and not in time. Where all orders are too many, the
order that is best with the best link for every pair is tried; that search also bounds every order's objective from below. Where
even the present order is too much to search exactly, `prompt` finds plans by arrays, and their gap is what is known of them.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from functools import lru_cache

from engine.data.plan import Plan
from engine.planning.constraints import PlanningConstraints
from engine.planning.problem import OVERLAPPED, Infeasible, Link, Problem, TooHard
from engine.planning.solution import Solution
from engine.planning.solving.exact import relaxation
from engine.planning.solving.label_search import TooLarge, Work
from engine.planning.strategies import check_strategy, plan_of, shortage, solve, solve_exactly

PAYS = 0.1  # a share of the objective: more than two measurements of equal nodes usually differ
PAYS_S = 1e-3  # what one hop more costs on a busy machine; tiny models are measured no more exactly
PAYS_ROOM = 0.01  # of a memory
MOST_EQUAL = 400_000  # sets of nodes x nodes x items where all links are equal: about 0.1 s at most
MOST_UNLIKE = 300_000  # sets x first nodes x last nodes x stages where they are not
MOST_COSTS = 1_500_000  # nodes x items^2; 8 bytes each, several times over where memory is shared
MOST_STAGES = 500_000  # told apart in the present order; beyond, an exact search is not begun
_UNFOUND = (
    "no placement was found while serving, in the present order of the nodes or in one near it: give a node more --memory, start "
    "another one, or leave nodes that share a memory out"
)
PROMPT_WORK = 75_000  # of all label searches for one plan: about a quarter of a second


def stable_plan(problem: Problem, strategy: str, plan_version: int) -> Plan:
    """`solve_stable` as the plan of a running cluster."""
    return replace(_remembered(problem, strategy), plan_version=plan_version)


@lru_cache(maxsize=16)
def _remembered(problem: Problem, strategy: str) -> Plan:
    """A preview, the move that follows it and what adaptation looks at meanwhile ask for the same."""
    return plan_of(solve_stable(problem, strategy), 0)


def solve_stable(problem: Problem, strategy: str) -> Solution:
    """`lower_bound` and `optimal` are about every order if all were searched or bounded, and about the present one where that
    was too much. Raises InvalidInput or Infeasible (TooHard if no plan was found by trying)."""
    check_strategy(strategy)
    if not problem.free_order or len(problem.nodes) == 1:
        return solve(problem, strategy)
    if not is_prompt(problem):
        return _stable(problem, strategy, None)
    if num_stages(problem) <= MOST_STAGES:
        try:
            return _stable(problem, strategy, Work(PROMPT_WORK, counts_comparisons=True))
        except TooLarge:
            pass
    return _promptly(problem, strategy)


def _stable(problem: Problem, strategy: str, work: Work | None) -> Solution:
    """Exact searches; raises TooLarge beyond `work`, and without it takes as long as it takes."""
    kept = _solved(replace(problem, free_order=False), strategy, work)
    if is_searchable(problem):
        other = _solved(problem, strategy, work)
        lower_bound = other.lower_bound if other is not None else 0.0
    else:
        other, lower_bound = _likely(problem, strategy, work)
    certain = lower_bound > 0.0 or is_searchable(problem)
    return _better(problem, strategy, kept, other, lower_bound if certain else None)


def is_prompt(problem: Problem) -> bool:
    """Whether arrays can plan it; what a running cluster asks they can, up to some hundred nodes or items."""
    plain = problem.constraints == PlanningConstraints() and not problem.use_all_nodes and problem.link_cost == OVERLAPPED
    return plain and len(problem.nodes) * len(problem.items) ** 2 <= MOST_COSTS


def _promptly(problem: Problem, strategy: str) -> Solution:
    from engine.planning.solving.order_bounds import Certificate
    from engine.planning.solving.order_search import prompt_plans

    looser, relaxed = relaxation(problem), None
    if is_searchable(looser):
        with contextlib.suppress(TooLarge):
            relaxed = solve_exactly(looser, strategy, Work(PROMPT_WORK, counts_comparisons=True))
    found = prompt_plans(problem, strategy, Certificate(problem, relaxed))
    if found.kept is None and found.other is None:
        return _last_resort(problem, strategy)
    return _better(problem, strategy, found.kept, found.other, None)


def _last_resort(problem: Problem, strategy: str) -> Solution:
    """Where memory is shared in a way that trying misses: a plan a second late is better than none."""
    for candidate in (replace(problem, free_order=False), problem):
        with contextlib.suppress(TooLarge):
            found = _solved(candidate, strategy, Work(2 * PROMPT_WORK, counts_comparisons=True))
            if found is not None:
                return replace(found, lower_bound=0.0, optimal=False)
    raise TooHard(_UNFOUND)


def _better(problem: Problem, strategy: str, kept: Solution | None, other: Solution | None, lower_bound: float | None) -> Solution:
    """The plan in the present order unless the other one pays; None: the bound is the plan's own."""
    if kept is None and other is None:
        raise Infeasible(shortage(problem))
    best = other if kept is None or (other is not None and pays(other, kept)) else kept
    if best is None:
        raise AssertionError("one of the two was found")
    bound = best.lower_bound if lower_bound is None else lower_bound
    optimal = best.optimal and best.objective <= bound
    return replace(best, lower_bound=min(bound, best.objective), optimal=optimal)


def pays(other: Solution, present: Solution) -> bool:
    """Whether `other` is enough better to change the order for it."""
    if other.strategy == "balanced" and len(other.stages) != len(present.stages):
        return len(other.stages) > len(present.stages)
    if other.strategy == "memory_aware" and other.bottleneck_s < (1.0 - PAYS) * present.bottleneck_s:
        # it compares memory among the fast plans of all orders, and the present order has none of them
        return _saves(other.bottleneck_s, present.bottleneck_s)
    least = {"memory_aware": PAYS_ROOM, "cost": 0.0}.get(other.strategy, PAYS_S)
    if _saves(other.objective, present.objective, least):
        return True
    return other.objective <= present.objective and _saves(other.round_trip_s, present.round_trip_s)


def _saves(this: float, instead_of: float, least: float = PAYS_S) -> bool:
    return this < (1.0 - PAYS) * instead_of and instead_of - this >= least


def is_searchable(problem: Problem) -> bool:
    """Whether all orders can be searched in about a tenth of a second."""
    num_nodes, n = len(problem.nodes), len(problem.items)
    if isinstance(problem.links, Link) and problem.equal_ends:
        return 2**num_nodes * num_nodes * n <= MOST_EQUAL
    return 2**num_nodes * (num_nodes * n) ** 2 <= MOST_UNLIKE


def num_stages(problem: Problem) -> int:
    """Stages that a search of the present order tells apart: with a link per pair, by the node that follows and by the first one."""
    n, num_nodes = len(problem.items), len(problem.nodes)
    return n * n * num_nodes * (1 if isinstance(problem.links, Link) and problem.equal_ends else num_nodes**2)


def _solved(problem: Problem, strategy: str, work: Work | None) -> Solution | None:
    try:
        return solve(problem, strategy) if work is None else solve_exactly(problem, strategy, work)
    except Infeasible:
        return None


def _likely(problem: Problem, strategy: str, work: Work | None) -> tuple[Solution | None, float]:
    """A plan in the order that would be best if every link were the best one, and a lower bound for every order (0: none)."""
    looser = relaxation(problem)
    if not is_searchable(looser):
        return None, 0.0
    found = _solved(looser, strategy, work)
    if found is None:
        return None, 0.0
    first = [node for node, _, _ in found.cuts]
    order = [*first, *(u for u in range(len(problem.nodes)) if u not in first)]
    tried = _solved(replace(problem, nodes=tuple(problem.nodes[u] for u in order), free_order=False), strategy, work)
    # under memory_aware and balanced the looser problem may use a faster bottleneck or more nodes, so it bounds nothing there
    bounds = strategy in ("bottleneck_first", "latency_optimized", "cost")
    return tried, found.lower_bound if bounds else 0.0
