"""Lists as data: columns, how rows are filtered and sorted, what an export holds, and how a list is drawn.

A filter is words with spaces between them, all of which must hold: `text` is found anywhere in the row, `!text` nowhere,
`field:text` in that column. Upper and lower case are the same. Nothing here knows which screen it serves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from rich.cells import cell_len

from noodle_tui.glyphs import Glyphs
from noodle_tui.text.lines import Canvas, Line, Lines, Span, crop, fit, line, pad, wrap

MARK = "*"
Draw = Callable[[Any, int, Glyphs], Line]


@dataclass(frozen=True, slots=True)
class Column:
    """One field of a row. `value` is what filters, sorting and exports see; `text` what is drawn for it."""

    name: str
    title: str
    width: int  # cells; 0 takes what the others leave
    value: Callable[[Any], Any]
    text: Callable[[Any], str] | None = None
    style: Callable[[Any], str] | None = None
    draw: Draw | None = None
    right: bool = False
    from_width: int = 0  # of the canvas; narrower ones do without
    until_width: int = 10_000
    covered: bool = False  # replaced by the row's sentence where it has one
    short: str = ""  # the title where the whole one has no room


@dataclass(frozen=True, slots=True)
class Listing:
    """What the user has done to one list."""

    cursor: str = ""  # the identity of the row; it stays on it when the order changes
    index: int = 0  # where the cursor was, for when that row is gone
    sort: str = ""  # a column's name; empty is the list's own order
    reverse: bool = False
    filter: str = ""
    detail: bool = False
    marked: frozenset[str] = frozenset()  # identities of rows that were marked; some may be gone


@dataclass(frozen=True, slots=True)
class Table:
    """Rows in their own order, with everything needed to show them."""

    noun: str  # plural, for the footer
    rows: tuple[Any, ...]
    columns: tuple[Column, ...]
    identity: Callable[[Any], str]
    is_warning: Callable[[Any], bool] = field(default=lambda row: True)
    sentence: Callable[[Any, int, Glyphs], Line | None] | None = None  # stands in for the covered columns
    empty: str = "nothing here"  # what would fill it
    clears: str = ""  # the key that takes a filter back
    shows_all: str = ""  # the key that shows more than warnings
    home: str = ""  # the identity of the row that the cursor is on until somebody moves it; the first one if it is empty


# --- arranging ------------------------------------------------------------------------------------------------
def arrange(table: Table, listing: Listing, warn_only: bool = False) -> tuple[Any, ...]:
    """The rows that pass the filter, in the order asked for."""
    rows = [row for row in table.rows if not warn_only or table.is_warning(row)]
    terms = listing.filter.lower().split()
    if terms:
        rows = [row for row in rows if _passes(table, row, terms)]
    column = next((c for c in table.columns if c.name == listing.sort), None)
    if column is not None:
        rows.sort(key=lambda row: _sort_key(column.value(row)), reverse=listing.reverse)
    elif listing.reverse:
        rows.reverse()
    return tuple(rows)


def cursor_index(table: Table, rows: Sequence[Any], listing: Listing) -> int:
    """Where the cursor is among `rows`; 0 for an empty list."""
    wanted = listing.cursor or table.home
    for i, row in enumerate(rows):
        if table.identity(row) == wanted:
            return i
    return max(0, min(listing.index, len(rows) - 1))


def record(table: Table, row: Any) -> dict[str, Any]:
    """One row as an export holds it."""
    return {c.name: _plain(c.value(row)) for c in table.columns}


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value


def _passes(table: Table, row: Any, terms: Sequence[str]) -> bool:
    texts = {c.name: str(_plain(c.value(row))).lower() for c in table.columns}
    return all(_holds(term, texts) for term in terms)


def _holds(term: str, texts: Mapping[str, str]) -> bool:
    if term.startswith("!") and len(term) > 1:
        return not _holds(term[1:], texts)
    name, colon, wanted = term.partition(":")
    if colon and name in texts:
        return wanted in texts[name]
    return any(term in text for text in texts.values())


def _sort_key(value: Any) -> tuple[int, Any]:
    """Numbers before texts, nothing last; values of different kinds can stand in one column."""
    if value is None:
        return (2, "")
    if isinstance(value, int | float):
        return (0, value if value == value else float("inf"))
    return (1, str(value).lower())


# --- drawing --------------------------------------------------------------------------------------------------
def draw_table(table: Table, listing: Listing, canvas: Canvas, *, warn_only: bool = False, active: bool = True) -> Lines:
    """A header, then as many rows as fit around the cursor; a footer only if some are hidden."""
    rows = arrange(table, listing, warn_only)
    if canvas.height < 2:
        return ()
    columns = [c for c in table.columns if c.title and c.from_width <= canvas.width <= c.until_width]
    marked = listing.marked & {table.identity(row) for row in table.rows}
    if marked:
        mark = Column("marked", " ", 1, lambda row: MARK if table.identity(row) in marked else " ", style=lambda row: "accent")
        columns = [mark, *columns]
    widths = _widths(columns, canvas.width - 1)
    header = _header(columns, widths, listing, canvas)
    if not rows:
        nothing = wrap(_nothing(table, listing, warn_only), canvas.width - 2)
        return (header, *(line(Span(f" {row}", "dim")) for row in nothing))[: canvas.height]
    room = canvas.height - 1
    hidden = _hidden(table, rows, listing)
    if len(rows) > room or hidden or marked:
        room = max(1, room - 1)
    cursor = cursor_index(table, rows, listing)
    first = max(0, min(cursor - room // 2, len(rows) - room))
    shown = rows[first : first + room]
    body = [_row(table, row, columns, widths, active and first + i == cursor, canvas) for i, row in enumerate(shown)]
    if len(rows) > room or hidden or marked:
        places, total = (f"{first + 1}-{first + len(shown)}", len(rows)) if len(rows) > room else (f"{len(rows)}", len(table.rows))
        where = f" {places} of {total} {table.noun}"
        marks = f", {len(marked)} marked ({MARK}), {table.clears} unmarks" if marked else ""
        body.append(line(Span(where, "dim"), Span(marks, "accent"), Span(hidden, "dim")))
    return (header, *body)[: canvas.height]


def _nothing(table: Table, listing: Listing, warn_only: bool) -> str:
    if not table.rows:
        return table.empty
    if listing.filter:
        return f"none of {len(table.rows)} {table.noun} passes, {table.clears} clears the filter: {listing.filter}"
    return f"none of {len(table.rows)} {table.noun} is a warning: {table.shows_all} shows all"


def _hidden(table: Table, rows: Sequence[Any], listing: Listing) -> str:
    """What a filter keeps from sight, and how to get it back."""
    num_hidden = len(table.rows) - len(rows)
    if not num_hidden:
        return ""
    if not listing.filter:
        return f", {num_hidden} hidden by {table.shows_all}"
    return f", {num_hidden} hidden by filter {listing.filter!r}, {table.clears} clears it"


def _widths(columns: Sequence[Column], width: int) -> list[int]:
    fixed = sum(c.width + 1 for c in columns if c.width)
    return [c.width or max(6, width - fixed - 1) for c in columns]


def _header(columns: Sequence[Column], widths: Sequence[int], listing: Listing, canvas: Canvas) -> Line:
    parts: list[Span | str] = [" "]
    for column, width in zip(columns, widths, strict=True):
        mark = ("^" if listing.reverse else "v") if column.name == listing.sort else ""
        title = column.short if column.short and cell_len(column.title) > width - len(mark) else column.title
        text = fit(title, width - len(mark), canvas.glyphs, "right" if column.right else "left")
        text = text.rstrip() + mark if mark and not column.right else text + mark
        parts += [Span(fit(text, width, canvas.glyphs), "accent" if mark else "dim"), " "]
    return crop(line(*parts), canvas.width)


def _row(table: Table, row: Any, columns: Sequence[Column], widths: Sequence[int], selected: bool, canvas: Canvas) -> Line:
    parts: list[Span] = [Span(canvas.glyphs.cursor if selected else " ", "accent")]
    covered = [i for i, c in enumerate(columns) if c.covered]
    sentence = None
    if table.sentence is not None and covered:
        room = sum(widths[i] + 1 for i in covered) - 1
        sentence = table.sentence(row, room, canvas.glyphs)
    for i, (column, width) in enumerate(zip(columns, widths, strict=True)):
        if sentence is None or i not in covered:
            parts += [*_cell(column, row, width, canvas.glyphs), Span(" ")]
        elif i == covered[0]:
            parts += [*pad(crop(sentence, room), room), Span(" ")]
    return crop(_joined(parts), canvas.width)


def _cell(column: Column, row: Any, width: int, glyphs: Glyphs) -> Line:
    if column.draw is not None:
        return pad(crop(column.draw(row, width, glyphs), width), width)
    value = column.value(row)
    text = column.text(row) if column.text else "-" if value is None else str(value)
    style = column.style(row) if column.style else "text"
    return (Span(fit(text, width, glyphs, "right" if column.right else "left"), style),)


def _joined(parts: Sequence[Span]) -> Line:
    """Neighbours of one style become one span: style changes are the bytes."""
    joined: list[Span] = []
    for part in parts:
        if joined and joined[-1].style == part.style:
            joined[-1] = Span(joined[-1].text + part.text, part.style)
        elif part.text:
            joined.append(part)
    return tuple(joined)


def widest(texts: Sequence[str], low: int, high: int) -> int:
    """A column's width for what stands in it now, between bounds."""
    return max(low, min(high, max((cell_len(text) for text in texts), default=0)))
