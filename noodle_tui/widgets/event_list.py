"""What happened, newest first, with the severity as a word."""

from __future__ import annotations

from collections.abc import Sequence

from engine.data.status import Event, Severity
from noodle_tui.text.figures import clock, short_id
from noodle_tui.text.lines import Canvas, Line, Lines, Span, fit, line, wrap

MAX_SUBJECT = 12
HEAD_CELLS = 1 + 8 + 1 + 5 + 1  # time and severity
ONE_ROW_FROM = 60  # cells
MAX_ROWS = 4  # of one event

_STYLES = {Severity.INFO: "dim", Severity.OK: "ok", Severity.WARN: "warn", Severity.ERROR: "error"}


def event_list(events: Sequence[Event], key: str, canvas: Canvas) -> Lines:
    """A heading and as many events as fit; `key` opens the screen that has them all."""
    if canvas.height < 2:
        return ()
    title = line(Span(" EVENTS", "title"), Span(f"  newest first, {key} = all" if events else "  none yet", "dim"))
    shown = events[: canvas.height - 1]
    if canvas.width < ONE_ROW_FROM:
        rows = _in_a_column(shown, canvas)
    else:
        subject_width = min(MAX_SUBJECT, max((len(short_id(event.subject)) for event in shown), default=0))
        rows = tuple(_row(event, subject_width, canvas) for event in shown)
    return (title, *rows)[: canvas.height]


def notable(events: Sequence[Event]) -> list[Event]:
    """Newest first: without sessions that ended well, and of decisions in a row that only repeat themselves the newest."""
    kept: list[Event] = []
    for event in events:
        routine = event.severity is Severity.INFO
        if not (routine and event.kind == "session") and not (routine and event.kind == "adapt" and kept and kept[-1].kind == "adapt"):
            kept.append(event)
    return kept


def _row(event: Event, subject_width: int, canvas: Canvas) -> Line:
    head = _head(event)
    text = fit(event.text, canvas.width - HEAD_CELLS - subject_width - 1, canvas.glyphs).rstrip()
    return line(*head, f"{fit(short_id(event.subject), subject_width, canvas.glyphs)} ", text)


def _in_a_column(events: Sequence[Event], canvas: Canvas) -> Lines:
    """Whole sentences where all of them have room, else two rows each."""
    rows = tuple(row for event in events for row in _several_rows(event, MAX_ROWS, canvas))
    return rows if len(rows) < canvas.height else tuple(row for event in events for row in _several_rows(event, 2, canvas))


def _several_rows(event: Event, most: int, canvas: Canvas) -> Lines:
    """More than one row in a narrow column: the end of the sentence often holds the number."""
    width = max(8, canvas.width - HEAD_CELLS)
    rows = wrap(f"{short_id(event.subject)[:MAX_SUBJECT]} {event.text}", width)
    if len(rows) > most:
        rows[most - 1] = fit(f"{rows[most - 1]} {rows[most]}", width, canvas.glyphs).rstrip()
    more = tuple(line(" " * HEAD_CELLS + row) for row in rows[1:most])
    return (line(*_head(event), rows[0]), *more)


def _head(event: Event) -> Line:
    word = Span(f"{event.severity:<5}", _STYLES[event.severity])
    return line(f" {clock(event.wall_s)} ", word, " ")
