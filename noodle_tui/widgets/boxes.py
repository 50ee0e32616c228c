"""Boxes over other lines: borders around rows, and laying them over a picture without cutting wide characters in half."""

from __future__ import annotations

from noodle_tui.glyphs import Glyphs
from noodle_tui.text.lines import BLANK, Canvas, Lines, Span, crop, line, pad, skip, width_of


def boxed(rows: Lines, width: int, glyphs: Glyphs) -> Lines:
    """The rows with a border around them, `width` cells in all."""
    side = Span(glyphs.vertical, "accent")
    top = line(Span(glyphs.top_left + glyphs.horizontal * (width - 2) + glyphs.top_right, "accent"))
    bottom = line(Span(glyphs.bottom_left + glyphs.horizontal * (width - 2) + glyphs.bottom_right, "accent"))
    inside = tuple((side, Span(" "), *pad(crop(row, width - 4), width - 4), Span(" "), side) for row in rows)
    return (top, *inside, bottom)


def laid_over(base: Lines, box: Lines, canvas: Canvas, *, bottom: bool = False) -> Lines:
    """`base` with `box` in the middle, or at the bottom edge."""
    box = box[: canvas.height]
    width = max((width_of(row) for row in box), default=0)
    top = canvas.height - len(box) if bottom else max(0, (canvas.height - len(box)) // 2)
    left = 0 if bottom else max(0, (canvas.width - width) // 2)
    rows = list(base) + [BLANK] * (canvas.height - len(base))
    for i, row in enumerate(box):
        under = rows[top + i]
        rows[top + i] = (*pad(crop(under, left), left), *row, *skip(under, left + width))
    return tuple(rows)
