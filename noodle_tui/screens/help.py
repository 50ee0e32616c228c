"""The help overlay: generated from the key bindings themselves, so that it cannot disagree with them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual.binding import Binding, BindingType

from noodle_tui.glyphs import Glyphs
from noodle_tui.lines import BLANK, Canvas, Line, Lines, Span, beside, line, stack
from noodle_tui.screens.painted import PaintedScreen
from noodle_tui.state import ConsoleState
from noodle_tui.themes import Look, theme_names

_KEY_NAMES = {"question_mark": "?", "escape": "esc", "pageup": "pgup", "pagedown": "pgdn"}
_KEY_CELLS = 16
LEFT_CELLS = 50  # of the key list, when the symbols stand beside it


class Help(PaintedScreen):
    """What the keys do and what the symbols mean."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "app.help", "close the help", id="help.close")]

    def __init__(self, look: Look, glyphs: Glyphs, bindings: Iterable[BindingType]) -> None:
        super().__init__(look, glyphs)
        self._entries = tuple(binding for binding in bindings if isinstance(binding, Binding))

    def body(self, state: ConsoleState, canvas: Canvas) -> Lines:
        """Keys and symbols, side by side when there is room."""
        keys, symbols = _keys(self._entries), _symbols(canvas, self._look)
        if canvas.width >= 100:
            return stack(beside(keys, symbols, LEFT_CELLS, canvas.glyphs), canvas.height)
        return stack((*keys, BLANK, *symbols), canvas.height)

    def key_line(self, state: ConsoleState) -> Line:
        """How to get back."""
        return line(Span(" esc close   t theme   q quit", "dim"))


def _keys(bindings: Iterable[Binding]) -> Lines:
    rows = [line(Span(" KEYS  on Overview; nothing here changes the cluster", "title"))]
    for binding in bindings:
        names = " ".join(_KEY_NAMES.get(key, key) for key in binding.key.split(","))
        rows.append(line(Span(f" {names:<{_KEY_CELLS}}", "accent"), binding.description))
    return tuple(rows)


def _symbols(canvas: Canvas, look: Look) -> Lines:
    g = canvas.glyphs
    return (
        line(Span(" SYMBOLS", "title")),
        line(" ", Span("ok", "ok"), " fine   ", Span("WARN", "warn"), " over a limit   ", Span("ERROR", "error"), " lost or failed"),
        line(" ", Span(f"[{g.levels}]", "low"), " step times of a stage: 0 to 2x its plan, newest right"),
        line(" ", Span(g.bottleneck, "bottleneck"), f" the slowest stage   {g.hop} a hop   {g.broken_scale} blocks not to scale"),
        line(" ITEMS are the model's embedding, blocks and head, counted from 0"),
        line(" STALE: connected, but silent for 3 s   OFFLINE: retried 1 2 4 8 15 s"),
        line(" themes ", Span(look.name, "accent"), *(f" {name}" for name in theme_names() if name != look.name)),
        line(" NO_COLOR and NOODLE_ASCII=1 are respected"),
    )
