"""Bars in text cells: a share of something, always beside its number."""

from __future__ import annotations

from noodle_tui.glyphs import Glyphs
from noodle_tui.text.lines import Line, Span, line


def bar(share: float, width: int, glyphs: Glyphs, style: str = "low") -> Line:
    """`[####....]`, `width` cells with its brackets."""
    inner = max(1, width - 2)
    done = max(0, min(inner, round(share * inner)))
    return line("[", Span(glyphs.full * done, style), Span(glyphs.empty * (inner - done), "dim"), "]")


def parts_bar(shares: tuple[tuple[float, str, str], ...], width: int, glyphs: Glyphs) -> Line:
    """A bar of several parts, each a share of the whole with its glyph and style; the rest is empty."""
    inner = max(1, width - 2)
    spans: list[Span | str] = ["["]
    used = 0
    for share, glyph, style in shares:
        cells = max(0, min(inner - used, round(share * inner)))
        spans.append(Span(glyph * cells, style))
        used += cells
    return line(*spans, Span(glyphs.empty * (inner - used), "dim"), "]")
