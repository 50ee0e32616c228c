"""The one widget that paints: it shows styled lines and repaints only the cells that differ from before."""

from __future__ import annotations

from collections.abc import Mapping

from rich.cells import split_graphemes
from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from noodle_tui.text.lines import BLANK, Line, Lines, Span, crop

MERGE_CELLS = 10  # moving the cursor costs about as many bytes as writing this many cells
Cells = list[tuple[str, str]]


class LineView(Widget, can_focus=False):
    """A Line-API widget; `show` is its whole interface. It never polls and never lays anything out."""

    def __init__(self, styles_by_name: Mapping[str, Style], *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._styles_by_name = styles_by_name
        self._lines: Lines = ()

    @property
    def lines(self) -> Lines:
        """What is shown now."""
        return self._lines

    def show(self, lines: Lines) -> None:
        """Replace the content; rows that are equal cost nothing."""
        old, self._lines = self._lines, lines
        for y in range(min(self.size.height, max(len(old), len(lines)))):
            for start, stop in changed_cells(_at(old, y), _at(lines, y), self.size.width):
                self.refresh(Region(start, y, stop - start, 1))

    def restyle(self, styles_by_name: Mapping[str, Style]) -> None:
        """Use another theme's styles; everything is painted again."""
        self._styles_by_name = styles_by_name
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """One row as Textual wants it, with as few style changes as possible: they are most of the bytes."""
        text = self._styles_by_name["text"]
        parts = crop(_at(self._lines, y), self.size.width)
        segments = [Segment(span.text, self._styles_by_name.get(span.style, text)) for span in parts]
        return Strip(segments).adjust_cell_length(self.size.width, text).simplify()


def changed_cells(old: Line, new: Line, width: int) -> list[tuple[int, int]]:
    """Half-open ranges of cells in which two lines differ; ranges close to each other are one."""
    if old == new:
        return []
    before, after = _cells(old, width), _cells(new, width)
    ranges: list[tuple[int, int]] = []
    for x in (x for x in range(width) if before[x] != after[x]):
        start, stop = _whole_characters(x, before, after)
        if ranges and start - ranges[-1][1] < MERGE_CELLS:
            start = ranges.pop()[0]
        ranges.append((start, stop))
    return ranges


def _whole_characters(x: int, before: Cells, after: Cells) -> tuple[int, int]:
    """The smallest range around cell `x` that cuts no wide character in half."""
    start, stop = x, x + 1
    while start > 0 and "" in (before[start][0], after[start][0]):
        start -= 1
    while stop < len(before) and "" in (before[stop][0], after[stop][0]):
        stop += 1
    return start, stop


def _at(lines: Lines, y: int) -> Line:
    return lines[y] if y < len(lines) else BLANK


def _cells(parts: Line, width: int) -> Cells:
    """Every cell as (character, style); the further cells of a wide character are empty strings."""
    cells: Cells = []
    for span in crop(parts, width):
        cells.extend(_span_cells(span))
    return cells + [(" ", "text")] * (width - len(cells))


def _span_cells(span: Span) -> Cells:
    if span.text.isascii():
        return [(char, span.style) for char in span.text]
    cells: Cells = []
    for start, stop, room in split_graphemes(span.text)[0]:
        cells.extend((span.text[start:stop] if i == 0 else "", span.style) for i in range(room))
    return cells
