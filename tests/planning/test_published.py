"""Instances that others published with their answers, solved to the same optimum."""

from __future__ import annotations

import pytest

from engine.data import Item
from engine.planning.problem import PlanningNode, Problem
from engine.planning.strategies import solve

CHAINS = [
    ("Skiena, The Algorithm Design Manual, 'The Partition Problem': shelves 1..9 among three", list(range(1, 10)), 3, 17),
    ("Skiena, the same: nine equal books", [1] * 9, 3, 3),
    ("Skiena, the same: 100..900", list(range(100, 1000, 100)), 3, 1700),
    ("LeetCode 410 'Split Array Largest Sum', example 1", [7, 2, 5, 10, 8], 2, 18),
    ("LeetCode 410, example 2", [1, 2, 3, 4, 5], 2, 9),
    ("LeetCode 1011 'Capacity To Ship Packages', example 1", list(range(1, 11)), 5, 15),
    ("LeetCode 1011, example 2", [3, 2, 2, 4, 1, 4], 3, 6),
    ("LeetCode 1011, example 3", [1, 2, 3, 1, 1], 4, 3),
    ("torchgpipe tests/test_balance.py test_blockpartition", [1, 2, 3, 4, 5, 6], 2, 11),
    ("torchgpipe tests/test_balance.py test_blockpartition_zeros", [0, 0], 2, 0),
]


@pytest.mark.parametrize(("source", "weights", "parts", "optimum"), CHAINS, ids=[c[0] for c in CHAINS])
def test_chains_on_equal_processors(source: str, weights: list[int], parts: int, optimum: int) -> None:
    items = tuple(Item(f"i{k}", 0, 0, 0) for k in range(len(weights)))
    nodes = tuple(PlanningNode(f"p{u}", time_s=tuple(map(float, weights))) for u in range(parts))
    for strategy in ("bottleneck_first", "balanced"):
        for free_order in (True, False):
            found = solve(Problem(items, nodes, free_order=free_order), strategy)
            assert (found.objective, found.lower_bound, found.optimal) == (optimum, optimum, True), source


def test_torchgpipe_blocks_themselves() -> None:
    items = tuple(Item(f"i{k}", 0, 0, 0) for k in range(6))
    nodes = tuple(PlanningNode(f"p{u}", time_s=(1.0, 2.0, 3.0, 4.0, 5.0, 6.0)) for u in range(2))
    assert [(s.start, s.stop) for s in solve(Problem(items, nodes), "balanced").stages] == [(0, 4), (4, 6)]
