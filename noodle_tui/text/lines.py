"""Styled lines: what every view function returns and the only thing the painting widget understands.

A line is a tuple of spans; a span is text and the *name* of a style. Names become colours in `themes.py`, so views
know neither themes nor Textual, and two lines can be compared to find out whether a row must be repainted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len, chop_cells, set_cell_size, split_graphemes

from noodle_tui.glyphs import Glyphs

_UNMEASURED = re.compile("\u200d(?![\u203c-\u3299\U0001f000-\U0001faff])")


@dataclass(frozen=True, slots=True)
class Span:
    """Rich takes whatever follows a zero-width joiner for part of the emoji before it. Where it is a letter, as in Sinhala, it
    would be drawn in cells that nobody counted: there the joiner goes, and the letters stand unjoined."""

    text: str
    style: str = "text"

    def __post_init__(self) -> None:
        if not self.text.isascii() and "\u200d" in self.text:
            object.__setattr__(self, "text", _UNMEASURED.sub("", self.text))


Line = tuple[Span, ...]
Lines = tuple[Line, ...]
BLANK: Line = ()


@dataclass(frozen=True, slots=True)
class Canvas:
    """What a view may use: so many cells, one glyph table, one clock reading."""

    width: int
    height: int
    glyphs: Glyphs
    now_s: float

    def sized(self, width: int, height: int) -> Canvas:
        return Canvas(width, height, self.glyphs, self.now_s)


def line(*parts: Span | str) -> Line:
    """A line of spans; a bare string gets the normal style, an empty one disappears."""
    spans = (part if isinstance(part, Span) else Span(part) for part in parts)
    return tuple(span for span in spans if span.text)


def width_of(parts: Line) -> int:
    return sum(cell_len(span.text) for span in parts)


def fit(text: str, width: int, glyphs: Glyphs, align: str = "left") -> str:
    """`text` in exactly `width` cells; what does not fit ends in the ellipsis."""
    size = cell_len(text)
    if size > width:
        mark = glyphs.ellipsis if width > 2 * len(glyphs.ellipsis) else ""
        return set_cell_size(set_cell_size(text, max(0, width - cell_len(mark))) + mark, max(0, width))
    room = " " * (width - size)
    return room + text if align == "right" else text + room


def crop(parts: Line, width: int) -> Line:
    """At most `width` cells of a line; a wide character that straddles the edge becomes a space."""
    kept: list[Span] = []
    for span in parts:
        size = cell_len(span.text)
        if size >= width:
            kept.append(Span(set_cell_size(span.text, width), span.style))
            break
        kept.append(span)
        width -= size
    return tuple(span for span in kept if span.text)


def pad(parts: Line, width: int) -> Line:
    """A line of exactly `width` cells."""
    room = width - width_of(parts)
    return (*parts, Span(" " * room)) if room > 0 else crop(parts, width)


def stack(lines: Iterable[Line], height: int) -> Lines:
    """Exactly `height` lines: cut at the bottom or filled with blanks."""
    kept = tuple(lines)[:height]
    return kept + (BLANK,) * (height - len(kept))


def beside(left: Sequence[Line], right: Sequence[Line], left_width: int, glyphs: Glyphs) -> Lines:
    """Two columns with a rule between them; `left` takes `left_width` cells."""
    height = max(len(left), len(right))
    bar = Span(f" {glyphs.vertical} ", "rule")
    pairs = zip(stack(left, height), stack(right, height), strict=True)
    return tuple((*pad(a, left_width), bar, *b) for a, b in pairs)


def wrap(text: str, width: int) -> list[str]:
    """Break text into rows of at most `width` cells, at spaces where there are any."""
    rows: list[str] = []
    for paragraph in text.split("\n"):
        rows.extend(_wrap_paragraph(paragraph, width))
    return rows


def _wrap_paragraph(text: str, width: int) -> list[str]:
    rows: list[str] = []
    current = ""
    for word in _words(text, width):
        if cell_len(current) + cell_len(word.rstrip(" ")) > width and current:
            rows.append(current.rstrip(" "))
            current = ""
        current += word
    return [*rows, current.rstrip(" ")]


def _words(text: str, width: int) -> list[str]:
    """Words with their trailing space; one that is wider than a row is cut into rows."""
    words: list[str] = []
    for word in text.split(" "):
        pieces = [word] if cell_len(word) < width else chop_cells(word, width)
        words.extend(pieces[:-1])
        words.append((pieces[-1] if pieces else "") + " ")
    return words


def skip(parts: Line, width: int) -> Line:
    """What stands behind the first `width` cells; a wide character that straddles the edge becomes a space."""
    kept: list[Span] = []
    for span in parts:
        size = cell_len(span.text)
        if size <= width:
            width -= size
            continue
        if width:
            text = _behind(span.text, width)
            span, width = Span(text, span.style), 0
        kept.append(span)
    return tuple(kept)


def _behind(text: str, width: int) -> str:
    if text.isascii():
        return text[width:]
    used = 0
    for start, _, room in split_graphemes(text)[0]:
        if used >= width:
            return " " * (used - width) + text[start:]
        used += room
    return " " * max(0, used - width)
