"""In which order the nodes of a running cluster should stand: as they do, unless another order pays.

The nodes of the problem are listed in their present order. Times and links are measurements, so among equal nodes the order
of least cost follows the noise, and every change of order moves layers. Therefore the best plan in the present order is kept
unless the best of all orders has an objective, or with no worse objective a round trip, that is smaller by `PAYS` and by no
less than `PAYS_S` or `PAYS_ROOM`.

A cluster plans while it serves, so the search is bounded. Where all orders are too many, the order that is best with the best
link for every pair is tried; that search also bounds every order's objective from below.
"""

from __future__ import annotations

from dataclasses import replace

from engine.data import Plan
from engine.planning.problem import Infeasible, Link, Problem
from engine.planning.solution import Solution
from engine.planning.solver import best_link, without_coordinator, without_pools
from engine.planning.strategies import plan_of, solve

PAYS = 0.1  # a share of the objective: more than two measurements of equal nodes usually differ
PAYS_S = 1e-3  # what one hop more costs on a busy machine; tiny models are measured no more exactly
PAYS_ROOM = 0.01  # of a memory
MOST_EQUAL = 400_000  # sets of nodes x nodes x items where all links are equal: about 0.1 s at most
MOST_UNLIKE = 300_000  # sets x first nodes x last nodes x stages where they are not


def stable_plan(problem: Problem, strategy: str, plan_version: int) -> Plan:
    """`solve_stable` as the plan of a running cluster."""
    return plan_of(solve_stable(problem, strategy), plan_version)


def solve_stable(problem: Problem, strategy: str) -> Solution:
    """`lower_bound` and `optimal` are about every order if all were searched or bounded, and about the present one where that
    was too much. Raises InvalidInput or Infeasible."""
    if not problem.free_order or len(problem.nodes) == 1:
        return solve(problem, strategy)
    kept = _solved(replace(problem, free_order=False), strategy)
    if is_searchable(problem):
        other = solve(problem, strategy) if kept is None else _solved(problem, strategy)
        lower_bound = other.lower_bound if other is not None else 0.0
    else:
        other, lower_bound = _likely(problem, strategy)
    if kept is None and other is None:
        return solve(replace(problem, free_order=False), strategy)  # says why there is none
    best = other if kept is None or (other is not None and pays(other, kept)) else kept
    if best is None:
        raise AssertionError("one of the two was found")
    certain = lower_bound > 0.0 or is_searchable(problem)
    bound = lower_bound if certain else best.lower_bound
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


def _solved(problem: Problem, strategy: str) -> Solution | None:
    try:
        return solve(problem, strategy)
    except Infeasible:
        return None


def _likely(problem: Problem, strategy: str) -> tuple[Solution | None, float]:
    """A plan in the order that would be best if every link were the best one, and a lower bound for every order (0: none)."""
    looser = without_pools(replace(without_coordinator(problem), links=best_link(problem)))
    if not is_searchable(looser):
        return None, 0.0
    found = _solved(looser, strategy)
    if found is None:
        return None, 0.0
    first = [node for node, _, _ in found.cuts]
    order = [*first, *(u for u in range(len(problem.nodes)) if u not in first)]
    tried = _solved(replace(problem, nodes=tuple(problem.nodes[u] for u in order), free_order=False), strategy)
    # under memory_aware and balanced the looser problem may use a faster bottleneck or more nodes, so it bounds nothing there
    bounds = strategy in ("bottleneck_first", "latency_optimized", "cost")
    return tried, found.lower_bound if bounds else 0.0
