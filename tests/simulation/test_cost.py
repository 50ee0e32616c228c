"""What a step costs: the profile's laws summed over a stage's items, for any mix of segments."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.errors import InvalidInput
from engine.data.generation import Segment
from engine.profile.cost_model import CostModel, ItemLaw, PhaseLaws
from engine.profile.point import DECODE, FORWARD, PREFILL, Point
from engine.simulation.cost import ItemTimes, ProfileCosts, StepShape, shape_of

NUM_ITEMS = 4
MODEL = CostModel(
    (
        PhaseLaws(DECODE, (1, 2, 4), tuple(ItemLaw((0.010 + k, 0.013 + k, 0.020 + k), 1e-6 * (k + 1)) for k in range(NUM_ITEMS))),
        PhaseLaws(PREFILL, (4, 64), tuple(ItemLaw((0.030 + k, 0.300 + k), 2e-6 * (k + 1)) for k in range(NUM_ITEMS))),
    )
)


def segment(num_tokens: int, position: int, session: str = "s0") -> Segment:
    return Segment(session, 1, position, (0,) * num_tokens, 0)


stages = st.tuples(st.integers(0, NUM_ITEMS - 1), st.integers(1, NUM_ITEMS)).filter(lambda s: s[0] < s[1])


@given(stages, st.integers(1, 9), st.integers(1, 900))
def test_a_decode_step_costs_what_the_cost_model_says(stage: tuple[int, int], batch: int, context: int) -> None:
    shape = shape_of([segment(1, context, f"s{k}") for k in range(batch)])
    assert ProfileCosts(MODEL).stage(*stage)(shape) == pytest.approx(MODEL.step_s(Point(DECODE, 1, context, batch), *stage))


@given(stages, st.integers(2, 200), st.integers(0, 900))
def test_a_prompt_chunk_costs_what_the_cost_model_says(stage: tuple[int, int], tokens: int, context: int) -> None:
    shape = shape_of([segment(tokens, context)])
    assert ProfileCosts(MODEL).stage(*stage)(shape) == pytest.approx(MODEL.step_s(Point(PREFILL, tokens, context, 1), *stage))


def test_a_mixed_step_costs_its_packed_tokens_and_every_pair_at_its_own_price() -> None:
    shape = shape_of([segment(1, 100), segment(1, 50, "s1"), segment(32, 0, "s2")])
    assert shape == StepShape(2, 32, 101 + 51, 32 * 33 // 2, num_prompts=1, num_behind=0) and shape.num_rows == 3
    work_s = 0.030 + (0.300 - 0.030) * 30 / 60
    assert ProfileCosts(MODEL).stage(0, 1)(shape) == pytest.approx(work_s + 1e-6 * 152 + 2e-6 * 528)


def test_decode_times_are_those_of_one_token() -> None:
    assert ProfileCosts(MODEL).decode_s() == tuple(MODEL.time_s(item, DECODE, 1, 16, 1) for item in range(NUM_ITEMS))


def test_item_times_charge_a_share_for_further_tokens() -> None:
    cost = ItemTimes((0.001, 0.002, 0.004), 0.1).stage(1, 3)
    assert cost(StepShape(1, 0, 9, 0)) == pytest.approx(0.006)
    assert cost(StepShape(2, 9, 9, 45)) == pytest.approx(0.006 * 2.0)


def test_what_cannot_be_simulated_is_refused() -> None:
    with pytest.raises(InvalidInput, match="phases forward, a simulation needs prefill and decode"):
        ProfileCosts(CostModel((PhaseLaws(FORWARD, (1,), (ItemLaw((0.1,), 0.0),)),)))
    for times in ((), (0.1, float("nan")), (0.1, -1.0), (float("inf"),)):
        with pytest.raises(InvalidInput, match="finite numbers"):
            ItemTimes(times, 0.1)
    with pytest.raises(InvalidInput, match="a share from 0 to 1"):
        ItemTimes((0.1,), 1.5)


WITH_HEAD = CostModel(
    (
        PhaseLaws(DECODE, (1, 2, 4), (ItemLaw((0.01, 0.01, 0.01), 0.0), ItemLaw((0.005, 0.010, 0.012), 0.0))),
        PhaseLaws(PREFILL, (4, 64), (ItemLaw((0.03, 0.03), 0.0, 0.002), ItemLaw((0.006, 0.006), 0.0, 0.001))),
    )
)


@pytest.mark.parametrize(
    ("num_single", "num_prompts", "head_s"), [(0, 1, 0.006), (1, 1, 0.010), (0, 2, 0.010), (1, 3, 0.012), (2, 0, 0.010)]
)
def test_the_head_sees_a_row_for_every_segment_of_a_packed_step(num_single: int, num_prompts: int, head_s: float) -> None:
    shape = shape_of([segment(1, 9, f"s{k}") for k in range(num_single)] + [segment(16, 0, f"p{k}") for k in range(num_prompts)])
    block_s = 0.03 if num_prompts else 0.01
    assert ProfileCosts(WITH_HEAD).stage(0, 2)(shape) == pytest.approx(block_s + head_s)
    assert ProfileCosts(WITH_HEAD).stage(0, 1)(shape) == pytest.approx(block_s), "a stage without the head does not pay for it"


def test_every_chunk_that_continues_a_prompt_pays_for_its_mask() -> None:
    shape = shape_of([segment(16, 0), segment(8, 16, "s1"), segment(8, 40, "s2")])
    assert ProfileCosts(WITH_HEAD).stage(0, 1)(shape) == pytest.approx(0.03 + 2 * 0.002)
