"""Every glyph the console draws, as an ASCII and a block table; `terminal/ascii_filter.py` holds ASCII mode together.

Graphs may be drawn with another set than the rest, each with its own; see `graph_sets.py`.

A theme cannot change glyphs: they carry facts (levels, the bottleneck, hops) that colour only repeats.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from rich.cells import split_graphemes


@dataclass(frozen=True, slots=True)
class Glyphs:
    """One glyph set; every character is one cell wide."""

    name: str
    horizontal: str
    vertical: str
    top_left: str
    top_right: str
    bottom_left: str
    bottom_right: str
    ellipsis: str
    levels: str  # low..high, for sparklines
    full: str  # progress and memory bars
    empty: str
    hop: str = ">"
    cursor: str = ">"
    bottleneck: str = "!!"
    broken_scale: str = "~"
    graph_sets: tuple[tuple[str, str], ...] = ()  # graphs that are drawn with another set, and which

    def set_of(self, graph: str) -> str:
        """The glyph set of one graph."""
        return dict(self.graph_sets).get(graph, self.name)


ASCII = Glyphs("ascii", "-", "|", "+", "+", "+", "+", "..", ".:-=+*#@", "#", ".")
UNICODE = Glyphs("block", "─", "│", "┌", "┐", "└", "┘", "…", "▁▂▃▄▅▆▇█", "█", "░")

_TRANSLATION = str.maketrans(
    {**{getattr(UNICODE, f): getattr(ASCII, f) for f in ("horizontal", "vertical", "top_left", "top_right", "bottom_left", "bottom_right")}}
    | dict(zip(UNICODE.levels, ASCII.levels, strict=True))
    | {"█": "#", "░": ".", "…": ".", "‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "-", "\u00a0": " "}
)


@lru_cache(4096)
def to_ascii(text: str) -> str:
    """The same number of cells in ASCII: known glyphs by their twin, anything else as `?`."""
    if text.isascii():
        return text
    known = text.translate(_TRANSLATION)
    graphemes = ((known[start:stop], room) for start, stop, room in split_graphemes(known)[0])
    return "".join(grapheme if grapheme.isascii() else "?" * room for grapheme, room in graphemes)
