"""What is planned for what runs: rows, contexts and neighbours, but never what is wrong with one of them."""

from __future__ import annotations

import math

import pytest

from engine.control.events import WorkerMeasured
from engine.control.expected import expected
from engine.control.nodes.members import LeaseRules, Members
from engine.control.sessions.metrics import StepLoad
from engine.data.plan import NodeSpec, Plan, Stage
from engine.profile.cost_model import CostModel, ItemLaw, PhaseLaws
from engine.profile.point import DECODE
from engine.profile.row_law import RowLaw

NAMES = ("w1", "w2", "w3")
PLAN = Plan(
    1, "balanced", tuple(Stage(n, k, k + 1) for k, n in enumerate(NAMES)), (0.01, 0.01, 0.01), 0.01, 0.034, hop_s=(0.001, 0.001, 0.0)
)
ONE_ROW = StepLoad(1, 16)


def members(hosts: tuple[str, ...], rows: RowLaw | None = None, cost_model: CostModel | None = None) -> Members:
    found = Members(LeaseRules())
    for name, host in zip(NAMES, hosts, strict=True):
        member = found.register(NodeSpec(name, "", host, 1, "cpu", "", 1, 1, 1), 1, True, 0.0)
        member.rows, member.cost_model = rows or RowLaw(), cost_model
    return found


def seconds(hosts: tuple[str, ...], load: StepLoad, measured: tuple[float, ...], at_once: int = 3, **of: object) -> tuple[float, ...]:
    return expected(PLAN, members(hosts, **of), load, dict(zip(NAMES, measured, strict=True)), at_once).stage_s  # type: ignore[arg-type]


def test_alone_with_one_row_it_is_the_plan() -> None:
    found = expected(PLAN, members(("a", "b", "c")), ONE_ROW, dict.fromkeys(NAMES, 0.01), 3)
    assert found.stage_s == PLAN.stage_s and math.isclose(found.step_s, PLAN.round_trip_s)
    assert found.hop_s == pytest.approx((0.001, 0.001, 0.001)) and found.entry_s == pytest.approx(0.001)


def test_nothing_is_expected_of_nothing() -> None:
    assert expected(PLAN, members(("a", "b", "c")), StepLoad(0, 0), {}, 3).stage_s == ()


def test_rows_cost_what_was_measured_at_the_start() -> None:
    assert seconds(("a", "b", "c"), StepLoad(5, 16), (0.01,) * 3, rows=RowLaw.of_share(0.25)) == pytest.approx((0.02,) * 3)


def test_rows_and_contexts_cost_what_the_cost_model_says() -> None:
    law = CostModel((PhaseLaws(DECODE, (1, 2), tuple(ItemLaw((0.010, 0.012), 1e-5) for _ in NAMES)),))
    few, many = (seconds(("a", "b", "c"), StepLoad(rows, 1000), (0.01,) * 3, cost_model=law) for rows in (1, 2))
    assert few == pytest.approx((0.01 * 0.02001 / 0.01017,) * 3) and many == pytest.approx((0.01 * 0.03202 / 0.01017,) * 3)


def test_neighbours_on_one_host_cost_as_much_as_most_of_them_are_slower() -> None:
    assert seconds(("a", "a", "a"), ONE_ROW, (0.017, 0.018, 0.0165), at_once=2) == pytest.approx((0.017,) * 3)


def test_no_more_than_taking_turns_is_planned() -> None:
    assert seconds(("a", "a", "a"), ONE_ROW, (0.05, 0.06, 0.04), at_once=2) == pytest.approx((0.02,) * 3)
    assert seconds(("a", "b", "c"), ONE_ROW, (0.05, 0.06, 0.04)) == pytest.approx(PLAN.stage_s)


def test_one_slow_node_among_neighbours_is_not_planned() -> None:
    assert seconds(("a", "a", "a"), ONE_ROW, (0.010, 0.080, 0.010)) == pytest.approx(PLAN.stage_s)


def test_a_stage_that_is_faster_than_planned_makes_no_neighbour_slow() -> None:
    assert seconds(("a", "a", "a"), ONE_ROW, (0.004, 0.017, 0.018)) == pytest.approx((0.017,) * 3)


def test_a_worker_says_what_a_row_more_costs() -> None:
    assert WorkerMeasured("w1", 1, (0.1,)).rows.factor(64) == 1.0
