"""The same picture in fewer bytes: what Textual's compositor would write, without what the terminal already shows or knows.

Textual writes a changed range from the beginning of its widget, and the whole style of every run with a reset behind it. Here a
range begins where it begins, and a run names only what differs from the run before. A test compares both on a terminal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from rich.cells import split_graphemes
from rich.color import Color, ColorSystem
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.style import Style
from textual._compositor import ChopsUpdate, CompositorUpdate, LayoutUpdate

_ATTRIBUTES = ("1", "2", "3", "4", "5", "6", "7", "8", "9", "21", "51", "52", "53")  # Rich's bits in order
_NONE = Style()
_JOINED = re.compile("[\u200d\ufe0e\ufe0f\U0001f1e6-\U0001f1ff\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f]")
Run = tuple[int, int, Iterable[Segment]]  # x, y, what stands there


def tightened(update: Any) -> Any:
    """An equivalent update in fewer bytes; anything unknown comes back as it is."""
    if type(update) is ChopsUpdate:
        return TightUpdate(update, tuple(_changed_runs(update)))
    if type(update) is LayoutUpdate:
        x, y = update.region.offset
        return TightUpdate(update, tuple((x, y + i, [part for strip in row for part in strip]) for i, row in enumerate(update.strips)))
    return update


class TightUpdate(CompositorUpdate):
    """Runs of text at their places."""

    def __init__(self, update: ChopsUpdate | LayoutUpdate, runs: tuple[Run, ...]) -> None:
        self._update = update
        self._runs = runs

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Only for callers that do not write to a terminal."""
        return self._update.__rich_console__(console, options)

    def render_segments(self, console: Console) -> str:
        """What to write; begins and ends with no style set."""
        out: list[str] = []
        style = _NONE
        for x, y, segments in self._runs:
            out.append(f"\x1b[{y + 1};{x + 1}H")
            for segment in segments:
                wanted = segment.style or _NONE
                out += (_change(style, wanted, console._color_system or ColorSystem.TRUECOLOR), *_placed(segment.text, x))
                style, x = wanted, x + segment.cell_length
        return "".join((*out, _change(style, _NONE, ColorSystem.TRUECOLOR)))


def _placed(text: str, x: int) -> Iterator[str]:
    """`text` from column `x` on. Terminals disagree about how wide joined emoji are: what follows one is put where it belongs."""
    if not _JOINED.search(text):
        yield text
        return
    is_sure = True
    for start, stop, room in split_graphemes(text)[0]:
        grapheme = text[start:stop]
        joined = _JOINED.search(grapheme) is not None
        if not is_sure and not joined:
            yield f"\x1b[{x + 1}G"
        yield grapheme
        is_sure, x = not joined, x + room
    if not is_sure:
        yield f"\x1b[{x + 1}G"


def _changed_runs(update: ChopsUpdate) -> Iterator[Run]:
    """The parts of widgets that lie in changed ranges, cut at both ends."""
    for y, x1, x2 in update.spans:
        for end, (x, strip) in zip(update.chop_ends[y], update.chops[y].items(), strict=False):
            start, stop = max(x, x1), min(end, x2)
            if strip is not None and start < stop:
                yield start, y, strip.crop(start - x, stop - x)


def _change(before: Style, after: Style, system: ColorSystem) -> str:
    """The escape sequence from one style to another; empty when the terminal shows no difference."""
    if before is after:
        return ""
    old, new = _bits(before), _bits(after)
    if old & ~new or (after.color is None and before.color) or (after.bgcolor is None and before.bgcolor):
        before, old, codes = _NONE, 0, ["0"]
    else:
        codes = []
    codes += [code for bit, code in enumerate(_ATTRIBUTES) if new & ~old & (1 << bit)]
    codes += [*_color(before.color, after.color, system, True), *_color(before.bgcolor, after.bgcolor, system, False)]
    return f"\x1b[{';'.join(codes)}m" if codes else ""


def _bits(style: Style) -> int:
    return style._attributes & style._set_attributes


def _color(before: Color | None, after: Color | None, system: ColorSystem, foreground: bool) -> tuple[str, ...]:
    if after is None or after == before:
        return ()
    return after.downgrade(system).get_ansi_codes(foreground)
