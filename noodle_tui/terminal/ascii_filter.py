"""The net under ASCII mode: nothing else reaches the terminal, whatever widget drew it."""

from __future__ import annotations

from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

from noodle_tui.glyphs import to_ascii


class AsciiFilter(LineFilter):
    """Runs on every rendered strip, stock widgets included."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """Replace what is not ASCII, keeping styles and cell widths."""
        return [part if part.text.isascii() else Segment(to_ascii(part.text), part.style, part.control) for part in segments]
