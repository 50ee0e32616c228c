"""What happened, newest first, with the severity as a word."""

from __future__ import annotations

from collections.abc import Sequence

from engine.data import Event, Severity
from noodle_tui.figures import clock
from noodle_tui.lines import Canvas, Line, Lines, Span, fit, line, wrap

MAX_SUBJECT = 12
HEAD_CELLS = 1 + 8 + 1 + 5 + 1  # time and severity
ONE_ROW_FROM = 60  # cells

_STYLES = {Severity.INFO: "dim", Severity.OK: "ok", Severity.WARN: "warn", Severity.ERROR: "error"}


def event_list(events: Sequence[Event], canvas: Canvas) -> Lines:
    """A heading and as many events as fit."""
    if canvas.height < 2:
        return ()
    title = line(Span(" EVENTS", "title"), Span("  newest first" if events else "  none yet", "dim"))
    shown = events[: canvas.height - 1]
    if canvas.width < ONE_ROW_FROM:
        most = 4 if len(shown) * 4 < canvas.height else 2
        rows = tuple(row for event in shown for row in _several_rows(event, most, canvas))
    else:
        subject_width = min(MAX_SUBJECT, max((len(event.subject) for event in shown), default=0))
        rows = tuple(_row(event, subject_width, canvas) for event in shown)
    return (title, *rows)[: canvas.height]


def _row(event: Event, subject_width: int, canvas: Canvas) -> Line:
    head = _head(event)
    text = fit(event.text, canvas.width - HEAD_CELLS - subject_width - 1, canvas.glyphs).rstrip()
    return line(*head, f"{fit(event.subject, subject_width, canvas.glyphs)} ", text)


def _several_rows(event: Event, most: int, canvas: Canvas) -> Lines:
    """More than one row in a narrow column: the end of the sentence often holds the number."""
    rows = wrap(f"{event.subject[:MAX_SUBJECT]} {event.text}", max(8, canvas.width - HEAD_CELLS))
    more = tuple(line(" " * HEAD_CELLS + row) for row in rows[1:most])
    return (line(*_head(event), rows[0]), *more)


def _head(event: Event) -> Line:
    word = Span(f"{event.severity:<5}", _STYLES[event.severity])
    return line(f" {clock(event.wall_s)} ", word, " ")
