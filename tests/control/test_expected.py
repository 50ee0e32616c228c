"""What is planned for what runs: rows, contexts and neighbours, but never what is wrong with one of them."""

from __future__ import annotations

import math

import pytest

from engine.control.events import WorkerMeasured
from engine.control.expected import Circumstances, circumstances, expected, for_what_runs
from engine.control.nodes.members import LeaseRules, Members
from engine.control.sessions.metrics import StepLoad
from engine.control.status import cluster_status, what_runs
from engine.data.generation import StageTiming
from engine.data.plan import NodeSpec, Plan, Stage
from engine.profile.cost_model import CostModel, ItemLaw, PhaseLaws
from engine.profile.point import DECODE
from engine.profile.row_law import RowLaw
from tests.control.harness import Driver

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
    nodes = members(hosts, **of)  # type: ignore[arg-type]
    return expected(PLAN, nodes, circumstances(PLAN, nodes, load, dict(zip(NAMES, measured, strict=True)), at_once)).stage_s


def test_alone_with_one_row_it_is_the_plan() -> None:
    nodes = members(("a", "b", "c"))
    now = circumstances(PLAN, nodes, ONE_ROW, dict.fromkeys(NAMES, 0.01), 3)
    found = expected(PLAN, nodes, now)
    assert found.stage_s == PLAN.stage_s and math.isclose(found.step_s, PLAN.round_trip_s)
    assert found.hop_s == pytest.approx((0.001, 0.001, 0.001)) and found.entry_s == pytest.approx(0.001)


def test_nothing_is_expected_of_nothing() -> None:
    nodes = members(("a", "b", "c"))
    now = circumstances(PLAN, nodes, StepLoad(0, 0), {}, 3)
    assert now == Circumstances() and expected(PLAN, nodes, now).stage_s == () and for_what_runs(PLAN, nodes, now) is PLAN


def test_another_plan_is_told_for_the_same_rows_and_neighbours() -> None:
    """Two nodes of one host are 1.7 times as slow beside each other; a plan that leaves one of them out has no neighbours there."""
    nodes = members(("a", "a", "b"), rows=RowLaw.of_share(0.25))
    now = circumstances(PLAN, nodes, StepLoad(5, 16), {"w1": 0.034, "w2": 0.034, "w3": 0.02}, 3)
    assert for_what_runs(PLAN, nodes, now).stage_s == expected(PLAN, nodes, now).stage_s == pytest.approx((0.034, 0.034, 0.02))
    other = Plan(2, "balanced", (Stage("w1", 0, 2), Stage("w3", 2, 3)), (0.02, 0.01), 0.02, 0.033, hop_s=(0.001, 0.0))
    told = for_what_runs(other, nodes, now)
    assert told.stage_s == pytest.approx((0.04, 0.02)) and told.bottleneck_s == pytest.approx(0.04)
    assert told.round_trip_s == pytest.approx(0.06 + 0.003) and told.hop_s == other.hop_s


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


def test_the_plan_that_serves_has_the_same_figures_in_a_status_and_as_an_answer_beside_other_plans() -> None:
    driver = Driver(hold=True).start()
    for member in driver.cluster.members:
        member.rows = RowLaw.of_share(0.5)
    for number in range(12):
        driver.submit(f"s{number}", max_new_tokens=8)
    for _ in range(6):
        driver.now_s += 0.1
        for step in [driver.held.pop(0) for _ in tuple(driver.held)]:
            driver.report(step, tuple(StageTiming(name, 1.5, 0.0, 0.0, 0.0) for name in NAMES))
    cluster, status = driver.cluster, cluster_status(driver.cluster, "c", driver.now_s)
    assert cluster.plan is not None and status.stages[0].planned_s > status.stages[0].predicted_s > 0.0
    told = for_what_runs(cluster.preview("", cluster.plan.stages), cluster.members, what_runs(cluster))
    assert told.stage_s == tuple(stage.planned_s for stage in status.stages) and told.round_trip_s == status.speed.expected_step_s
