"""Screen 5: what happened: a timeline of the last minutes, the list, and the chosen event in full with what it caused."""

from __future__ import annotations

from collections.abc import Sequence

from engine.data import Event, Severity
from noodle_tui.figures import age, clock, ms
from noodle_tui.history import Sample
from noodle_tui.lines import Canvas, Line, Lines, Span, fit, line, wrap
from noodle_tui.listings import cursor_row, table_of, warns
from noodle_tui.listings.events import SEVERITY_STYLES
from noodle_tui.pages import Page
from noodle_tui.state import ConsoleState, View
from noodle_tui.tables import draw_table
from noodle_tui.widgets.sparkline import sparkline, values_per_cell

LABEL = 15
WHY_ROWS = 5
FRAMES_APART_S = 3.0  # a longer silence is a gap in the graph
RELATED_S = 5.0  # events of one subject this close together belong together, when they carry no cause


def events_body(state: ConsoleState, canvas: Canvas) -> Lines:
    """See the module docstring."""
    table, view = table_of(state, Page.EVENTS), state.shown
    if table is None or view is None:
        return ()
    listing = state.ui.listing(Page.EVENTS)
    top = (*timeline(state, view, canvas), _rule(state, canvas)) if canvas.height >= 14 else ()
    event: Event | None = cursor_row(state, Page.EVENTS)
    room = canvas.height - len(top)
    pane = 0 if event is None or room < 10 else (room - 6 if listing.detail else min(WHY_ROWS, room // 3))
    rows = draw_table(table, listing, canvas.sized(canvas.width, room - pane), warn_only=warns(state, Page.EVENTS))
    below = canvas.sized(canvas.width, room - len(rows))
    return (*top, *rows, *(why(view, event, below) if event is not None and pane else ()))[: canvas.height]


def _rule(state: ConsoleState, canvas: Canvas) -> Line:
    """It says which kind of event is left, if `f` chose one."""
    rule = canvas.glyphs.horizontal
    said = f" only {state.ui.event_kind} events, f = next kind " if state.ui.event_kind else ""
    return line(Span(rule * 2, "rule"), Span(said, "warn"), Span(rule * (canvas.width - 2 - len(said)), "rule"))


# --- timeline -------------------------------------------------------------------------------------------------
def timeline(state: ConsoleState, view: View, canvas: Canvas) -> Lines:
    """Step time, plans and warnings on one axis of time; its right edge is now."""
    samples = state.samples
    width = max(10, canvas.width - LABEL - 12)
    span_s = max(60.0, min(1800.0, view.wall_s - samples[0].wall_s)) if samples else 60.0
    columns = _columns(samples, view.wall_s, span_s, width * values_per_cell("timeline", canvas.glyphs))
    known = [value for value in columns if value > 0]
    reference = sorted(known)[len(known) // 2] if known else 0.0
    graph = sparkline(columns, reference, width, canvas.glyphs, graph="timeline")
    scale = f" 0..{ms(2 * reference)}ms" if known else " no steps"
    return (
        line(Span(f" last {age(span_s):<4} p95 ", "dim"), *graph, Span(scale, "dim")),
        line(Span(f"{'plan':>14} ", "dim"), *_plan_marks(state, view.wall_s, span_s, width)),
        line(Span(f"{'warn':>14} ", "dim"), *_warn_marks(view, span_s, width), Span(" now", "dim")),
    )


def _columns(samples: Sequence[Sample], now_s: float, span_s: float, width: int) -> list[float]:
    """The highest p95 of each column's time; columns narrower than the frames' interval take the next frame's."""
    columns = [0.0] * width
    before = width
    for sample in samples:
        x = _column(sample.wall_s, now_s, span_s, width)
        near = int(FRAMES_APART_S / span_s * width)
        for i in range(before + 1 if x - before <= near else x, x + 1):
            columns[i] = max(columns[i], sample.step_p95_s)
        before = x if x >= 0 else width
    return columns


def _column(wall_s: float, now_s: float, span_s: float, width: int) -> int:
    """Where a moment stands; -1 before the beginning."""
    x = int((1 - (now_s - wall_s) / span_s) * width)
    return min(width - 1, x) if x >= 0 else -1


def _plan_marks(state: ConsoleState, now_s: float, span_s: float, width: int) -> Line:
    cells = [" "] * width
    for plan in state.plans:
        x = max(0, _column(plan.first_wall_s, now_s, span_s, width))
        for offset, char in enumerate(f"|{plan.plan_version}"):
            if x + offset < width:
                cells[x + offset] = char
    return line(Span("".join(cells), "accent"))


def _warn_marks(view: View, span_s: float, width: int) -> Line:
    """`W` and `E` where something went wrong; the worst of a column wins."""
    cells = ["."] * width
    for event in view.events:
        x = _column(event.wall_s, view.wall_s, span_s, width)
        if x >= 0 and event.severity in (Severity.WARN, Severity.ERROR) and cells[x] != "E":
            cells[x] = "W" if event.severity is Severity.WARN else "E"
    spans = [Span(cell, "error" if cell == "E" else "warn" if cell == "W" else "dim") for cell in cells]
    return tuple(spans)


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
    near = [other for other in others if other.subject == event.subject and abs(other.wall_s - event.wall_s) <= RELATED_S]
    return [(other, "before" if other.sequence < event.sequence else "then") for other in near]
