"""A candidate is compared with the present plan by the same times, whatever the plan was made with."""

from __future__ import annotations

import json

import pytest

from engine.data.errors import InvalidInput
from noodle_tui import messages as m
from noodle_tui.listings.strategies import strategy_rows
from noodle_tui.present_plan import present_plan, replanned
from noodle_tui.screens.whatif import expectation, unknowns
from tests.tui import frames
from tests.tui.scenes import live, state_of

ITEM_S = {"gpu-a": 0.001, "cpu-b": 0.002, "gpu-c": 0.004, "pi-d": 0.001}


def problem(**changes: object) -> str:
    return json.dumps({"nodes": [{"id": name, "time_s": [ITEM_S[name]] * 14} for name in frames.NAMES]} | changes)


def test_the_present_stages_take_what_the_problem_says() -> None:
    plan = present_plan(problem(), frames.status())
    assert plan.plan_version == 14 and plan.stage_s == pytest.approx((0.005, 0.008, 0.012, 0.002))
    assert plan.bottleneck_s == pytest.approx(0.012)


def test_what_a_stage_takes_beside_its_items_counts() -> None:
    nodes = [{"id": name, "time_s": [ITEM_S[name]] * 14, "base_s": 0.003} for name in frames.NAMES]
    assert present_plan(problem(nodes=nodes), frames.status()).stage_s == pytest.approx((0.008, 0.011, 0.015, 0.005))


def test_a_table_of_stage_times_is_read_by_the_number_of_items() -> None:
    nodes = [{"id": name, "stage_time_s": [0.01 * (i + 1) for i in range(14)]} for name in frames.NAMES]
    assert present_plan(problem(nodes=nodes), frames.status()).stage_s == pytest.approx((0.05, 0.04, 0.03, 0.02))


@pytest.mark.parametrize(
    "document", ["", "[]", "{}", problem(nodes=[]), problem(nodes=[{"id": n, "time_s": [1.0]} for n in frames.NAMES]), problem(nodes=None)]
)
def test_a_problem_without_the_present_stages_is_refused(document: str) -> None:
    with pytest.raises(InvalidInput, match="planning problem"):
        present_plan(document, frames.status())


def test_a_way_out_of_a_drift_is_a_gain_and_not_a_loss() -> None:
    """gpu-c was planned to take 7.6 ms and takes 12; a plan with 9.1 ms is a third faster than what serves."""
    state = state_of((99.0, live()), (99.1, m.WhatIfAsked(14)), (99.2, m.PresentPlanned(present_plan(problem(), frames.status()))))
    state = state_of((99.3, m.CandidateArrived("balanced", frames.plan(bottleneck_s=0.009))), state=state)
    rows = {row.name: row for row in strategy_rows(state)}
    assert rows["current"].bottleneck_s == pytest.approx(0.012)
    assert rows["balanced"].gain == pytest.approx(0.012 / 0.009 - 1)
    status = replanned(state, frames.status())
    assert expectation(status, frames.plan(bottleneck_s=0.009)).startswith("bottleneck 12.0 > 9.0 ms")
    assert "cpu-b -48%" in "".join(unknowns(state, status))


def test_times_of_another_plan_are_not_used() -> None:
    state = state_of((99.0, live(plan_version=15)), (99.2, m.PresentPlanned(present_plan(problem(), frames.status()))))
    status = frames.status(plan_version=15)
    assert replanned(state, status) is status
