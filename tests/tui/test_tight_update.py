"""The tight updates draw what Textual's own would draw, on a terminal in memory, in fewer bytes."""

from __future__ import annotations

import io

import pyte
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from textual._compositor import ChopsUpdate, CompositorUpdate, LayoutUpdate
from textual.geometry import Region
from textual.strip import Strip

from noodle_tui.terminal.tight_update import TightUpdate, tightened

WIDTH, HEIGHT = 24, 5
CONSOLE = Console(file=io.StringIO(), force_terminal=True, color_system="truecolor", width=WIDTH)
STYLES = [
    Style(),
    *(Style.parse(text) for text in ("red on #102030", "#d6dae4 on #102030", "bold #d6dae4 on #102030", "bold reverse red on #102030")),
    *(Style.parse(text) for text in ("italic default on default", "reverse green", "underline on blue", "#d6dae4 on #000000")),
]
TEXTS = st.text("ab \u2588\u6f22", min_size=1, max_size=8)


@st.composite
def strips(draw: st.DrawFn) -> Strip:
    """A row of exactly WIDTH cells in several styles."""
    parts = draw(st.lists(st.tuples(TEXTS, st.sampled_from(STYLES)), min_size=1, max_size=6))
    return Strip([Segment(text, style) for text, style in parts]).adjust_cell_length(WIDTH, STYLES[1])


def drawn(*updates: CompositorUpdate) -> tuple[list[dict[int, object]], int]:
    """Every cell after the updates, and how many bytes they took."""
    screen = pyte.Screen(WIDTH, HEIGHT)
    stream = pyte.Stream(screen)
    size = 0
    for update in updates:
        text = update.render_segments(CONSOLE)
        size += len(text)
        stream.feed(text.replace("\n", "\r\n"))
    return [{x: screen.buffer[y][x] for x in range(WIDTH)} for y in range(HEIGHT)], size


def test_what_follows_a_joined_emoji_stands_in_its_place_however_wide_the_terminal_draws_it() -> None:
    """The terminal in memory draws a family of three in six cells, where two were counted."""
    strip = Strip([Segment("a👩\u200d👩\u200d👧b❤️c🇩🇪d", STYLES[1])]).adjust_cell_length(WIDTH, STYLES[1])
    rows, _ = drawn(tightened(LayoutUpdate([[strip]], Region(0, 0, WIDTH, 1))))
    shown = {x: rows[0][x].data for x in range(WIDTH)}  # type: ignore[attr-defined]
    assert (shown[0], shown[3], shown[6], shown[9]) == ("a", "b", "c", "d") and [shown[x] for x in range(10, WIDTH)] == [" "] * (WIDTH - 10)


@settings(deadline=None)
@given(st.lists(strips(), min_size=HEIGHT, max_size=HEIGHT), st.lists(strips(), min_size=HEIGHT, max_size=HEIGHT), st.data())
def test_the_same_picture_in_no_more_bytes(before: list[Strip], after: list[Strip], data: st.DataObject) -> None:
    layout = LayoutUpdate([[strip] for strip in before], Region(0, 0, WIDTH, HEIGHT))
    mixed = [
        Strip.join([old.crop(0, cut := data.draw(st.integers(0, WIDTH))), new.crop(cut, WIDTH)])
        for old, new in zip(before, after, strict=True)
    ]
    spans = [(y, 0, WIDTH) for y in range(HEIGHT) if data.draw(st.booleans())] or [(0, 0, WIDTH)]
    chops = ChopsUpdate([{0: strip} for strip in mixed], spans, [[WIDTH]] * HEIGHT)
    expected, size = drawn(layout, chops)
    found, tight_size = drawn(tightened(layout), tightened(chops))
    assert found == expected and tight_size <= size


@settings(deadline=None)
@given(strips(), strips(), st.integers(0, WIDTH - 1), st.integers(1, WIDTH))
def test_a_range_touches_nothing_around_it(before: Strip, after: Strip, start: int, length: int) -> None:
    stop = min(WIDTH, start + length)
    layout = LayoutUpdate([[before]], Region(0, 0, WIDTH, 1))
    chops = ChopsUpdate([{0: after}], [(0, start, stop)], [[WIDTH]])
    whole = Strip.join([before.crop(0, start), after.crop(start, stop), before.crop(stop, WIDTH)])
    found, _ = drawn(tightened(layout), tightened(chops))
    expected, _ = drawn(LayoutUpdate([[whole]], Region(0, 0, WIDTH, 1)))
    assert [cell for x, cell in found[0].items() if start <= x < stop] == [cell for x, cell in expected[0].items() if start <= x < stop]


def test_neighbours_name_only_what_differs() -> None:
    row = Strip([Segment("a", STYLES[1]), Segment("b", STYLES[2]), Segment("c", STYLES[2])])
    text = tightened(LayoutUpdate([[row]], Region(0, 0, 3, 1))).render_segments(CONSOLE)
    assert text == "\x1b[1;1H\x1b[31;48;2;16;32;48ma\x1b[38;2;214;218;228mbc\x1b[0m"


def test_what_is_unknown_stays_as_it_is() -> None:
    assert tightened(None) is None and tightened("text") == "text"
    assert isinstance(tightened(LayoutUpdate([], Region(0, 0, 1, 0))), TightUpdate)
