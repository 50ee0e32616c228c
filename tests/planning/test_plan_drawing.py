"""The drawing of a plan: any width, any names, always inside the line, the bottleneck always marked."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.errors import InvalidInput
from engine.planning.documents.partition_plan import PartitionPlan
from engine.planning.documents.plan_drawing import bottleneck_text, draw, milliseconds, plain, share_out
from tests.planning.plans import plan, plans

THREE = plan(("w1", 0, 4, 0.008, 0.001), ("w2", 4, 10, 0.016, 0.001), ("w3", 10, 13, 0.0081, 0.0))


@settings(max_examples=150)
@given(plans, st.integers(1, 240))
def test_any_plan_fits_any_width_in_plain_ascii(made: PartitionPlan, width: int) -> None:
    lines = draw(made, width).split("\n")
    assert all(len(line) <= width and line.isascii() and (line == "" or line.isprintable()) for line in lines)
    assert len(lines) in (5, 1 + len(made.stages))
    if width >= 2:
        assert sum("!!" in line.replace("a|b>c!!", "") for line in lines[1:]) >= 1, "the bottleneck is marked"


@settings(max_examples=100)
@given(plans, st.integers(20, 240))
def test_the_mark_stands_at_the_bottleneck_and_nowhere_else(made: PartitionPlan, width: int) -> None:
    if any({*"!|"} & {*stage.node_id} for stage in made.stages):
        return
    lines = draw(made, width).split("\n")[1:]
    index, is_hop = made.bottleneck
    assert sum(line.count("!!") for line in lines) == 1
    if len(lines) == len(made.stages) and lines[0][:1] != "+":
        assert lines[index].startswith("!! ")
    else:
        before = lines[1].split("!!")[0]
        assert before.count("|") == 2 * index + (2 if is_hop else 1), "as many borders to the left as blocks began and ended"


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=12), st.integers(0, 200), st.data())
def test_columns_are_shared_in_proportion(weights: list[float], spare: int, data: st.DataObject) -> None:
    least = data.draw(st.lists(st.integers(1, 9), min_size=len(weights), max_size=len(weights)))
    total = sum(least) + spare
    columns = share_out(weights, total, least)
    assert sum(columns) == total and all(c >= low for c, low in zip(columns, least, strict=True))
    free = [k for k in range(len(weights)) if columns[k] > least[k] + 1]
    for a in free:
        for b in free:
            if weights[a] > weights[b]:
                assert columns[a] >= columns[b] - 1, "more time is never drawn narrower, but for rounding"


def test_a_picture() -> None:
    assert draw(THREE, 72).split("\n")[1:] == [
        "+---------------+  +--------------------------------+  +---------------+",
        "|S0 w1 0-3      |->|S1 w2 4-9                     !!|->|S2 w3 10-12    |",
        "|8.00 ms        |  |16.0 ms                         |  |8.10 ms        |",
        "+---------------+  +--------------------------------+  +---------------+",
    ]
    assert draw(THREE, 200).startswith("plan balanced, width = time: step 34.1 ms, bottleneck S1 w2 16.0 ms")


def test_what_is_not_to_scale_is_said() -> None:
    tiny = plan(("a", 0, 1, 0.1, 0.0), ("b", 1, 2, 1e-6, 0.0))
    assert "width ~ time" in draw(tiny, 80).split("\n")[0] and "width = time" in draw(THREE, 200)


def test_many_stages_stand_below_each_other() -> None:
    many = plan(*((f"n{k}", k, k + 1, 0.001 * (k + 1), 0.0) for k in range(13)))
    lines = draw(many, 60).split("\n")[1:]
    assert len(lines) == 13 and lines[12].startswith("!! S12 n12 12-12 13.0 ms") and lines[12].count("#") == 24
    assert lines[5].count("#") == round(24 * 6 / 13)


def test_a_link_can_be_the_bottleneck() -> None:
    made = plan(("a", 0, 1, 0.001, 0.005), ("b", 1, 2, 0.002, 0.0))
    assert bottleneck_text(made) == "link a>b 5.00 ms"
    assert "!!>" in draw(made, 60)


def test_figures_and_names() -> None:
    assert [milliseconds(t) for t in (0.0, 1.23456e-6, 0.01234, 1.5, 1234.0)] == [
        "0.00 ms",
        "0.00123 ms",
        "12.3 ms",
        "1.50e+03 ms",
        "1.23e+06 ms",
    ]
    assert plain("a\x1b[0m\u2028\ud800") == "a\\x1b[0m\\u2028\\ud800"
    with pytest.raises(InvalidInput, match="0 columns"):
        draw(THREE, 0)
