"""Instances that others published with their answers, solved to the same optimum."""

from __future__ import annotations

import pytest

from engine.data.model import Item
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
    ("DeepSpeed tests/unit/utils/test_partition_balanced.py test_easy_balance_balanced", [1] * 8, 4, 2),
    ("DeepSpeed test_int_balanced: parts [0, 3, 4, 5, 6]", [0, 1, 2, 3, 3, 3], 4, 3),
    ("DeepSpeed test_float_balanced: the same parts", [0.0, 1.1, 1.9, 3.0, 3.0, 3.0], 4, 3.0),
    ("DeepSpeed test_float_lastheavy: parts [0, 4, 5]", [0.0, 1.1, 1.9, 3.0, 30.0], 2, 30.0),
    ("DeepSpeed test_float_midheavy: parts [0, 2, 3, 4]", [0.0, 1.1, 30.0, 3.0], 3, 30.0),
]
# TopCoder SRM 169, "FairWorkload": the statement's examples (0 to 6) and the system tests.
FAIR_WORKLOAD = [
    ([10, 20, 30, 40, 50, 60, 70, 80, 90], 3, 170),
    ([10, 20, 30, 40, 50, 60, 70, 80, 90], 5, 110),
    ([568, 712, 412, 231, 241, 393, 865, 287, 128, 457, 238, 98, 980, 23, 782], 4, 1785),
    ([1] * 14 + [1000], 2, 1000),
    ([50] * 7, 2, 200),
    ([1, 1, 1, 1, 100], 5, 100),
    ([950, 650, 250, 250, 350, 100, 650, 150, 150, 700], 6, 950),
    ([689, 516, 776, 244, 991, 797], 5, 1020),
    ([845, 335, 950, 324, 345, 558], 2, 2130),
    ([961, 37, 126, 508, 247, 572, 286], 3, 961),
    ([496, 477, 832, 670, 367, 231, 36, 741, 648, 259, 773, 557, 784], 5, 1680),
    ([962, 400, 598, 497, 873, 671, 465, 372, 922, 965, 645], 5, 1759),
    ([646, 321, 347, 684, 273, 718, 429, 842, 559, 893, 717, 971], 2, 3982),
    ([64, 498, 364, 970, 901, 352, 289, 76, 67, 805, 471, 787, 983, 649], 8, 1253),
    ([613, 723, 680, 518, 727, 60, 495, 322, 707, 94, 582, 755, 410, 340], 7, 1336),
    ([759, 746, 460, 92, 283, 739, 502, 501, 980, 86, 212, 276, 306, 571, 940], 8, 1206),
    ([30, 142, 706, 67, 303, 474, 930, 959, 325, 14, 995, 103, 113, 433, 564], 8, 995),
    ([320, 543, 187, 87, 710, 653, 333, 135, 674, 54, 739, 528, 930, 807, 503], 8, 1267),
    ([261, 575, 597, 217, 623, 620, 11, 946, 912, 575, 8, 728, 244, 248, 802], 7, 1311),
    ([722, 235, 642, 251, 105, 860, 532, 980, 483, 256, 226, 256, 799, 761, 200], 9, 980),
    ([950, 650, 250, 250, 350, 100, 650, 150, 150, 700, 200, 170, 320, 100], 7, 950),
]
CHAINS += [(f"TopCoder SRM 169 FairWorkload, {n} cabinets, {w} workers", f, w, o) for f, w, o in FAIR_WORKLOAD for n in [len(f)]]


@pytest.mark.parametrize(("source", "weights", "parts", "optimum"), CHAINS, ids=[c[0] for c in CHAINS])
def test_chains_on_equal_processors(source: str, weights: list[float], parts: int, optimum: float) -> None:
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
