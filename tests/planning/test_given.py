"""A plan that somebody else chose is checked and costed as given."""

from __future__ import annotations

import pytest

from engine.data.errors import InvalidInput
from engine.data.model import Item
from engine.data.plan import Stage
from engine.planning.manual_plan import given_plan
from engine.planning.problem import Infeasible, PlanningNode, Problem

ITEMS = tuple(Item(f"h.{k}", 10, 1, 4) for k in range(5))


def problem(*memory_bytes: float) -> Problem:
    return Problem(ITEMS, tuple(PlanningNode(f"n{k}", size, (0.1 * (k + 1),) * 5) for k, size in enumerate(memory_bytes)), free_order=False)


def test_counts_go_to_the_nodes_in_order() -> None:
    plan = given_plan(problem(100, 100, 100), (3, 2), (), 7)
    assert plan.stages == (Stage("n0", 0, 3), Stage("n1", 3, 5))
    assert (plan.plan_version, plan.strategy, plan.optimal) == (7, "given", False)
    assert plan.stage_s == pytest.approx((0.3, 0.4)) and plan.bottleneck_s == pytest.approx(0.4)
    assert plan.round_trip_s == pytest.approx(0.7)


def test_counts_go_to_the_named_nodes() -> None:
    assert given_plan(problem(100, 100, 100), (1, 4), ("n2", "n0"), 1).stages == (Stage("n2", 0, 1), Stage("n0", 1, 5))


@pytest.mark.parametrize(
    ("memory", "layers", "order", "error", "match"),
    [
        ((100, 100), (3, 3), (), InvalidInput, "layers 3,3 are 6 items, the model has 5"),
        ((100, 100), (5, 0), (), InvalidInput, "every stage needs 1 or more"),
        ((100, 100), (), (), InvalidInput, r"layers \(none\)"),
        ((100, 100), (1, 2, 2), (), Infeasible, "need 3 nodes, there are 2"),
        ((100, 100), (3, 2), ("n0", "n7"), Infeasible, "needs node n7"),
        ((100, 19), (3, 2), (), Infeasible, "items 3-4 on n1 need 0 MB"),
    ],
)
def test_what_cannot_be_is_refused(
    memory: tuple[float, ...], layers: tuple[int, ...], order: tuple[str, ...], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        given_plan(problem(*memory), layers, order, 1)


def test_items_that_a_node_does_not_support_are_refused() -> None:
    node = PlanningNode("n0", 1e9, (0.1, float("inf"), 0.1, 0.1, 0.1))
    with pytest.raises(Infeasible, match="items 0-4 on n0 cannot be"):
        given_plan(Problem(ITEMS, (node,), free_order=False), (5,), (), 1)
