"""Times for machines that nobody measured."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.errors import InvalidInput
from engine.profile.hardware import BFLOAT16, FLOAT32
from engine.profile.point import DECODE, Point
from engine.profile.profile import Roofline
from engine.profile.scaling import ItemWork, scaled_item_s, work_of
from tests.planning.test_capability import box
from tests.planning.test_profile import MIDDLE, profile

REFERENCE = Roofline(1e11, 1e10, 2e-6)
works = st.lists(st.builds(ItemWork, st.floats(1e-6, 10), st.floats(0, 1e13), st.floats(0, 1e11)), min_size=1, max_size=6)
rates = st.floats(1e8, 1e14)
roofs = st.builds(Roofline, rates, rates, st.floats(1e-7, 1e-4))


@given(works)
def test_the_reference_itself_keeps_its_times(work: list[ItemWork]) -> None:
    found = scaled_item_s(work, REFERENCE, box(rooflines={FLOAT32: REFERENCE}), FLOAT32)
    assert found == pytest.approx([item.time_s for item in work], rel=1e-9)


@given(works, roofs, roofs, st.floats(1.0, 100.0))
def test_a_faster_machine_is_never_slower_and_a_uniform_factor_divides(
    work: list[ItemWork], before: Roofline, after: Roofline, factor: float
) -> None:
    faster = Roofline(after.flops_per_s * factor, after.bytes_per_s * factor, after.dispatch_s / factor)
    slow = scaled_item_s(work, before, box(rooflines={FLOAT32: after}), FLOAT32)
    fast = scaled_item_s(work, before, box(rooflines={FLOAT32: faster}), FLOAT32)
    assert all(0 <= quick < math.inf for quick in fast)
    assert [quick * factor for quick in fast] == pytest.approx(slow, rel=1e-9)


def test_a_dtype_that_the_node_lacks_takes_for_ever() -> None:
    assert scaled_item_s([ItemWork(1.0, 1.0, 1.0)] * 2, REFERENCE, box(), BFLOAT16) == (math.inf, math.inf)


@pytest.mark.parametrize(
    ("work", "seconds"),
    [
        (ItemWork(1.0, 0, 1e10), 0.25),  # on the memory roof: as the bandwidth, four times
        (ItemWork(1.0, 1e11, 0), 0.1),  # on the compute roof: as the FLOP/s, ten times
        (ItemWork(1.5, 0, 1e10), 0.375),  # near the roof: what it lost there it loses again
        (ItemWork(4.0, 0, 1e10), 0.5 + 1.0),  # two seconds of work at most, two of waiting, which halve
        (ItemWork(4e-6, 0, 0), 2e-6),  # nothing but dispatch
    ],
)
def test_each_part_changes_as_what_limits_it(work: ItemWork, seconds: float) -> None:
    node = box(rooflines={FLOAT32: Roofline(1e12, 4e10, 1e-6)})
    assert scaled_item_s([work], REFERENCE, node, FLOAT32) == pytest.approx([seconds])


def test_waiting_stays_where_nobody_measured_it() -> None:
    node = box(rooflines={FLOAT32: Roofline(1e12, 4e10)})
    assert scaled_item_s([ItemWork(4.0, 0, 1e10)], REFERENCE, node, FLOAT32) == pytest.approx([2.5])


def test_an_item_does_what_its_outermost_layers_do() -> None:
    made = profile()
    (work,) = work_of(made, MIDDLE)
    block, _, _, head = made.layers
    assert (work.flops, work.moved_bytes) == (sum(layer.at(MIDDLE).flops for layer in (block, head)), 400), "children lie inside"  # type: ignore[union-attr]
    assert work.time_s == made.items[0].figures[0].time_s
    with pytest.raises(InvalidInput, match="has no point"):
        work_of(made, Point(DECODE, 1, 7, 7))
    assert work_of(replace(made, layers=()), MIDDLE)[0].flops == 0
