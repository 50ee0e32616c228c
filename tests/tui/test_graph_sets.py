"""Glyph sets of graphs: what may be chosen, that every glyph is one cell, that braille never gets into ASCII mode."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from engine.data.errors import InvalidInput
from noodle_tui.config import parse_config
from noodle_tui.glyphs import ASCII, UNICODE
from noodle_tui.options import parse
from noodle_tui.text.graph_sets import GRAPHS, SETS, glyphs_for, parse_graph_sets
from noodle_tui.text.lines import width_of
from noodle_tui.text.sparkline import levels_of, sparkline, values_per_cell

BRAILLE = glyphs_for("braille", ascii_only=False)
values = st.lists(st.floats(0.0, 30.0), max_size=60)


def text_of(known: list[float], reference: float, width: int, chosen: str) -> str:
    glyphs = glyphs_for(chosen, ascii_only=False)
    return "".join(span.text for span in sparkline(known, reference, width, glyphs, graph="stage"))


@given(values, st.floats(0.0, 20.0), st.integers(0, 40), st.sampled_from(SETS), st.sampled_from(GRAPHS))
def test_every_graph_is_as_wide_as_asked_in_every_set(known: list[float], reference: float, width: int, name: str, graph: str) -> None:
    row = sparkline(known, reference, width, glyphs_for(name, ascii_only=False), graph=graph)
    assert width_of(row) == width
    assert all(cell_len(char) == 1 for span in row for char in span.text)


def test_all_glyphs_of_all_sets_are_one_cell() -> None:
    for name in SETS:
        levels = levels_of("stage", glyphs_for(name, ascii_only=False))
        assert len(levels) >= 4 and all(cell_len(char) == 1 for char in levels)


@given(values, st.floats(0.1, 20.0), st.sampled_from([*SETS, "timeline=braille"]))
def test_ascii_mode_draws_ascii_whatever_was_chosen(known: list[float], reference: float, chosen: str) -> None:
    glyphs = glyphs_for(chosen, ascii_only=True)
    assert glyphs is ASCII
    assert all(span.text.isascii() for span in sparkline(known, reference, 20, glyphs, graph="timeline"))


def test_a_braille_cell_holds_two_values_of_four_levels() -> None:
    assert text_of([0, 0, 0.1, 0.1, 0.6, 0.6, 1.1, 1.1, 1.6, 1.6], 1.0, 5, "braille") == " \u28c0\u28e4\u28f6\u28ff"
    assert text_of([1.6, 0.0], 1.0, 1, "braille") == "\u2847" and text_of([0.0, 1.6], 1.0, 1, "braille") == "\u28b8"
    assert text_of([1.6], 1.0, 2, "braille") == " \u28b8", "the right edge is now"
    assert values_per_cell("stage", BRAILLE) == 2 and values_per_cell("stage", UNICODE) == 1


def test_a_cell_looks_as_grave_as_the_graver_of_its_values() -> None:
    row = sparkline([0.5, 1.6, 0.5, 1.2, 0.5, 0.5], 1.0, 3, BRAILLE, graph="stage")
    assert [span.style for span in row] == ["high", "mid", "low"]


def test_sets_are_chosen_for_all_graphs_or_for_one() -> None:
    assert parse_graph_sets("") == {}
    assert parse_graph_sets("braille") == dict.fromkeys(GRAPHS, "braille")
    assert parse_graph_sets("braille, timeline=ascii") == {**dict.fromkeys(GRAPHS, "braille"), "timeline": "ascii"}
    glyphs = glyphs_for("timeline=braille,stage=ascii", ascii_only=False)
    assert [glyphs.set_of(graph) for graph in ("timeline", "stage", "throughput")] == ["braille", "ascii", "block"]
    assert levels_of("stage", glyphs) == ASCII.levels and glyphs.full == UNICODE.full


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dots", "'dots' is no glyph set; the sets are ascii, block, braille"),
        ("timeline=dots", "'dots' is no glyph set"),
        ("nodes=braille", "'nodes' is no graph; the graphs are throughput, step, stage, timeline, history"),
        ("=braille", "'' is no graph"),
    ],
)
def test_what_is_wrong_is_named(text: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InvalidInput, match="my/console") as caught:
        parse_config("my/console.toml", f'graphs = "{text}"')
    assert message in str(caught.value)
    with pytest.raises(SystemExit) as left:
        parse(["--graphs", text])
    assert left.value.code == 2 and message in " ".join(capsys.readouterr().err.split())


def test_the_command_line_wins_over_the_file() -> None:
    config = parse_config("c", 'graphs = "braille"')
    assert parse([], config).graphs == "braille" and parse(["--graphs", "block"], config).graphs == "block"
