"""One fixed line: what is wrong, why, and the key that helps; blank while nothing is."""

from __future__ import annotations

from rich.cells import cell_len

from engine.diagnosis.finding import Finding, Kind
from noodle_tui.listings.diagnosis import findings, key_for
from noodle_tui.state import ConsoleState
from noodle_tui.text.lines import BLANK, Canvas, Line, Span, fit, line
from noodle_tui.text.safe_text import safe_text

MIN_WHY = 12
_ERRORS = (Kind.LOST_NODE, Kind.COORDINATOR, Kind.DISK)


def diagnosis_line(state: ConsoleState, canvas: Canvas) -> Line:
    """The worst finding, and how many more there are; the key is never cut off."""
    found = findings(state, canvas.now_s)
    if not found:
        return BLANK
    return _line(found[0], f"  +{len(found) - 1} more" if len(found) > 1 else "", key_for(state, found[0]), canvas)


def second_line(state: ConsoleState, canvas: Canvas) -> Line:
    """The next one, where a screen has a row for it."""
    found = findings(state, canvas.now_s)
    return _line(found[1], "", key_for(state, found[1]), canvas) if len(found) > 1 else BLANK


def _line(worst: Finding, more: str, do: str, canvas: Canvas) -> Line:
    what = safe_text(worst.what[:1].upper() + worst.what[1:])
    room = canvas.width - 4 - cell_len(do) - len(more)
    what = fit(what, min(cell_len(what), max(8, room - MIN_WHY - 2)), canvas.glyphs)
    why = safe_text(worst.why)
    left = room - cell_len(what) - 2
    return line(
        Span(f" {what}", "error" if worst.kind in _ERRORS else "warn"),
        f"  {_as_much_as_fits(why, left, canvas)}" if left >= MIN_WHY else "",
        Span(f"  {do}", "accent"),
        Span(more, "dim"),
    )


def _as_much_as_fits(why: str, room: int, canvas: Canvas) -> str:
    """Whole pieces of a sentence; only where its first one is too long the ellipsis."""
    for mark in ("", ": ", "; ", ", "):
        kept = why.rpartition(mark)[0] if mark else why
        if kept and cell_len(kept) <= room:
            return kept
    return fit(why, min(cell_len(why), room), canvas.glyphs)
