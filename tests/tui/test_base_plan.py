"""A candidate is compared with the present plan as the coordinator prices both; the console computes no figure of a plan."""

from __future__ import annotations

import pytest

from engine.data.plan import Plan
from noodle_tui.core import messages as m
from noodle_tui.glyphs import ASCII
from noodle_tui.listings.base_plan import as_planned, base_plan, gain_of
from noodle_tui.listings.stage_times import step_times
from noodle_tui.listings.strategies import strategy_rows
from noodle_tui.screens.whatif import expectation, plan_difference, unknowns
from noodle_tui.state import ConsoleState
from noodle_tui.text.lines import Canvas
from tests.tui import frames
from tests.tui.scenes import live, state_of

FAR = (0.1, 0.1, 0.001, 0.0)  # hops over a link of 100 ms


def asked(*messages: m.Message, present: Plan | None = None) -> ConsoleState:
    priced = (m.PresentPlanned(present),) if present else ()
    return state_of((99.0, live()), (99.1, m.WhatIfAsked(14)), *((99.2, message) for message in (*priced, *messages)))


def test_a_candidate_over_slow_links_shows_what_the_planner_says() -> None:
    far = frames.plan(hop_s=FAR, round_trip_s=0.22, bottleneck_s=0.1)
    rows = {row.name: row for row in strategy_rows(asked(m.CandidateArrived("balanced", far), present=frames.present()))}
    assert rows["balanced"].step_s == 0.22 and rows["balanced"].bottleneck == "S0>S1 100 link"
    assert rows["balanced"].gain == pytest.approx(0.0118 / 0.1 - 1)
    picture = "\n".join("".join(span.text for span in row) for row in plan_difference(frames.present(), far, Canvas(80, 20, ASCII, 0.0)))
    assert picture.count("> 100") == 2, "the long hops are part of the picture, the short one is not"


def test_the_running_plan_has_no_gain_against_itself() -> None:
    present = frames.present(hop_s=FAR, round_trip_s=0.22, bottleneck_s=0.1)
    again = frames.present(hop_s=FAR, round_trip_s=0.21, bottleneck_s=0.099, strategy="latency_optimized")
    rows = {row.name: row for row in strategy_rows(asked(m.CandidateArrived("latency_optimized", again), present=present))}
    assert (rows["latency_optimized"].gain, rows["latency_optimized"].num_moved) == (None, 0)
    assert "%)" not in expectation(asked(), present, again)


def test_a_price_as_planned_is_no_second_figure_of_the_same_plan() -> None:
    status = frames.status()
    for share, names in ((1.0, ["planned", "measured"]), (1.02, ["planned", "measured"]), (1.2, ["planned", "current", "measured"])):
        priced = frames.present(round_trip_s=share * step_times(status)[0])
        assert [row.name for row in strategy_rows(asked(present=priced))] == names


def test_a_way_out_of_a_drift_is_a_gain_and_not_a_loss() -> None:
    """gpu-c was planned to take 11.8 ms and takes 18; a plan with 9 ms is twice as fast as what serves."""
    present = frames.present(stage_s=(0.005, 0.008, 0.018, 0.002), bottleneck_s=0.018)
    state = asked(m.CandidateArrived("balanced", frames.plan(bottleneck_s=0.009)), present=present)
    rows = {row.name: row for row in strategy_rows(state)}
    assert (rows["planned"].bottleneck_s, rows["current"].bottleneck_s) == (0.0118, 0.018), "two words for two figures"
    assert rows["balanced"].gain == pytest.approx(1.0)
    base = base_plan(state)
    assert base is present
    assert "bottleneck 18.0 > 9.0 ms" in expectation(state, base, frames.plan(bottleneck_s=0.009))
    assert "cpu-b -48%" in "".join(unknowns(state, base))


def test_without_the_coordinators_price_the_planned_figures_are_shown_and_no_gain() -> None:
    state = asked(m.CandidateArrived("balanced", frames.plan()))
    rows = {row.name: row for row in strategy_rows(state)}
    status = frames.status()
    assert (rows["planned"].step_s, rows["planned"].bottleneck_s) == (step_times(status)[0], max(s.planned_s for s in status.stages))
    assert "current" not in rows
    assert rows["balanced"].gain is None


def test_a_price_of_another_plan_is_not_used() -> None:
    for priced in (frames.present(for_version=13), frames.plan("given")):
        state = asked(present=priced)
        assert state.latest is not None and base_plan(state) == as_planned(state.latest.status)
    assert gain_of(frames.plan(for_version=15), frames.present()) is None
