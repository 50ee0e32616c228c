"""The graphs of the last minutes: what they remember, where they stand, and that they stay within bounds."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace

import pytest

from engine.data.status import NodeState, SessionStatus, Severity
from noodle_tui.core import messages as m
from noodle_tui.core.looks import COARSE_SPAN_S, FINE_SPAN_S, Looks, columns
from noodle_tui.core.pages import Page
from noodle_tui.glyphs import ASCII, UNICODE, Glyphs
from noodle_tui.listings.sessions import worst_sessions
from noodle_tui.screens.frame import screen_lines
from noodle_tui.state import ConsoleState
from noodle_tui.text.chart import chart
from noodle_tui.text.graph_sets import glyphs_for
from tests.tui import frames
from tests.tui.scenes import NOW_S, SERVED, WALL_S, keyed, lived, scene, state_of


def text_of(state: ConsoleState, width: int = 120, height: int = 40) -> str:
    return "\n".join("".join(span.text for span in row) for row in screen_lines(state, width, height, ASCII, NOW_S))


def seen(seconds: int, num_nodes: int = 3) -> Looks:
    """Looks at a cluster whose first stage takes one millisecond more every second."""
    looks, base = Looks(), frames.status(num_nodes, **SERVED)
    for i in range(seconds):
        stages = (replace(base.stages[0], compute_p50_s=0.001 * (i + 1)), *base.stages[1:])
        looks = looks.with_frame(replace(base, stages=stages), WALL_S + i)
    return looks


def test_two_hours_of_looks_are_five_minutes_and_an_hour_of_them() -> None:
    looks = seen(7200)
    fine, coarse = looks.of_node("gpu-a", "time_s", FINE_SPAN_S), looks.of_node("gpu-a", "time_s", COARSE_SPAN_S)
    assert 300 <= len(fine) <= 302 and 300 <= len(coarse) <= 302
    assert fine[-1] == (WALL_S + 7199, pytest.approx(7.2)) and coarse[0][0] == pytest.approx(WALL_S + 3600, abs=24)
    assert looks.fine[-1].nodes is looks.fine[0].nodes, "names are kept once"


def test_a_node_that_was_not_there_has_no_figures_and_a_lost_one_does_nothing() -> None:
    looks = seen(3)
    assert looks.of_node("pi-d", "time_s", FINE_SPAN_S) == []
    gone = tuple(replace(node, state=NodeState.LOST) for node in frames.status(3).nodes)
    looks = looks.with_frame(frames.status(3, nodes=gone), WALL_S + 3)
    assert [value for _, value in looks.of_node("gpu-a", "memory", FINE_SPAN_S)] == [0.25, 0.25, 0.25, 0.0]


def test_sessions_are_told_apart_from_nodes() -> None:
    assert [value for _, value in seen(1).of_session("s-22bb", "tokens_per_s", FINE_SPAN_S)] == [pytest.approx(14.0)]
    assert [value for _, value in seen(1).of_session("s-22bb", "step_p95_s", FINE_SPAN_S)] == [pytest.approx(0.0304)]


def test_a_replay_that_jumps_back_forgets_what_came_after() -> None:
    looks = seen(60).with_frame(frames.status(3), WALL_S + 30.95)
    assert looks.fine[-1].wall_s == WALL_S + 30.95 and len(looks.fine) == 32
    assert all(look.wall_s <= WALL_S + 30.95 for look in looks.coarse)


def test_columns_stand_still_between_their_moments_and_hold_the_highest() -> None:
    points = [(float(i), 1.0 if i != 7 else 9.0) for i in range(20)]
    assert columns(points, 19.0, 20.0, 4) == [1.0, 9.0, 1.0, 1.0]
    assert columns(points, 19.9, 20.0, 4) == columns(points, 15.0, 20.0, 4), "nothing moves within a column's time"
    assert columns([(0.0, 1.0), (2.0, 2.0)], 2.0, 3.0, 3) == [1.0, 2.0, 2.0], "what lies between two looks shows the later one"
    assert columns([(0.0, 1.0), (9.0, 2.0)], 9.0, 10.0, 10) == [1.0, *[0.0] * 8, 2.0], "a silence stays blank"


@pytest.mark.parametrize(("glyphs", "rows"), [(ASCII, [" #", "##"]), (UNICODE, [" \u2588", "\u2588\u2588"])])
def test_a_chart_grows_from_the_bottom(glyphs: Glyphs, rows: list[str]) -> None:
    drawn = chart([1.0, 2.0], 2.0, 0.0, 2, glyphs, "history")
    assert ["".join(span.text for span in row) for row in drawn] == rows


def test_a_chart_in_braille_holds_two_values_a_cell_and_a_high_one_has_a_colour() -> None:
    braille = glyphs_for("history=braille", ascii_only=False)
    (row,) = chart([1.0, 2.0, 0.0, 0.0], 2.0, 1.0, 1, braille, "history")
    assert "".join(span.text for span in row) == chr(0x2800 + 0x44 + 0xB8) + " " and row[0].style == "high"


@pytest.mark.parametrize("page", [page for page in Page if page not in (Page.PROFILE, Page.PROMPT, Page.LOGS)])
def test_the_graphs_stand_where_screens_were_half_empty_and_the_key_changes_their_span(page: Page) -> None:
    state = keyed(lived(), f"screen.{page.value}")
    assert "5 min ago" in text_of(state) and "|14" in text_of(state)
    assert "1 h ago" in text_of(keyed(state, "view.span")) and "5 min ago" in text_of(keyed(state, "view.span", "view.span"))
    assert "min ago" not in text_of(state, 100, 40) and "min ago" not in text_of(state, 80, 24)


def test_the_graphs_follow_the_cursor_and_mark_alarms() -> None:
    state = keyed(lived(), "screen.nodes", "nav.down", "nav.down")
    assert "gpu-c p50  11.8ms  0..2x plan 7.6ms" in text_of(state)
    event = frames.event(90, "heartbeat late by 2.1 s", Severity.WARN, subject="gpu-c", kind="node", wall_s=WALL_S - 100)
    told = state_of((99.6, m.FrameArrived(frames.frame(frames.status(**SERVED), event), WALL_S)), state=state)
    marks = next(row for row in text_of(told).splitlines() if "|13" in row)
    assert marks.index("W") < marks.index("|13"), "it was before the console came"


def test_half_of_a_plan_s_number_is_never_shown() -> None:
    """Plans that follow each other within a column would cut their labels to other numbers."""
    state = lived()
    for after_s, version in ((1, 21), (10, 22), (20, 23), (60, 23)):
        frame = frames.frame(frames.status(plan_version=version))
        state = state_of((99.5 + 0.001 * after_s, m.FrameArrived(frame, WALL_S + after_s)), state=state)
    marks = [row for row in text_of(state).splitlines() if "|23" in row]
    assert marks and not any(cut in row for row in marks for cut in ("|2 ", "|2|", "|1 ", "|1|"))


def test_the_worst_sessions_are_those_that_wait_then_the_slow_ones() -> None:
    usual = [SessionStatus(f"s-{i}", "decode", 10, 5, 50, 0.2, 14.0, 9.0, 0.03) for i in range(9)]
    slow, late = replace(usual[0], session_id="s-slow", step_p95_s=0.3), replace(usual[0], session_id="s-late", ttft_s=4.0)
    queued = replace(usual[0], state="queued", why="KV budget", step_p95_s=0.0)
    waits = [replace(queued, session_id=f"s-w{i}", waiting_s=float(i)) for i in (1, 2, 3)]
    found = worst_sessions([late, *usual, slow, *waits])
    assert [session.session_id for session, _ in found] == ["s-w3", "s-w2", "s-w1", "s-slow", "s-late"]
    assert found[0][1] == "waits 3s: KV budget"
    assert [why for _, why in found[3:]] == ["step p95 300ms, usual 30.0ms", "first token after 4000ms, usual 200ms"]
    assert worst_sessions(usual) == ()
    assert len(worst_sessions([replace(waits[0], session_id=f"s-{i}") for i in range(300)])) == 5


def test_the_worst_sessions_stand_beside_the_chosen_one() -> None:
    text = text_of(keyed(lived(), "screen.sessions"))
    assert "WORST SESSIONS" in text and "s-24dd         waits 19s: KV" in text


def test_a_lost_node_has_no_present_figures_in_its_graphs() -> None:
    lost = tuple(replace(n, state=NodeState.LOST, detail="gone") if n.worker_id == "pi-d" else n for n in frames.status().nodes)
    for page in ("screen.overview", "screen.nodes"):
        state = state_of((99.6, m.FrameArrived(frames.frame(frames.status(nodes=lost)), WALL_S)), state=lived())
        text = text_of(keyed(state, page), 120, 40)
        assert re.search(r"pi-d memory  -  0\.\.100%", text) and re.search(r"pi-d p50 +-  0", text), text


def test_a_profile_leaves_no_rows_empty_on_a_large_screen() -> None:
    """Its own figures first, the last minutes below; no more than one row in between is blank."""
    text = text_of(keyed(scene("profile"), "view.phase"), 200, 60)
    assert text.index("ALL ITEMS") < text.index("SLOWEST LAYERS  8 of 8") < text.index("THROUGHPUT") < text.index("5 min ago")
    rows = text[: text.index(" THROUGHPUT")].splitlines()[4:]
    assert not [i for i, (row, other) in enumerate(itertools.pairwise(rows)) if not row.strip() and not other.strip()]
    assert "1 h ago" in text_of(keyed(scene("profile"), "view.span"), 200, 60)
