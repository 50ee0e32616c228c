"""The Events screen's axis of time: plans, and what befell which node."""

from __future__ import annotations

from dataclasses import replace

from engine.data.status import Event, Severity
from noodle_tui.core import messages as m
from noodle_tui.glyphs import ASCII
from noodle_tui.state import ConsoleState
from noodle_tui.text.lines import Canvas
from noodle_tui.widgets.history.timeline import LABEL, key_of_marks, marks_of, timeline
from tests.tui import frames
from tests.tui.scenes import WALL_S, lived, state_of

CANVAS = Canvas(LABEL + 12 + 60, 20, ASCII, 100.0)  # one cell a second of the last minute


def told(*events: Event) -> ConsoleState:
    """A minute of frames (plan 13, then 14), then these events."""
    placed = [frames.event(100 + i, e.text, e.severity, subject=e.subject, kind=e.kind, wall_s=e.wall_s) for i, e in enumerate(events)]
    before = lived()
    assert before.latest is not None
    before = replace(before, latest=replace(before.latest, events=()))
    return state_of((99.5, m.FrameArrived(frames.frame(frames.status(plan_version=14), *placed), WALL_S)), state=before)


def node_event(ago_s: float, text: str, severity: Severity = Severity.INFO, node: str = "gpu-c", kind: str = "node") -> Event:
    return frames.event(1, text, severity, subject=node, kind=kind, wall_s=WALL_S - ago_s)


def rows_of(state: ConsoleState) -> tuple[str, str]:
    """The plan row and the node row, without their labels."""
    assert state.shown is not None
    rows = timeline(state, state.shown, marks_of(state, state.shown), CANVAS)
    plan, node = ("".join(span.text for span in row)[LABEL:] for row in rows[1:])
    return plan, node.removesuffix(" now")


def test_every_node_has_its_sign_and_its_letter_where_it_happened() -> None:
    state = told(
        node_event(50.5, "joined from lab, pid 7", node="pi-d"),
        node_event(40.5, "measured: all items take 3 ms per token here", node="cpu-b"),
        node_event(30.5, "heartbeat late by 2.1 s", Severity.WARN, node="cpu-b"),
        node_event(20.5, "draining: its items move to the other nodes", node="gpu-a"),
        node_event(10.5, "lost: its connection broke", Severity.ERROR),
    )
    plan, row = rows_of(state)
    assert plan.split() == ["|13", "|14"], "one mark for one event"
    assert {x: row[x : x + 2] for x in range(60) if row[x] in "+-W!"} == {9: "+d", 29: "Wb", 39: "-a", 49: "!c"}


def test_what_concerns_no_single_node_stands_in_the_row_of_the_plans() -> None:
    plan, node = rows_of(told(node_event(10.5, "interrupted", Severity.WARN, "s-9", "session")))
    assert plan[49] == "W" and "|14" in plan and set(node) == {"."}


def test_the_gravest_mark_keeps_its_place_and_the_others_stand_beside_it() -> None:
    joined = [node_event(20.5, "joined from lab, pid 7", node=name) for name in frames.NAMES]
    row = rows_of(told(*joined, node_event(20.5, "lost: killed", Severity.ERROR, node="cpu-b")))[1]
    assert row[39:41] == "!b"
    assert all(f"+{letter}" in row for letter in "abcd")


def test_the_newest_moment_is_inside_the_row() -> None:
    assert rows_of(told(node_event(0.0, "lost: killed", Severity.ERROR)))[1].endswith("!c")


def test_the_key_names_what_is_drawn_and_no_more() -> None:
    state = told(
        node_event(50.5, "joined from lab, pid 7", node="pi-d"),
        node_event(900.0, "heartbeat late by 2.1 s", Severity.WARN, node="cpu-b"),
        node_event(10.5, "left out: no memory", Severity.ERROR, node="stranger"),
    )
    assert state.shown is not None
    marks = marks_of(state, state.shown)
    assert key_of_marks(marks, 80) == " d=pi-d  e=stranger  + joined  ! lost or refused "
    assert key_of_marks(marks, 30) == " d=pi-d  e=stranger "
    assert key_of_marks([], 80) == ""
