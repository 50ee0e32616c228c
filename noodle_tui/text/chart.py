"""A graph of several rows: columns that grow from the bottom, with the glyph set that was chosen for it. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

from noodle_tui.glyphs import Glyphs
from noodle_tui.text.lines import Lines, Span
from noodle_tui.text.sparkline import BRAILLE, STYLES, dots, levels_of, severity

BRAILLE_LEVELS = 4


def chart(values: Sequence[float], top: float, reference: float, height: int, glyphs: Glyphs, graph: str) -> Lines:
    """`height` rows on a scale of 0 to `top`; a value of 0 is blank. Above `reference` a column has a colour; 0: none does.

    With the braille set a cell holds two values, so there are half as many cells as values.
    """
    if glyphs.set_of(graph) == BRAILLE:
        levels = [_level(value, top, height * BRAILLE_LEVELS) for value in values]
        pairs = list(zip(levels[::2], levels[1::2], strict=True))
        styles = [STYLES[max(severity(v, reference) for v in values[i : i + 2])] for i in range(0, len(values), 2)]
        rows = [[_pair(left, right, row) for left, right in pairs] for row in range(height)]
    else:
        marks = levels_of(graph, glyphs)
        full = glyphs.full if glyphs.set_of(graph) == glyphs.name else marks[-1]
        levels = [_level(value, top, height * len(marks)) for value in values]
        styles = [STYLES[severity(value, reference)] for value in values]
        rows = [[_cell(level - row * len(marks), marks, full) for level in levels] for row in range(height)]
    return tuple(_joined(row, styles) for row in reversed(rows))


def _level(value: float, top: float, most: int) -> int:
    return max(1, min(most, math.ceil(value / top * most))) if value > 0 and top > 0 else 0


def _cell(level: int, marks: str, full: str) -> str:
    return " " if level <= 0 else full if level >= len(marks) else marks[level - 1]


def _pair(left: int, right: int, row: int) -> str:
    at = [max(0, min(BRAILLE_LEVELS, level - row * BRAILLE_LEVELS)) for level in (left, right)]
    return dots(*at) if any(at) else " "


def _joined(cells: Sequence[str], styles: Sequence[str]) -> tuple[Span, ...]:
    """A blank takes its neighbour's style: every change of style costs bytes."""
    worn: list[str] = []
    for cell, style in zip(cells, styles, strict=True):
        worn.append(worn[-1] if cell == " " and worn else style)
    groups = groupby(zip(cells, worn, strict=True), key=lambda pair: pair[1])
    return tuple(Span("".join(cell for cell, _ in run), style) for style, run in groups)
