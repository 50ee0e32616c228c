"""Widths of plan blocks: they sum, they are readable, they are proportional unless they say that they are not."""

from __future__ import annotations

import itertools

from hypothesis import assume, given
from hypothesis import strategies as st

from noodle_tui.widgets.plan.plan_layout import MIN_HOP_CELLS, MIN_STAGE_CELLS, block_layout, fits

times = st.floats(1e-5, 10.0)
stages = st.lists(times, min_size=1, max_size=12)


def hops_for(stage_s: list[float], data: st.DataObject) -> list[float]:
    return data.draw(st.lists(st.floats(0.0, 1.0), min_size=len(stage_s) - 1, max_size=len(stage_s) - 1))


@given(stages, st.integers(20, 240), st.data())
def test_widths_sum_to_the_row_and_none_is_too_narrow(stage_s: list[float], width: int, data: st.DataObject) -> None:
    assume(fits(len(stage_s), width))
    layout = block_layout(stage_s, hops_for(stage_s, data), width)
    assert sum(layout.stages) + sum(layout.hops) == width
    assert min(layout.stages) >= MIN_STAGE_CELLS
    assert min(layout.hops, default=1) >= MIN_HOP_CELLS
    assert (len(layout.stages), len(layout.hops)) == (len(stage_s), len(stage_s) - 1)


@given(stages, st.integers(20, 240), st.data())
def test_unmarked_widths_are_proportional(stage_s: list[float], width: int, data: st.DataObject) -> None:
    assume(fits(len(stage_s), width))
    hop_s = hops_for(stage_s, data)
    layout = block_layout(stage_s, hop_s, width)
    assume(not layout.broken)
    per_cell = (width - sum(layout.hops)) / sum(stage_s)
    for seconds, cells in zip(stage_s, layout.stages, strict=True):
        assert abs(cells - seconds * per_cell) <= 1 + len(stage_s) / 2


@given(stages, st.integers(20, 240))
def test_a_slower_stage_is_never_drawn_narrower(stage_s: list[float], width: int) -> None:
    assume(fits(len(stage_s), width))
    layout = block_layout(stage_s, [0.0] * (len(stage_s) - 1), width)
    ordered = sorted(zip(stage_s, layout.stages, strict=True))
    assert all(a[1] <= b[1] for a, b in itertools.pairwise(ordered) if a[0] < b[0])


def test_a_widened_stage_is_marked() -> None:
    assert block_layout([1.0, 0.001], [0.0], 60).broken
    assert not block_layout([1.0, 1.0], [0.0], 60).broken


def test_without_times_all_stages_are_alike() -> None:
    assert block_layout([0.0, 0.0, 0.0], [0.0, 0.0], 32).stages == (10, 10, 10)


def test_what_fits() -> None:
    assert fits(12, 78) and not fits(14, 78) and not fits(0, 78)
