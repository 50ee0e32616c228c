"""Steps as an accelerator serves them, with the CPU as a device: items and what lies beside them are told apart, and make a law."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import GPT2Config, Qwen3Config

from engine.data.errors import Exhausted
from engine.model.profiling import served
from engine.model.profiling.kinds import Kind, Running
from engine.model.profiling.measure import measure_config
from engine.model.profiling.served import ServedStep, neighbours, served_plan, served_steps
from engine.model.running.accelerator.graphs import BUCKETS
from engine.profile.cost_model import CostModel, CostSample
from engine.profile.point import DECODE, PREFILL, Point
from engine.profile.points import recorded_points, stairs

CPU = Running("float32", "cpu", "auto")
BASE_S, EMBED_S, BLOCK_S, HEAD_S = 7.0, 0.5, 2.0, 3.0


def gpt2(num_layers: int) -> GPT2Config:
    return GPT2Config(n_layer=num_layers, n_embd=32, n_head=2, vocab_size=97, n_positions=256)


def alternating() -> Qwen3Config:
    return Qwen3Config(
        hidden_size=32, num_hidden_layers=4, num_attention_heads=2, num_key_value_heads=2, head_dim=16, intermediate_size=64,
        vocab_size=97, layer_types=["sliding_attention", "full_attention"] * 2, use_sliding_window=True, sliding_window=8, pad_token_id=96,
    )  # fmt: skip


def step_s(rows: int) -> float:
    """What stands for the time of a block: a staircase of the recordings."""
    return next(size for size in BUCKETS if size >= rows) / 8


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps take what their stage holds, by a clock of our own."""

    def seconds(standing: Any, point: Point) -> list[float]:
        stage = standing.stage
        standing.step_at(point)()  # it can be taken
        blocks = range(max(stage.start, 1), min(stage.stop, stage.num_items - 1))
        grown = step_s(point.batch * point.tokens) + 0.001 * point.batch * point.context
        return [BASE_S + EMBED_S * stage.is_first + HEAD_S * stage.is_last + (BLOCK_S + grown) * len(blocks)] * 3

    monkeypatch.setattr(served, "_seconds", seconds)


@pytest.mark.parametrize(("config", "cached_bytes"), [(gpt2(6), 0), (gpt2(6), 10**9), (gpt2(1), 0), (gpt2(2), 10**5), (alternating(), 0)])
def test_items_are_told_apart_from_what_every_step_takes(
    config: Any, cached_bytes: int, clock: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "cache_bytes_of", lambda _: cached_bytes)
    points = [Point(DECODE, 1, 16, 1), Point(DECODE, 1, 16, 5), Point(PREFILL, 12, 0, 1)]
    steps = served_steps(config, CPU, points)
    assert [step.point for step in steps] == points
    for step in steps:
        block_s = BLOCK_S + step_s(step.point.batch * step.point.tokens) + 0.001 * step.point.batch * step.point.context
        num_blocks = config.num_hidden_layers
        told_apart = config.num_hidden_layers == 1 or isinstance(config, Qwen3Config)  # else an embedding stands for what every step takes
        assert step.base_s == pytest.approx(BASE_S + EMBED_S * (not told_apart))
        assert step.item_s == pytest.approx((EMBED_S * told_apart, *[block_s] * num_blocks, HEAD_S))
        assert sum(step.evenly_s) == pytest.approx(BASE_S + EMBED_S + HEAD_S + num_blocks * block_s)


def test_a_point_whose_keys_do_not_fit_is_left_out(clock: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "usable_memory", lambda _: (200_000, 200_000))
    points = [Point(DECODE, 1, 16, 1), Point(DECODE, 1, 200, 64)]
    assert [step.point for step in served_steps(gpt2(4), CPU, points)] == points[:1]


def test_neighbours_are_two_stages_and_the_one_of_both() -> None:
    embed, head = Kind((0,), 0, 1, 1), Kind((9,), 9, 10, 1)
    assert neighbours([embed, Kind(tuple(range(1, 9)), 1, 4, 1), head]) == ((1, 4), (1, 4), (1, 7))
    assert neighbours([embed, Kind(tuple(range(1, 9)), 1, 9, 1), head]) == ((1, 5), (1, 5), (1, 9))
    odd, even = Kind((1, 3, 5, 7), 1, 2, 1), Kind((2, 4, 6, 8), 2, 3, 1)
    assert neighbours([embed, odd, even, head]) == ((0, 1), (1, 2), (0, 2))


def test_real_steps_make_a_law_of_a_staircase() -> None:
    """No clock of our own: it runs, each point has a time, and what was measured is not far from the law."""
    torch.set_num_threads(1)
    plan = recorded_points(256, BUCKETS[:6], most_prefill_tokens=32, quick=True)
    found = served_plan(gpt2(2), CPU, plan)
    assert {step.point for step in found.learn} == set(plan.learn) and {step.point for step in found.held_out} == set(plan.held_out)
    law = CostModel.fit([CostSample(step.point, step.evenly_s) for step in found.learn])
    assert law.num_items == 4 and law.laws(DECODE).num_tokens == tuple(stairs([1, 2, 3, 6]))
    assert all(time_s >= 0 for step in found.learn for time_s in step.item_s)


def test_a_law_of_recorded_points_is_a_staircase(clock: None) -> None:
    plan = recorded_points(256, BUCKETS, most_prefill_tokens=32)
    steps = served_plan(gpt2(6), CPU, plan)
    law = CostModel.fit([CostSample(step.point, step.evenly_s) for step in steps.learn], [_sample(step) for step in steps.held_out])
    for rows in range(1, 257):
        expected_s = BASE_S + EMBED_S + HEAD_S + 6 * (BLOCK_S + step_s(rows) + 0.001 * rows * 100)
        assert law.step_s(Point(DECODE, 1, 100, rows)) == pytest.approx(expected_s, rel=0.03)
    assert {error.held_out: error.worst < 0.03 for error in law.errors if error.phase == DECODE} == {False: True, True: True}


def _sample(step: ServedStep) -> CostSample:
    return CostSample(step.point, step.evenly_s)


def test_a_worker_on_an_accelerator_measures_what_it_serves(clock: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.model.profiling.measure.check_device", lambda device: device)
    monkeypatch.setattr(served, "asdict", lambda _: {"dtype": "float32", "device": "cpu", "kv_dtype": "auto"})
    monkeypatch.setattr(served, "usable_memory", lambda _: (10**9, 10**9))
    monkeypatch.setattr(served, "cache_bytes_of", lambda _: 0)
    found = measure_config(gpt2(3), dtype="float32", device="xpu:0")
    assert found.base_s == pytest.approx(BASE_S + EMBED_S)
    assert found.item_s == pytest.approx((0.0, *[BLOCK_S + step_s(1) + 0.016] * 3, HEAD_S))
    for rows in (1, 2, 3, 5, 6, 7, 33, 48, 64):
        grown_s = HEAD_S + 3 * (BLOCK_S + step_s(rows) + 0.016 * rows)
        assert found.rows.factor(rows) == pytest.approx(grown_s / sum(found.item_s), rel=0.01)


def test_a_device_that_is_too_full_is_refused_with_what_it_has(clock: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "usable_memory", lambda _: (2_000, 2_000))
    with pytest.raises(Exhausted, match=r"cpu has 2,000 bytes free, too few for a step \(decode ctx 200 x64\): free some"):
        served_steps(gpt2(4), CPU, [Point(DECODE, 1, 200, 64)])
