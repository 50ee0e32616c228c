"""The order of the nodes in a running cluster: searched, and changed only where that pays."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from engine.data.model import Item
from engine.planning.live_plan import PAYS, PAYS_ROOM, solve_stable
from engine.planning.problem import CoordinatorLink, Infeasible, Link, PairLink, PlanningNode, Problem
from engine.planning.route import Limits, LiveLimits
from engine.planning.routing import is_searchable
from engine.planning.strategies import STRATEGIES, solve
from tests.planning.reference import Reference, random_problem

ITEMS = tuple(Item(f"i{i}", 10, 1, 3072) for i in range(14))


def optimum_of(problem: Problem, strategy: str) -> float | None:
    key = Reference(problem).best(strategy)
    if key is None:
        return None
    return float({"balanced": lambda: key[1], "bottleneck_first": lambda: key[0][0]}.get(strategy, lambda: key[0])())


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_order_is_better_by_more_than_what_pays(strategy: str) -> None:
    """Against the enumeration of all orders; `lower_bound` and `optimal` are true of all of them."""
    compared = changed = 0
    for seed in range(150):
        problem = replace(random_problem(random.Random(seed), most_items=7, most_nodes=4), free_order=True)
        optimum = optimum_of(problem, strategy)
        if optimum is None:
            with pytest.raises(Infeasible):
                solve_stable(problem, strategy)
            continue
        found = solve_stable(problem, strategy)
        nodes = [u for u, _, _ in found.cuts]
        compared, changed = compared + 1, changed + (nodes != sorted(nodes))
        assert found.objective * (1 - PAYS) <= optimum * (1 + 1e-12) or found.objective - optimum < PAYS_ROOM
        assert found.lower_bound <= optimum * (1 + 1e-12)
        assert found.optimal == (found.objective <= optimum * (1 + 1e-12))
        if nodes != sorted(nodes):
            kept = solve_kept(problem, strategy)
            assert kept is None or found.objective <= kept.objective or found.bottleneck_s < (1 - PAYS) * kept.bottleneck_s
    assert compared > 80 and changed > 5


def solve_kept(problem: Problem, strategy: str):  # type: ignore[no-untyped-def]
    try:
        return solve(replace(problem, free_order=False), strategy)
    except Infeasible:
        return None


def noisy(rng: random.Random, num_nodes: int, noise: float) -> Problem:
    nodes = tuple(PlanningNode(f"w{u}", 1e9, tuple(1e-3 * rng.uniform(1, 1 + noise) for _ in ITEMS)) for u in range(num_nodes))
    return Problem(ITEMS, nodes, Link(1e-4, 1e9))


@pytest.mark.parametrize("strategy", ["balanced", "bottleneck_first", "latency_optimized"])
def test_equal_workers_are_not_shuffled_by_the_noise_of_their_measurements(strategy: str) -> None:
    rng, shuffled = random.Random(1), 0
    for _ in range(20):
        problem = noisy(rng, 3, 0.04)
        assert [u for u, _, _ in solve_stable(problem, strategy).cuts] == sorted(u for u, _, _ in solve_stable(problem, strategy).cuts)
        free = [u for u, _, _ in solve(problem, strategy).cuts]
        shuffled += free != sorted(free)
    assert shuffled > 0 or strategy == "latency_optimized"  # else the test tells nothing


def test_a_gpu_gets_what_it_deserves_where_its_place_in_the_list_would_not_let_it() -> None:
    """GPU, iGPU and CPU; the head does not fit into the GPU's memory, so the GPU must not come last, as it is listed."""
    items = (Item("embed", 300, 0, 3072), *(Item(f"h.{i}", 100, 0, 3072) for i in range(12)), Item("head", 900, 0, 4))
    blocks = {"cpu": 0.020, "igpu": 0.010, "gpu": 0.001}
    room = {"cpu": 4000.0, "igpu": 1000.0, "gpu": 850.0}
    nodes = tuple(PlanningNode(name, room[name], (0.001, *(time_s,) * 12, 2 * time_s)) for name, time_s in blocks.items())
    problem = Problem(items, nodes, Link(1e-4, 1e9))
    listed, searched = solve(replace(problem, free_order=False), "bottleneck_first"), solve_stable(problem, "bottleneck_first")
    assert [s.node_id for s in searched.stages] != [s.node_id for s in listed.stages]
    assert searched.optimal and listed.objective / searched.objective > 1.5
    assert next(s.stop - s.start for s in searched.stages if s.node_id == "gpu") == 8  # all that its memory holds


def unlike(rng: random.Random, num_nodes: int) -> Problem:
    """Too many orders to search: every pair has a link of its own, every node its distance to the coordinator."""
    names = [f"w{u}" for u in range(num_nodes)]
    nodes = tuple(PlanningNode(name, 1e9, (1e-3 * rng.uniform(1, 3),) * len(ITEMS)) for name in names)
    links = tuple(PairLink(a, b, Link(rng.uniform(1e-4, 5e-2))) for a in names for b in names if a != b)
    ends = tuple(CoordinatorLink(name, Link(rng.uniform(0, 1e-2)), Link(rng.uniform(0, 1e-2))) for name in names)
    return Problem(ITEMS, nodes, links, coordinator=ends)


@pytest.mark.parametrize("strategy", ["bottleneck_first", "latency_optimized", "cost"])
def test_where_all_orders_are_too_many_the_bound_still_holds(strategy: str) -> None:
    for seed in range(8):
        problem = unlike(random.Random(seed), 5)
        problem = replace(problem, nodes=tuple(replace(n, price_per_s=1.0) for n in problem.nodes))
        truth, kept = solve(problem, strategy), solve(replace(problem, free_order=False), strategy)
        limits = Limits(live=LiveLimits(unlike=0))
        assert not is_searchable(problem, limits)
        found = solve_stable(problem, strategy, limits)
        assert truth.objective * (1 - 1e-12) <= found.objective <= kept.objective * (1 + 1e-12)
        assert found.lower_bound <= truth.objective * (1 + 1e-12)
        assert not found.optimal or found.objective == pytest.approx(truth.objective)


def test_what_a_coordinator_may_search_while_it_serves() -> None:
    assert is_searchable(noisy(random.Random(0), 10, 0.0)) and not is_searchable(noisy(random.Random(0), 16, 0.0))
    assert is_searchable(unlike(random.Random(0), 5)) and not is_searchable(unlike(random.Random(0), 8))
