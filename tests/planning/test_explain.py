"""Refusals name the limit that binds and the smallest change: with it the problem is feasible, with a little less it is not."""

from __future__ import annotations

import math
import random
import re
from dataclasses import replace

import pytest

from engine.data.model import Item
from engine.planning.advice import advice
from engine.planning.constraints import PlanningConstraints
from engine.planning.explain import binding, explain_infeasible, feasible
from engine.planning.problem import Link, MemoryPool, PairLink, PlanningNode, Problem
from engine.planning.strategies import solve
from tests.planning.reference import Reference, random_problem

ITEMS = tuple(Item(f"h.{i}", 10, 0, 4) for i in range(4))


def node(name: str, memory: float, speed: float = 1.0, pool: str | None = None) -> PlanningNode:
    return PlanningNode(name, memory, (speed,) * 4, pool_id=pool)


def test_the_smallest_memory_that_would_do() -> None:
    problem = Problem(ITEMS, (node("a", 14), node("b", 25)))
    message = str(explain_infeasible(problem))
    found = re.search(r"give (\w) (\d+) bytes more", message)
    assert message.startswith("memory: ") and found is not None and (found[1], found[2]) == ("b", "5")
    assert feasible(replace(problem, nodes=(node("a", 14), node("b", 30))))
    assert not feasible(replace(problem, nodes=(node("a", 14), node("b", 29))))


def test_an_item_that_fits_nowhere_or_runs_nowhere() -> None:
    assert "item h.0 alone needs 10 bytes" in str(explain_infeasible(Problem(ITEMS, (node("a", 9),))))
    nowhere = PlanningNode("a", math.inf, (1.0, math.inf, 1.0, 1.0))
    assert "item h.1 can run on none of the nodes" in str(explain_infeasible(Problem(ITEMS, (nowhere,))))


@pytest.mark.parametrize(
    ("constraints", "expected", "cured"),
    [
        (PlanningConstraints(max_stages=1), "max_stages 1 is too few: 2 are needed", {"max_stages": 2}),
        (PlanningConstraints(latency_limit_s=3.0), "latency_limit_s 3 .* is 4.00000004 s", {"latency_limit_s": 4.00000004}),
        (PlanningConstraints(min_items_per_stage=3), "min_items_per_stage 3 is too many: at most 2", {"min_items_per_stage": 2}),
        (PlanningConstraints(max_items_per_stage=1), "max_items_per_stage 1 is too few: 2 would do", {"max_items_per_stage": 2}),
        (PlanningConstraints(memory_reserve_bytes=9.0), "at most 5 bytes can be kept free", {"memory_reserve_bytes": 5.0}),
        (PlanningConstraints(forbidden_nodes=("b",)), "allow b", {"forbidden_nodes": ()}),
        (PlanningConstraints(stage_items=(1, 3)), "stage_items 1,3 fits on no nodes", {"stage_items": ()}),
        (PlanningConstraints(pins=((0, "a"), (3, "a"))), "cannot be pinned to a: drop this pin", {"pins": ((3, "a"),)}),
    ],
)
def test_constraints_are_blamed_with_their_smallest_change(constraints: PlanningConstraints, expected: str, cured: dict) -> None:
    problem = Problem(ITEMS, (node("a", 25), node("b", 25)), constraints=constraints)
    assert not feasible(problem)
    assert re.search(expected, str(explain_infeasible(problem)))
    assert feasible(replace(problem, constraints=replace(constraints, **cured)))


def test_pools_links_and_use_of_all_nodes() -> None:
    pooled = Problem(ITEMS, (node("cpu", 30, pool="ram"), node("igpu", 30, pool="ram")), pools=(MemoryPool("ram", 33),))
    assert "give the shared memory ram 7 bytes more" in str(explain_infeasible(pooled))
    apart = Problem(ITEMS, (node("a", 25), node("b", 25), node("c", 5)), links=(PairLink("a", "c", Link()),))
    assert "link a and b" in str(explain_infeasible(apart))
    many = Problem(ITEMS, tuple(node(f"n{u}", 100) for u in range(5)), use_all_nodes=True)
    assert "use_all_nodes asks for 5 stages, there are 4 items: leave 1 nodes out" in str(explain_infeasible(many))


def test_every_refusal_says_something_useful() -> None:
    refused = 0
    for seed in range(60_000, 60_150):
        problem = random_problem(random.Random(seed))
        if not Reference(problem).rows:
            message = str(explain_infeasible(problem))
            refused += 1
            assert len(message) > 30 and message.isascii() and "\n" not in message
    assert refused > 20


def test_what_binds_and_what_would_help() -> None:
    problem = Problem(ITEMS, (node("fast", 20, 1.0), node("slow", 40, 3.0)), links=Link(0.001))
    found = solve(problem, "bottleneck_first")
    assert binding(problem, found).startswith("stage ") and "slow" in binding(problem, found)
    notes = advice(problem, found)
    more = replace(problem, nodes=(node("fast", 30, 1.0), node("slow", 40, 3.0)))
    gain = 100 * (1 - solve(more, "bottleneck_first").objective / found.objective)
    assert notes[0] == f"30 bytes of memory on fast: {gain:.0f} % less"
    slow_link = replace(problem, links=Link(100.0), use_all_nodes=True)
    found = solve(slow_link, "bottleneck_first")
    assert binding(slow_link, found).startswith("the link ") and "a network ten times as fast: 90 % less" in advice(slow_link, found)


def test_leaving_a_slow_node_out_is_said_first() -> None:
    """A GPU box and a laptop: the strategy that uses every node is the wrong one, and says so."""
    problem = Problem(ITEMS, (node("gpu", math.inf, 1e-3), node("laptop", math.inf, 50e-3)), links=Link(0.001))
    found = solve(problem, "balanced")
    alone = solve(problem, "auto")
    assert [stage.node_id for stage in alone.stages] == ["gpu"]
    assert advice(problem, found)[0] == f"leave laptop out: {1 / found.period_s:.4g} -> {1 / alone.period_s:.4g} tokens/s"
    assert not any(note.startswith("leave") for note in advice(problem, alone))


def test_what_is_said_is_the_least_change_that_gives_it() -> None:
    problem = Problem(ITEMS, (node("fast", 20, 1.0), node("slow", 40, 3.0)), links=Link(0.001))
    found = solve(problem, "auto")
    size, gain = re.match(r"(\d+) bytes of memory on fast: (\d+) % less", advice(problem, found)[0]).groups()

    def gained(memory: float) -> float:
        better = solve(replace(problem, nodes=(node("fast", memory, 1.0), node("slow", 40, 3.0))), "auto")
        return 100 * (1 - better.objective / found.objective)

    assert round(gained(float(size))) == int(gain) > gained(float(size) - 1) + 1
