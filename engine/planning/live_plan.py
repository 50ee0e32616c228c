"""In which order the nodes of a running cluster should stand: as they do, unless another order pays.

The nodes of the problem are listed in their present order. Times and links are measurements, so among equal nodes the order
of least cost follows the noise, and every change of order moves layers. Therefore the best plan in the present order is kept
unless the best of all orders has an objective, or with no worse objective a round trip, that is smaller by `PAYS` and by no
less than `PAYS_S` or `PAYS_ROOM`.

A cluster plans while it serves, so the search is bounded, in operations and not in time. Where all orders are too many, the
order that is best with the best link for every pair is tried; that search also bounds every order's objective from below. Where
even the present order is too much to search exactly, `order_search` finds plans by arrays, and their gap is what is known of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial

from engine.data.plan import Plan
from engine.planning.problem import Infeasible, Problem, TooHard
from engine.planning.route import DEFAULT, Kind, Limits
from engine.planning.routing import after_work, is_searchable, route
from engine.planning.shortage import shortage
from engine.planning.solution import Solution, evaluate
from engine.planning.solving.label_search import Work
from engine.planning.solving.structure import relaxation
from engine.planning.strategies import AUTO, TOO_MUCH, answer, check_strategy, exact_answer, plan_of

Answer = Callable[[Problem, str], Solution | Infeasible]
PAYS = 0.1  # a share of the objective: more than two measurements of equal nodes usually differ
PAYS_S = 1e-3  # what one hop more costs on a busy machine; tiny models are measured no more exactly
PAYS_ROOM = 0.01  # of a memory
_UNFOUND = (
    "no placement was found while serving, in the present order of the nodes or in one near it: give a node more --memory, start "
    "another one, or leave nodes that share a memory out"
)


def stable_plan(problem: Problem, strategy: str, plan_version: int) -> Plan:
    """`solve_stable` as the plan of a running cluster."""
    return replace(_remembered(problem, strategy), plan_version=plan_version)


def loaded_plan(problem: Problem, loaded: Problem, strategy: str, plan_version: int) -> Plan:
    """The stages that are best for a load, with the times of `problem`, which are of one row: those are what a plan says of its stages, and
    what steps of any load are compared with. Proof and gap are of the load."""
    plan = stable_plan(loaded, strategy, plan_version)
    if loaded is problem:
        return plan
    index = {node.node_id: u for u, node in enumerate(problem.nodes)}
    costs = evaluate(problem, tuple((index[s.node_id], s.start, s.stop) for s in plan.stages))
    stage_s, hop_s = tuple(s.time_s for s in costs.stages), tuple(s.hop_s for s in costs.stages)
    return replace(plan, stage_s=stage_s, hop_s=hop_s, bottleneck_s=costs.bottleneck_s, round_trip_s=costs.round_trip_s)


@lru_cache(maxsize=16)
def _remembered(problem: Problem, strategy: str) -> Plan:
    """A preview, the move that follows it and what adaptation looks at meanwhile ask for the same."""
    return plan_of(solve_stable(problem, strategy), 0)


def solve_stable(problem: Problem, strategy: str, limits: Limits = DEFAULT) -> Solution:
    """`lower_bound` and `optimal` are about every order if all were searched or bounded, and about the present one where that
    was too much. Raises InvalidInput or Infeasible (TooHard if no plan was found by trying)."""
    check_strategy(strategy)
    if strategy == AUTO:
        return replace(solve_stable(problem, "latency_optimized", limits), strategy=AUTO)
    chosen = route(problem, strategy, live=True, limits=limits)
    if chosen.kind is Kind.SOLVE:
        found = answer(problem, strategy, limits)
    elif chosen.kind is Kind.TWO_ORDERS:
        found = _two_orders(problem, strategy, limits, partial(answer, limits=limits))
    elif chosen.kind is Kind.TWO_ORDERS_PROMPTLY:
        found = _two_orders(problem, strategy, limits, partial(_exactly, limits=limits, work=_work(limits)))
        chosen = after_work(chosen) if found is TOO_MUCH else chosen
    if chosen.kind is Kind.ORDER_SEARCH:
        found = _order_search(problem, strategy, limits)
    if isinstance(found, Infeasible):
        raise found
    return found if chosen.kind is Kind.SOLVE else replace(found, route=str(chosen.kind), why=chosen.why)


def _work(limits: Limits, times: int = 1) -> Work:
    return Work(times * limits.live.work, counts_comparisons=True)


class _Spent(Exception):
    """The work of a plan is used up."""


def _exactly(problem: Problem, strategy: str, limits: Limits, work: Work) -> Solution | Infeasible:
    """As `exact_answer`, also where sessions share steps: TOO_MUCH beyond `work`, for all numbers of steps in flight together."""
    if not problem.is_batched:
        return exact_answer(problem, strategy, limits, work)
    from engine.planning.solving.shared_steps import best_of

    def plain(shape: Problem, goal: str) -> Solution | Infeasible:
        found = exact_answer(shape, goal, limits, work)
        if found is TOO_MUCH:
            raise _Spent
        return found

    try:
        return best_of(problem, strategy, plain) or Infeasible(shortage(problem))
    except _Spent:
        return TOO_MUCH


def _two_orders(problem: Problem, strategy: str, limits: Limits, answered: Answer) -> Solution | Infeasible:
    """Solved in the present order, and in any order or else in the one that a relaxation finds best; TOO_MUCH if `answered` says so."""
    kept = answered(replace(problem, free_order=False), strategy)
    if kept is TOO_MUCH:
        return TOO_MUCH
    if not is_searchable(problem, limits):
        other, lower_bound = _likely(problem, strategy, limits, answered)
        bound = lower_bound if lower_bound > 0.0 else None
    else:
        other = answered(problem, strategy)
        bound = 0.0 if isinstance(other, Infeasible) else other.lower_bound
    return TOO_MUCH if other is TOO_MUCH else _better(problem, strategy, _placed(kept), _placed(other), bound)


def _placed(found: Solution | Infeasible | None) -> Solution | None:
    return None if isinstance(found, Infeasible) else found


def _order_search(problem: Problem, strategy: str, limits: Limits) -> Solution | Infeasible:
    from engine.planning.solving.orders.certificate import certificate_of
    from engine.planning.solving.orders.search import prompt_plans

    looser, relaxed = relaxation(problem), None
    if is_searchable(looser, limits):
        relaxed = _exactly(looser, strategy, limits, _work(limits))
        if isinstance(relaxed, Infeasible) and relaxed is not TOO_MUCH:
            return relaxed
    certificate = certificate_of(problem, _placed(relaxed), limits)
    if not certificate.is_feasible:
        return Infeasible(shortage(problem))
    found = prompt_plans(problem, strategy, certificate)
    if found.kept is None and found.other is None:
        return _last_resort(problem, strategy, limits)
    return _better(problem, strategy, found.kept, found.other, None)


def _last_resort(problem: Problem, strategy: str, limits: Limits) -> Solution | Infeasible:
    """Where memory is shared in a way that trying misses: a plan a second late is better than none."""
    for candidate in (replace(problem, free_order=False), problem):
        found = _exactly(candidate, strategy, limits, _work(limits, 2))
        if not isinstance(found, Infeasible):
            return replace(found, lower_bound=0.0, optimal=False)
    return TooHard(_UNFOUND)


def _better(
    problem: Problem, strategy: str, kept: Solution | None, other: Solution | None, lower_bound: float | None
) -> Solution | Infeasible:
    """The plan in the present order unless the other one pays; None: the bound is the plan's own."""
    if kept is None and other is None:
        return Infeasible(shortage(problem))
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


def _likely(problem: Problem, strategy: str, limits: Limits, answered: Answer) -> tuple[Solution | Infeasible | None, float]:
    """A plan in the order that would be best if every link were the best one, and a lower bound for every order (0: none)."""
    looser = relaxation(problem)
    if not is_searchable(looser, limits):
        return None, 0.0
    found = answered(looser, strategy)
    if isinstance(found, Infeasible):
        return found, 0.0
    first = [node for node, _, _ in found.cuts]
    order = [*first, *(u for u in range(len(problem.nodes)) if u not in first)]
    tried = answered(replace(problem, nodes=tuple(problem.nodes[u] for u in order), free_order=False), strategy)
    # under memory_aware and balanced the looser problem may use a faster bottleneck or more nodes, so it bounds nothing there
    bounds = strategy in ("bottleneck_first", "latency_optimized", "cost")
    return tried, found.lower_bound if bounds else 0.0
