"""The text chart against pictures drawn by hand."""

from __future__ import annotations

from engine.simulation.gantt import text_gantt
from engine.simulation.machines.node import Span


def test_it_draws_who_computes_when() -> None:
    spans = [
        Span(0, 0.0, 2.0, ("s0",), True),
        Span(0, 2.0, 3.0, ("s1",), True),
        Span(1, 2.0, 4.0, ("s0",), False),
        Span(1, 5.0, 6.0, ("s0", "s1"), False),
        Span(0, 6.0, 8.0, ("s26",), False),
    ]
    rows = text_gantt(spans, ["S0 a", "S1 bb"], width=8).splitlines()
    assert rows[0] == "S0 a  |AAB...aa|"
    assert rows[1] == "S1 bb |..aa.#..|"
    assert "0.0 ms to 8000.0 ms, a column is 1000.000 ms" in rows[2]


def test_short_steps_share_a_column_and_the_end_can_be_cut() -> None:
    spans = [Span(0, k * 0.1, k * 0.1 + 0.1, (f"s{k}",), False) for k in range(40)]
    assert text_gantt(spans, ["S0"], width=4).splitlines()[0] == "S0 |****|"
    assert text_gantt(spans, ["S0"], width=4, until_s=0.4).splitlines()[0] == "S0 |abcd|"
    assert text_gantt([], ["S0"]) == "nothing was computed"


def test_a_column_that_is_used_for_less_than_half_is_idle() -> None:
    spans = [Span(0, 0.0, 1.0, ("s0",), False), Span(0, 1.0, 1.4, ("s1",), False), Span(0, 3.0, 4.0, ("s2",), False)]
    assert text_gantt(spans, ["S0"], width=4).splitlines()[0] == "S0 |a..c|"
