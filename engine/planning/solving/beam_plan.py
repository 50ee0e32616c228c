"""A plan with a certified gap for problems that are too large for exact search.

Bounds come from a regular relaxation of the problem (better links, no shared pools, no limits on time and stages), plans
from the same relaxation, checked and priced on the real problem.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from engine.planning.problem import Problem, TooHard
from engine.planning.route import DEFAULT, Limits
from engine.planning.solution import Costs, Cut, Solution, evaluate, pools_hold, ratio
from engine.planning.solving.beam_search import Large, spread
from engine.planning.solving.rounding import CERTAIN, is_blurred, reading_below, slack
from engine.planning.solving.stage_times import PLAIN, Reading
from engine.planning.solving.strategy_keys import BOTTLENECK_SLACK, key_of, objective_of, solution_of
from engine.planning.solving.structure import is_regular, of_single_stages, relaxation
from engine.planning.solving.tables import Chain, Tables


def solve_large(problem: Problem, strategy: str, limits: Limits = DEFAULT) -> Solution | TooHard:
    """The best plan found and a lower bound, or why there is none."""
    tables = _relaxation(problem, PLAIN, limits)
    if tables is None:
        return TooHard(
            f"{len(problem.items)} items on {len(problem.nodes)} nodes are too many to search exactly when stage times do not rise with "
            "the number of items or hops differ in additive cost: leave out or merge nodes"
        )
    found = _solve(problem, tables, strategy)
    if isinstance(found, TooHard) or not is_blurred(tables, strategy, found.bottleneck_s):
        return found
    finer_tables = _relaxation(problem, reading_below(problem, strategy, evaluate(problem, found.cuts)), limits)
    finer = _solve(problem, finer_tables, strategy) if finer_tables is not None else found
    if isinstance(finer, TooHard):
        return found
    return finer if finer.objective <= found.objective else replace(found, lower_bound=max(found.lower_bound, finer.lower_bound))


def _solve(problem: Problem, tables: Tables, strategy: str) -> Solution | TooHard:
    search = Large(tables)
    bottleneck_s, chains = search.bottleneck()
    trip_s: float = 0.0
    more: list[Chain] = []
    if strategy not in ("balanced", "bottleneck_first") or not chains:
        trip_s, more = search.round_trip(evaluate(problem, tables.cuts(chains[-1])).bottleneck_s if chains else 0.0)
    if strategy == "balanced":
        chains += [spread(tables, chain, search._cost_s(chain)) for chain in chains]
    plans = [(cuts, costs) for cuts, costs in _priced(problem, tables, chains + more)]
    if strategy == "memory_aware" and plans:
        # The best bottleneck is not known: plans near its lower bound are near it; else only the fastest one counts.
        fastest_s = min(costs.bottleneck_s for _, costs in plans)
        plans = [plan for plan in plans if plan[1].bottleneck_s <= max(fastest_s, BOTTLENECK_SLACK * bottleneck_s)]
    if not plans:
        return TooHard(
            f"{len(problem.items)} items on {len(problem.nodes)} nodes with these limits are too many to search exactly, and no plan was "
            "found by trying: drop a constraint, or leave out or merge nodes"
        )
    cuts, costs = min(plans, key=lambda plan: key_of(problem, strategy, plan[1]))
    objective = objective_of(strategy, costs)
    bound = min(objective, _bound(problem, tables, strategy, bottleneck_s, trip_s))
    optimal = bound >= objective * (1 - CERTAIN) and (strategy != "balanced" or len(cuts) == min(len(tables.nodes), tables.n))
    return solution_of(strategy, cuts, costs, bound, optimal=optimal, method="beam search, bounded by prices")


def _relaxation(problem: Problem, reading: Reading, limits: Limits) -> Tables | None:
    """A regular problem, None if there is none."""
    looser = replace(relaxation(problem, of_single_stages(problem.constraints)), free_order=True)
    return Tables(looser, reading=reading, limits=limits) if is_regular(looser) else None


def _priced(problem: Problem, tables: Tables, chains: list[Chain]) -> Iterator[tuple[tuple[Cut, ...], Costs]]:
    """The chains, in given order of nodes where the problem asks for it, that satisfy every limit of the real problem."""
    for chain in chains:
        cuts = tables.cuts(chain)
        if allowed(problem, cuts):
            yield cuts, evaluate(problem, cuts)


def allowed(problem: Problem, cuts: tuple[Cut, ...]) -> bool:
    """Whether a placement satisfies every limit of the problem."""
    c, nodes = problem.constraints, [node for node, _, _ in cuts]
    costs = evaluate(problem, cuts)
    free = len(problem.nodes) - len(set(c.forbidden_nodes))
    pins = dict(c.pins)
    return (
        costs.round_trip_s <= c.latency_limit_s
        and math.isfinite(costs.round_trip_s)
        and (problem.free_order or nodes == sorted(nodes))
        and c.min_stages <= len(cuts) <= (c.max_stages or len(cuts))
        and costs.bottleneck_s <= c.bottleneck_limit_s
        and (not problem.use_all_nodes or len(cuts) == free)
        and pools_hold(problem, cuts)
        and all(problem.fits(*cut) for cut in cuts)
        and all(c.min_items_per_stage <= b - a <= (c.max_items_per_stage or b - a) for _, a, b in cuts)
        and (not c.stage_items or tuple(b - a for _, a, b in cuts) == c.stage_items)
        and all(problem.nodes[u].node_id == pins.get(i, problem.nodes[u].node_id) for u, a, b in cuts for i in range(a, b) if pins)
        and not any(problem.nodes[u].node_id in c.forbidden_nodes for u in nodes)
    )


def _bound(problem: Problem, tables: Tables, strategy: str, bottleneck_s: float, trip_s: float) -> float:
    """No plan's objective is below this."""
    if strategy in ("balanced", "bottleneck_first"):
        return max(0.0, bottleneck_s - slack(tables, strategy))
    period_s = max(0.0, max(bottleneck_s, trip_s / problem.in_flight) - slack(tables, strategy))
    if strategy == "latency_optimized":
        return period_s
    if strategy == "cost":
        return min(problem.nodes[u].price_per_s for u in tables.nodes) * period_s
    return least_item_share(problem, tables)


def least_item_share(problem: Problem, tables: Tables) -> float:
    """The share of memory that some item takes wherever it is."""
    return max(min(_item_ratio(problem, tables, c, i) for c in range(len(tables.size))) for i in range(tables.n))


def _item_ratio(problem: Problem, tables: Tables, c: int, i: int) -> float:
    if tables.limit[c][i] <= i:
        return math.inf
    return ratio(problem.memory_bytes(tables.first[c], i, i + 1), tables.rooms.of_class[c])
