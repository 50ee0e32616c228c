"""The fixed-order solver against enumeration of every cut and every subset of nodes."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data import InvalidInput, Item
from engine.planning.fixed_order import solve_balanced
from engine.planning.problem import Infeasible, PlanningNode, Problem
from engine.planning.strategies import make_plan

times = st.floats(min_value=0.0, max_value=10.0, allow_nan=False) | st.sampled_from([0.0, 1.0, math.inf])


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    num_items, num_nodes = draw(st.integers(1, 7)), draw(st.integers(1, 4))
    ends = {0: num_items - 1, num_items - 1: 0} if num_items > 1 else {}
    tied = draw(st.sampled_from([(), (0,), (num_items - 1,), (0, num_items - 1)]))  # a tie may be written at either end or at both
    items = tuple(
        Item(
            f"i{i}",
            weight_bytes=draw(st.integers(1, 5)),
            kv_bytes_per_token=draw(st.integers(0, 2)),
            output_bytes_per_token=4,
            tied_to=ends.get(i) if i in tied else None,
            tied_bytes=1 if i in tied and i in ends else 0,
        )
        for i in range(num_items)
    )
    nodes = tuple(
        PlanningNode(f"n{u}", draw(st.integers(0, 30)), tuple(draw(st.lists(times, min_size=num_items, max_size=num_items))))
        for u in range(num_nodes)
    )
    return Problem(items, nodes, free_order=False, context_tokens=draw(st.integers(0, 3)))


def enumerate_best(problem: Problem) -> tuple[float, ...] | None:
    """(-nodes used, bottleneck, sum of squares, round trip) of the best placement, by trying them all."""
    n, best = len(problem.items), None
    for used in range(1, min(n, len(problem.nodes)) + 1):
        for nodes in combinations(range(len(problem.nodes)), used):
            for inner in combinations(range(1, n), used - 1):
                bounds = (0, *inner, n)
                cuts = list(zip(nodes, bounds, bounds[1:], strict=False))
                if not all(fits_slowly(problem, *cut) for cut in cuts):
                    continue
                stage_s = [sum(problem.nodes[u].time_s[a:b]) for u, a, b in cuts]
                bottleneck = max(stage_s)
                key = (-used, bottleneck, sum(s * s for s in stage_s), sum(stage_s))
                best = key if best is None or key < best else best
    return best


def fits_slowly(problem: Problem, node: int, start: int, stop: int) -> bool:
    held, last = 0, len(problem.items) - 1
    for i in range(start, stop):
        held += problem.items[i].weight_bytes + problem.items[i].kv_bytes_per_token * problem.context_tokens
    if start == 0 and stop == last + 1 and any(problem.items[i].tied_to is not None for i in (0, last)):
        held -= 1
    return held <= problem.nodes[node].memory_bytes and all(math.isfinite(t) for t in problem.nodes[node].time_s[start:stop])


@settings(max_examples=600, deadline=None)
@given(problems())
def test_equals_enumeration(problem: Problem) -> None:
    best = enumerate_best(problem)
    if best is None:
        with pytest.raises(Infeasible):
            solve_balanced(problem)
        return
    found = solve_balanced(problem)
    assert len(found.cuts) == -best[0]
    assert found.bottleneck_s == pytest.approx(best[1], abs=1e-9)
    assert sum(s * s for s in found.stage_s) == pytest.approx(best[2], abs=1e-6)
    assert all(fits_slowly(problem, *cut) for cut in found.cuts)
    bounds = [b for _, a, c in found.cuts for b in (a, c)]
    assert bounds[0] == 0 and bounds[-1] == len(problem.items) and bounds[1:-1:2] == bounds[2::2]


@settings(max_examples=100, deadline=None)
@given(problems(), st.floats(0.1, 10.0))
def test_scaling_all_times_scales_the_bottleneck(problem: Problem, factor: float) -> None:
    scaled = Problem(
        problem.items,
        tuple(PlanningNode(n.node_id, n.memory_bytes, tuple(t * factor for t in n.time_s)) for n in problem.nodes),
        free_order=False,
        context_tokens=problem.context_tokens,
    )
    try:
        before = solve_balanced(problem)
    except Infeasible:
        with pytest.raises(Infeasible):
            solve_balanced(scaled)
        return
    assert solve_balanced(scaled).bottleneck_s == pytest.approx(before.bottleneck_s * factor, rel=1e-9)


def test_a_plan_says_that_it_is_optimal_and_why_nothing_fits() -> None:
    items = tuple(Item(f"h.{i}", 100, 0, 4) for i in range(4))
    nodes = (PlanningNode("a", 200, (1.0,) * 4), PlanningNode("b", 200, (3.0,) * 4))
    plan = make_plan(Problem(items, nodes), "balanced", 7)
    assert (plan.plan_version, plan.optimal, plan.bottleneck_s, plan.lower_bound) == (7, True, 6.0, 6.0)
    with pytest.raises(Infeasible, match=r"needs 0 MB .* --memory"):
        make_plan(Problem(items, nodes[:1]), "balanced", 1)


def test_bad_input_is_refused_by_name() -> None:
    items = (Item("h.0", 1, 0, 4),)
    with pytest.raises(InvalidInput, match="node a has 2 item times"):
        Problem(items, (PlanningNode("a", 1, (1.0, 1.0)),))
    with pytest.raises(InvalidInput, match="negative or undefined"):
        Problem(items, (PlanningNode("a", 1, (math.nan,)),))
    with pytest.raises(InvalidInput, match="unknown: choose one of"):
        make_plan(Problem(items, (PlanningNode("a", 1, (1.0,)),)), "fastest", 1)
