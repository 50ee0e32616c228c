"""Styled lines: widths are exact with wide characters too, and only cells that changed are repainted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from noodle_tui.glyphs import ASCII, UNICODE, to_ascii
from noodle_tui.text.lines import Span, crop, fit, line, pad, width_of, wrap
from noodle_tui.widgets.line_view import changed_cells

texts = st.text(st.sampled_from("ab c漢語é\u0301…█"), max_size=40)
lines = st.lists(st.builds(Span, texts, st.sampled_from(["text", "warn"])), max_size=5).map(tuple)


@given(texts, st.integers(0, 50), st.sampled_from([ASCII, UNICODE]), st.sampled_from(["left", "right"]))
def test_fit_is_exact(text: str, width: int, glyphs: object, align: str) -> None:
    assert cell_len(fit(text, width, glyphs, align)) == width  # type: ignore[arg-type]


@given(lines, st.integers(0, 60))
def test_crop_and_pad(parts: tuple[Span, ...], width: int) -> None:
    assert width_of(crop(parts, width)) == min(width, width_of(parts))
    assert width_of(pad(parts, width)) == width


@given(texts, st.integers(2, 30))
def test_wrapped_rows_fit_and_lose_no_word(text: str, width: int) -> None:
    rows = wrap(text, width)
    assert all(cell_len(row) <= width for row in rows)
    assert "".join("".join(rows).split()) == "".join(text.split())


def test_wrap_breaks_at_spaces_and_newlines() -> None:
    assert wrap("one two three\nfour", 8) == ["one two", "three", "four"]
    assert wrap("a" * 10, 4) == ["aaaa", "aaaa", "aa"]


@given(lines, lines, st.integers(1, 60))
def test_repainting_the_changed_cells_is_enough(old: tuple[Span, ...], new: tuple[Span, ...], width: int) -> None:
    from noodle_tui.widgets.line_view import _cells

    before, after = _cells(old, width), _cells(new, width)
    for start, stop in changed_cells(old, new, width):
        assert before[start][0] != "" and after[start][0] != "", "no wide character is cut on its left"
        assert stop == width or (before[stop][0] != "" and after[stop][0] != ""), "nor on its right"
        before[start:stop] = after[start:stop]
    assert before == after


def test_equal_lines_cost_nothing() -> None:
    assert changed_cells(line("same"), line("same"), 10) == []
    assert changed_cells(line("same"), line(Span("sa"), Span("me")), 10) == []
    assert changed_cells(line("a 1 b"), line("a 2 b"), 10) == [(2, 3)]


def test_a_wide_character_is_repainted_whole() -> None:
    assert changed_cells(line("a 漢 b"), line("a 語 b"), 10) == [(2, 4)]
    assert changed_cells(line("a 漢 b"), line("a xy b"), 10) == [(2, 4)]


@given(texts)
def test_ascii_twin_has_the_same_width(text: str) -> None:
    assert to_ascii(text).isascii()
    assert len(to_ascii(text)) == cell_len(text)


def test_both_glyph_tables_are_drawable() -> None:
    assert len(ASCII.levels) == len(UNICODE.levels)
    assert all(str(getattr(ASCII, name)).isascii() for name in ASCII.__slots__)
