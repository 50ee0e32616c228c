"""What happened, newest first, with the severity as a word."""

from __future__ import annotations

from collections.abc import Sequence

from engine.data import Event, Severity
from noodle_tui.figures import clock
from noodle_tui.lines import Canvas, Lines, Span, fit, line, wrap

MAX_SUBJECT = 8
ONE_ROW_FROM = 60  # cells

_STYLES = {Severity.INFO: "dim", Severity.OK: "ok", Severity.WARN: "warn", Severity.ERROR: "error"}


def event_list(events: Sequence[Event], canvas: Canvas) -> Lines:
    """A heading and as many events as fit."""
    if canvas.height < 2:
        return ()
    title = line(Span(" EVENTS", "title"), Span("  newest first" if events else "  none yet", "dim"))
    shown = events[: canvas.height - 1]
    subject_width = min(MAX_SUBJECT, max((len(event.subject) for event in shown), default=0))
    rows = (row for event in shown for row in _rows(event, subject_width, canvas))
    return (title, *rows)[: canvas.height]


def _rows(event: Event, subject_width: int, canvas: Canvas) -> Lines:
    """One row, or two in a narrow column: the end of the sentence often holds the number."""
    indent = 1 + 8 + 1 + 5 + 1 + subject_width + 1
    text = wrap(event.text, max(8, canvas.width - indent))
    if len(text) > 1 and canvas.width >= ONE_ROW_FROM:
        text = [fit(event.text, canvas.width - indent, canvas.glyphs)]
    word = Span(f"{event.severity:<5}", _STYLES[event.severity])
    first = line(f" {clock(event.wall_s)} ", word, f" {fit(event.subject, subject_width, canvas.glyphs)} ", text[0])
    return (first, *(line(" " * indent + row) for row in text[1:2]))
