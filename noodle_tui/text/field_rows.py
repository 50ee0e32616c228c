"""How a text of several lines lies in the rows of a field. Pure; a row is a half-open range of the text's characters."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from rich.cells import cell_len, split_graphemes

Row = tuple[int, int]


def rows_of(text: str, width: int) -> tuple[Row, ...]:
    """Cut at newlines, and where a line is longer than `width` cells less one: the cursor needs a place behind the last character."""
    rows: list[Row] = []
    start = 0
    for line in text.split("\n"):
        rows += [(start + a, start + b) for a, b in _cut(line, max(2, width - 1))]
        start += len(line) + 1
    return tuple(rows)


def row_of(rows: Sequence[Row], at: int) -> int:
    """In which row a cursor before character `at` stands: where a line was cut, at the beginning of the later one."""
    low, high = 0, len(rows)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if rows[middle][0] <= at else (low, middle)
    return low


def at_cell(text: str, rows: Sequence[Row], row: int, cell: int) -> int:
    """The character of a row at a cell, or its last place if the row is shorter; never inside a character of several."""
    start, stop = rows[row]
    is_cut = row + 1 < len(rows) and rows[row + 1][0] == stop  # its end is the beginning of the next row
    at = used = 0
    for begin, end, room in graphemes(text[start:stop]):
        if used + room > cell or (is_cut and start + end == stop):
            return start + begin
        at, used = end, used + room
    return start + at


def cell_of(text: str, rows: Sequence[Row], at: int) -> int:
    """How many cells of its row are before the cursor."""
    return cell_len(text[rows[row_of(rows, at)][0] : at])


def graphemes(text: str) -> list[tuple[int, int, int]]:
    """What is seen as one character: begin, end, cells. A newline is one, which takes none."""
    found: list[tuple[int, int, int]] = []
    start = 0
    for line in text.split("\n"):
        found += [(start + begin, start + end, room) for begin, end, room in _characters(line)]
        start += len(line) + 1
        found.append((start - 1, start, 0))
    return found[:-1]


def _characters(line: str) -> Sequence[tuple[int, int, int]]:
    return [(i, i + 1, 1) for i in range(len(line))] if line.isascii() else split_graphemes(line)[0]


@functools.lru_cache(maxsize=64)
def _cut(line: str, room: int) -> tuple[Row, ...]:
    """A line in pieces of at most `room` cells; an empty line is one empty piece."""
    if line.isascii():
        return tuple((i, min(len(line), i + room)) for i in range(0, len(line), room)) or ((0, 0),)
    pieces: list[Row] = []
    start = used = 0
    for begin, _, cells in graphemes(line):
        if used + cells > room:
            pieces.append((start, begin))
            start, used = begin, 0
        used += cells
    return (*pieces, (start, len(line)))
