"""Screen 5: what happened: a timeline of the last minutes, the list, and the chosen event in full with what it caused."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len

from engine.data.status import Event
from noodle_tui.core.pages import Page
from noodle_tui.listings import cursor_row, table_of, warns
from noodle_tui.listings.events import SEVERITY_STYLES
from noodle_tui.listings.nodes import node_rows
from noodle_tui.state import ConsoleState, View
from noodle_tui.text.figures import clock
from noodle_tui.text.lines import Canvas, Line, Lines, Span, fit, line, wrap
from noodle_tui.text.tables import draw_table
from noodle_tui.widgets.history.timeline import NodeMark, key_of_marks, marks_of, timeline
from noodle_tui.widgets.history.trends import Trend, filling, of_node, of_session

WHY_ROWS = 5
RELATED_S = 5.0  # events of one subject this close together belong together, when they carry no cause


def events_body(state: ConsoleState, canvas: Canvas) -> Lines:
    """See the module docstring."""
    table, view = table_of(state, Page.EVENTS), state.shown
    if table is None or view is None:
        return ()
    listing = state.ui.listing(Page.EVENTS)
    marks = marks_of(state, view)
    top = (*timeline(state, view, marks, canvas), _rule(state, marks, canvas)) if canvas.height >= 14 else ()
    event: Event | None = cursor_row(state, Page.EVENTS)
    room = canvas.height - len(top)
    pane = 0 if event is None or room < 10 else (room - 6 if listing.detail else min(WHY_ROWS, room // 3))
    rows = draw_table(table, listing, canvas.sized(canvas.width, room - pane), warn_only=warns(state, Page.EVENTS))
    below = canvas.sized(canvas.width, room - len(rows))
    shown = (*top, *rows, *(why(view, event, below) if event is not None and pane else ()))
    return (*shown, *filling(state, _of_subject(state, view, event), canvas.sized(canvas.width, canvas.height - len(shown))))[
        : canvas.height
    ]


def _of_subject(state: ConsoleState, view: View, event: Event | None) -> tuple[Trend, ...]:
    """The node or session that the event is about, if it is there."""
    subject = event.subject if event is not None else ""
    node = next((row for row in node_rows(view.status) if row.node.worker_id == subject), None)
    session = next((row for row in view.status.sessions if row.session_id == subject), None)
    return of_node(state, node) if node is not None else of_session(state, session) if session is not None else ()


def _rule(state: ConsoleState, marks: Sequence[NodeMark], canvas: Canvas) -> Line:
    """It says which kind of event is left, if `f` chose one, and what the marks above stand for."""
    rule = canvas.glyphs.horizontal
    new = state.latest.status.alarms.num_unacknowledged if state.latest else 0
    seen = f" {new} new warning{'s' if new > 1 else ''}, {state.named('{cluster.acknowledge}')} = seen " if new else ""
    said = seen + f" only {state.ui.event_kind} events, {state.named('{view.kind}')} = next kind " if state.ui.event_kind else seen
    key = key_of_marks(marks, canvas.width - len(said) - 6)
    rest = canvas.width - 2 - cell_len(said) - cell_len(key)
    return line(Span(rule * 2, "rule"), Span(said, "warn"), Span(key, "dim"), Span(rule * rest, "rule"))


# --- why ------------------------------------------------------------------------------------------------------
def why(view: View, event: Event, canvas: Canvas) -> Lines:
    """The event in full, then what belongs to it: its cause, what it caused, its subject's next ones."""
    head = line(
        Span(" WHY  ", "title"), f"{clock(event.wall_s)} ", Span(str(event.severity), SEVERITY_STYLES[event.severity]), f" {event.subject}"
    )
    body = [line(f"   {row}") for row in wrap(event.text, canvas.width - 5)]
    rows: list[Line] = [head, *body[: max(1, canvas.height - 2)]]
    for other, relation in related(view.events, event):
        text = fit(f"{other.subject} {other.text}", canvas.width - 27, canvas.glyphs).rstrip()
        rows.append(
            line(
                Span(f"   {relation:<8}", "dim"),
                f"{clock(other.wall_s)} ",
                Span(f"{other.severity:<5}", SEVERITY_STYLES[other.severity]),
                f" {text}",
            )
        )
    return tuple(rows[: canvas.height])


def related(events: Sequence[Event], event: Event) -> list[tuple[Event, str]]:
    """Events with the same cause, oldest first; without one, those of its subject about the same time."""
    others = [other for other in reversed(events) if other.sequence != event.sequence]
    if event.cause_id:
        found = [other for other in others if other.cause_id == event.cause_id or event.cause_id == str(other.sequence)]
        return [(other, "before" if other.sequence < event.sequence else "then") for other in found]
    alike = [other for other in others if (other.kind, other.subject) == (event.kind, event.subject)]  # `#3` is a plan and a decision
    near = [other for other in alike if abs(other.wall_s - event.wall_s) <= RELATED_S]
    return [(other, "before" if other.sequence < event.sequence else "then") for other in near]
