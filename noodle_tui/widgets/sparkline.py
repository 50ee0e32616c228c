"""A sparkline in text cells: fixed scale, so that 5 ms and 500 ms never look alike, and three colour classes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from noodle_tui.glyphs import Glyphs
from noodle_tui.lines import Line, Span

MID_FROM = 1.0  # times the prediction
HIGH_FROM = 1.5


def sparkline(values: Sequence[float], reference: float, width: int, glyphs: Glyphs, *, high: bool = True) -> Line:
    """The newest `width` values on a scale of 0 to twice `reference`, right edge is now; 0 means no step: blank.

    With `high` false a high value is nothing to warn of.
    """
    recent = list(values)[-width:]
    cells = [("low", " ")] * (width - len(recent)) + [_cell(value, reference, glyphs.levels) for value in recent]
    if not high:
        cells = [("low", glyph) for _, glyph in cells]
    groups = groupby(cells, key=lambda cell: cell[0])
    return tuple(Span("".join(glyph for _, glyph in run), style) for style, run in groups)


def _cell(value: float, reference: float, levels: str) -> tuple[str, str]:
    if not value > 0 or not reference > 0:
        return "low", " "
    ratio = value / reference
    index = min(len(levels) - 1, int(min(ratio, 2.0) / 2 * len(levels)))
    style = "high" if ratio >= HIGH_FROM else "mid" if ratio > MID_FROM else "low"
    return style, levels[index]
