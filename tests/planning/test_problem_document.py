"""A problem written as a document is the problem that is read again."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.model import Item
from engine.planning.constraints import PlanningConstraints
from engine.planning.documents.problem_json import problem_to_json, read_problem
from engine.planning.problem import ADDITIVE, OVERLAPPED, Link, MemoryPool, PairLink, PlanningNode, Problem

names = st.sampled_from(["h.0", "h[/b]", "\u00e9\u4e2d", "1", "0", "a b", '"', "<x>"]) | st.text("abc.-", min_size=1, max_size=8)
sizes = st.integers(0, 10**12)
times = st.floats(0, 1e6) | st.just(math.inf)
links = st.builds(Link, st.floats(0, 1e3), st.floats(1e-3, 1e12) | st.just(math.inf))


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    n = draw(st.integers(1, 6))
    items = [Item(draw(names), draw(sizes), draw(sizes), draw(sizes)) for _ in range(n)]
    if n > 1 and draw(st.booleans()):
        shared = draw(st.integers(0, min(items[0].weight_bytes, items[-1].weight_bytes)))
        last = items[-1]
        items[-1] = Item(last.name, last.weight_bytes, last.kv_bytes_per_token, last.output_bytes_per_token, 0, shared)
    ids = draw(st.lists(names, min_size=1, max_size=4, unique=True))
    pools = tuple(MemoryPool(p, draw(sizes)) for p in draw(st.lists(names, max_size=2, unique=True)))
    return Problem(
        tuple(items),
        tuple(draw(_nodes(node_id, n, [pool.pool_id for pool in pools])) for node_id in ids),
        draw(links) if draw(st.booleans()) else draw(_pairs(ids)),
        draw(st.booleans()),
        draw(st.sampled_from([OVERLAPPED, ADDITIVE])),
        draw(st.booleans()),
        draw(st.integers(1, 9)),
        draw(st.integers(0, 9)),
        draw(st.integers(1, 9)),
        draw(st.booleans()),
        pools,
        tuple(draw(sizes) for _ in items) if draw(st.booleans()) else (),
        draw(_constraints(items, ids)),
    )


@st.composite
def _nodes(draw: st.DrawFn, node_id: str, n: int, pool_ids: list[str]) -> PlanningNode:
    by_item = draw(st.booleans())
    table = tuple(draw(st.lists(times, min_size=n if by_item else 1, max_size=n)))
    pool_id = draw(st.sampled_from([None, *pool_ids]))
    memory, price, buffer = draw(sizes | st.just(math.inf)), draw(st.floats(0, 1e6)), draw(sizes)
    return PlanningNode(node_id, memory, table if by_item else (), () if by_item else table, price, buffer, pool_id)


@st.composite
def _pairs(draw: st.DrawFn, ids: list[str]) -> tuple[PairLink, ...]:
    return tuple(PairLink(a, b, draw(links)) for a in ids for b in ids if a != b and draw(st.booleans()))


@st.composite
def _constraints(draw: st.DrawFn, items: list[Item], ids: list[str]) -> PlanningConstraints:
    plain = [i for i, item in enumerate(items) if str(i) not in [other.name for other in items]]
    pins = {i: draw(st.sampled_from(ids)) for i in plain if draw(st.booleans())}
    low = draw(st.integers(1, 3))
    return PlanningConstraints(
        tuple(pins.items()),
        tuple(draw(st.sets(st.sampled_from(ids), max_size=len(ids) - 1))),
        draw(st.none() | st.integers(1, 9)),
        low,
        draw(st.none() | st.integers(low, 9)),
        draw(sizes),
        draw(st.floats(1e-9, 1e6) | st.just(math.inf)),
        (len(items),) if draw(st.booleans()) else (),
    )


@settings(max_examples=150, deadline=None)
@given(problems())
def test_written_and_read_again(problem: Problem) -> None:
    text = problem_to_json(problem)
    assert text.isascii()
    found = read_problem(text)
    assert any(problem.workspace_bytes) or not found.workspace_bytes, "scratch of no size is none"
    again = problem if any(problem.workspace_bytes) or not problem.workspace_bytes else _without_workspace(problem)
    assert found == again


def _without_workspace(problem: Problem) -> Problem:
    return replace(problem, workspace_bytes=())


def test_an_item_called_like_a_number_is_pinned_by_its_name() -> None:
    items = (Item("1", 1, 0, 0), Item("x", 1, 0, 0))
    made = Problem(items, (PlanningNode("a", 9, (1.0, 1.0)),), constraints=PlanningConstraints(pins=((1, "a"), (0, "a"))))
    assert read_problem(problem_to_json(made)).constraints.pins == ((1, "a"), (0, "a"))


def test_what_cannot_run_is_null() -> None:
    made = Problem((Item("x", 1, 0, 0),), (PlanningNode("a", 9, (math.inf,)),))
    assert '"time_s": [null]' in problem_to_json(made)
    assert read_problem(problem_to_json(made)) == made
    assert pytest.approx(0) == read_problem(problem_to_json(made)).nodes[0].price_per_s
