"""The What-if page: what it shows in full where there is little room, and what it keeps once the plan has moved."""

from __future__ import annotations

from noodle_tui.core import messages as m
from noodle_tui.glyphs import ASCII
from noodle_tui.listings.strategies import strategy_rows
from noodle_tui.screens.whatif import whatif_body
from noodle_tui.state import ConsoleState
from noodle_tui.text.figures import signed_percent
from noodle_tui.text.lines import Canvas
from tests.tui import frames
from tests.tui.scenes import compared, keyed, live, slow_third_stage, state_of, suggesting

CANVAS = Canvas(80, 19, ASCII, 100.0)  # what the frame leaves of 80x24


def shown(state: ConsoleState) -> str:
    return "\n".join("".join(span.text for span in row) for row in whatif_body(state, CANVAS))


def chosen() -> ConsoleState:
    return keyed(compared(), "nav.down", "nav.down", "nav.down")


def test_the_stages_of_a_strategy_have_room_on_a_small_screen() -> None:
    text = shown(keyed(chosen(), "nav.in"))
    assert [f" S{i} {name}" in text for i, name in enumerate(("gpu-a", "cpu-b", "gpu-c", "pi-d"))] == [True] * 4
    assert text.count("meanwhile") == 4 and "UNKNOWN" in text, "nor is what it needs cut off"
    times = [row.index("ms   now") for row in text.splitlines() if "ms   now" in row]
    assert len(times) == 4 and len(set(times)) == 1, "one column"


def test_what_was_offered_goes_with_the_plan_that_it_was_offered_for() -> None:
    assert any(row.move is not None for row in strategy_rows(chosen())) and "2 items" in shown(chosen())
    moved = state_of((99.9, live(**(slow_third_stage() | {"plan_version": 15}))), state=chosen())
    assert [row.name for row in strategy_rows(moved)] == ["planned", "measured"]
    assert "the plan has moved" in shown(moved)


def test_an_answer_that_comes_after_the_plan_has_moved_is_no_offer() -> None:
    moved = state_of((99.9, live(plan_version=15)), state=chosen())
    for late in (m.CandidateArrived("cost", frames.plan("cost")), m.CandidateArrived("cost", None, "no plan fits")):
        assert [row.name for row in strategy_rows(state_of((100.0, late), state=moved))] == ["planned", "measured"]
    early = state_of((100.0, m.CandidateArrived("early", frames.plan("early", for_version=15))), state=chosen())
    assert "early" not in [row.name for row in strategy_rows(early)], "the coordinator is ahead of what the screen shows"


def test_a_suggestion_goes_with_its_plan_too() -> None:
    state = suggesting(compared())
    assert [row.move is not None for row in strategy_rows(state) if row.is_suggestion] == [True]
    changes = slow_third_stage() | {"plan_version": 15, "mode": "suggest", "suggestion_id": 7}
    moved = state_of((99.9, m.FrameArrived(live(**changes).frame, 1.7e9)), state=state)
    assert moved.suggestion is None and not [row for row in strategy_rows(moved) if row.is_suggestion]


def test_a_change_too_small_to_show_has_no_sign_of_loss() -> None:
    assert [signed_percent(share) for share in (-0.004, 0.004, -0.006, 0.0, None)] == ["+0%", "+0%", "-1%", "+0%", "-"]
