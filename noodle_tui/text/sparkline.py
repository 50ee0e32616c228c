"""A sparkline in text cells: fixed scale, so that 5 ms and 500 ms never look alike, and three colour classes.

With the braille set a cell holds two values of four levels each, with the others one of eight.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from noodle_tui.glyphs import ASCII, UNICODE, Glyphs
from noodle_tui.text.lines import Line, Span

MID_FROM = 1.0  # times the prediction
HIGH_FROM = 1.5
BRAILLE = "braille"
_LEFT = (0x00, 0x40, 0x44, 0x46, 0x47)  # dots of the left column of a braille cell, from the bottom, by level
_RIGHT = (0x00, 0x80, 0xA0, 0xB0, 0xB8)
STYLES = ("low", "mid", "high")
Cell = tuple[int, str]  # severity, glyph


def values_per_cell(graph: str, glyphs: Glyphs) -> int:
    """How many values stand in one cell of a graph."""
    return 2 if glyphs.set_of(graph) == BRAILLE else 1


def levels_of(graph: str, glyphs: Glyphs) -> str:
    """The glyphs of a graph, low to high."""
    name = glyphs.set_of(graph)
    if name == BRAILLE:
        return "".join(dots(level, level) for level in range(1, len(_LEFT)))
    return (ASCII if name == ASCII.name else UNICODE).levels


def sparkline(values: Sequence[float], reference: float, width: int, glyphs: Glyphs, *, graph: str, high: bool = True) -> Line:
    """The newest values on a scale of 0 to twice `reference`, right edge is now; 0 means no step: blank.

    `graph` is one of `GRAPHS` in `graph_sets.py`. With `high` false a high value is nothing to warn of.
    """
    room = width * values_per_cell(graph, glyphs)
    recent = list(values)[-room:] if room > 0 else []
    recent = [0.0] * (room - len(recent)) + recent
    if glyphs.set_of(graph) == BRAILLE:
        cells = [_pair(left, right, reference) for left, right in zip(recent[::2], recent[1::2], strict=True)]
    else:
        levels = levels_of(graph, glyphs)
        cells = [_cell(value, reference, levels) for value in recent]
    groups = groupby(cells, key=lambda cell: cell[0] if high else 0)
    return tuple(Span("".join(glyph for _, glyph in run), STYLES[severity]) for severity, run in groups)


def _cell(value: float, reference: float, levels: str) -> Cell:
    level = _level(value, reference, len(levels))
    return severity(value, reference), levels[level - 1] if level else " "


def _pair(left: float, right: float, reference: float) -> Cell:
    """Two values in one cell: it looks as grave as the graver one."""
    top = len(_LEFT) - 1
    levels = _level(left, reference, top), _level(right, reference, top)
    return max(severity(left, reference), severity(right, reference)), dots(*levels) if any(levels) else " "


def dots(left: int, right: int) -> str:
    """Two levels of 0 to 4 in one braille cell."""
    return chr(0x2800 + _LEFT[left] + _RIGHT[right])


def _level(value: float, reference: float, num_levels: int) -> int:
    """1..num_levels, or 0 where there is nothing to draw."""
    if not value > 0 or not reference > 0:
        return 0
    return min(num_levels, 1 + int(min(value / reference, 2.0) / 2 * num_levels))


def severity(value: float, reference: float) -> int:
    """0 to 2: as planned, above it, far above it."""
    if not value > 0 or not reference > 0:
        return 0
    ratio = value / reference
    return 2 if ratio >= HIGH_FROM else 1 if ratio > MID_FROM else 0
