"""Timing items: how kinds and stages are chosen, that figures are per item, and that memory comes back."""

from __future__ import annotations

import math
import subprocess
import sys
from itertools import chain, repeat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import GPT2Config, Qwen3Config

from engine.data.errors import InvalidInput
from engine.data.model import ModelRef
from engine.model.hardware.cpu import cache_bytes
from engine.model.profiling import kinds, measure
from engine.model.profiling.measure import measure_config
from engine.model.sources.source import resolve
from engine.model.weights.weight_folder import WeightFolder


def small_gpt2(num_layers: int = 4, vocab_size: int = 300) -> GPT2Config:
    return GPT2Config(n_layer=num_layers, n_embd=32, n_head=2, vocab_size=vocab_size, n_positions=128)


def mixed_layers() -> Qwen3Config:
    kinds = ["full_attention", "sliding_attention", "sliding_attention", "full_attention", "sliding_attention"]
    return Qwen3Config(
        hidden_size=32, num_hidden_layers=5, num_attention_heads=2, num_key_value_heads=2, head_dim=16, intermediate_size=64,
        vocab_size=300, layer_types=kinds, use_sliding_window=True, sliding_window=8, pad_token_id=299,
    )  # fmt: skip


def test_every_item_gets_a_time(tmp_path: Path) -> None:
    seen: list[float] = []
    folder = resolve(ModelRef("gpt2:tiny", random_weights=0), cache_dir=tmp_path)
    found = measure_config(WeightFolder(folder).config, dtype="float32", device="cpu", on_progress=lambda done, text: seen.append(done))
    item_s = found.item_s
    assert len(item_s) == 6 and 0 <= found.base_s < math.inf
    assert all(0 < t < math.inf for t in item_s)
    assert len(set(item_s[1:5])) == 1, "blocks of one kind are timed once"
    assert seen == sorted(seen) and len(seen) == 3


def test_kinds_follow_layer_types_and_shapes() -> None:
    found = kinds.kinds_of(mixed_layers(), "float32", 2 * cache_bytes())
    assert [kind.items for kind in found] == [(0,), (1, 4), (2, 3, 5), (6,)]
    assert len(measure_config(mixed_layers(), dtype="float32", device="cpu").item_s) == 7


def test_the_smaller_config_times_the_same_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each stage that stands for a kind holds as many tensor bytes as in the full model, but for the embedding table."""
    built: list[tuple[int, int, int]] = []
    original = measure.StageModel.synthetic.__func__  # type: ignore[attr-defined]

    def spy(cls: type, config: GPT2Config, start: int, stop: int, **options: object) -> object:
        stage = original(cls, config, start, stop, **options)
        built.append((stop - start, stage.weight_bytes, stage.num_items))
        return stage

    monkeypatch.setattr(measure.StageModel, "synthetic", classmethod(spy))
    monkeypatch.setattr(measure, "cache_bytes", lambda: 60_000)
    measure_config(small_gpt2(num_layers=9, vocab_size=5000), dtype="float32", device="cpu")
    block_bytes, head_bytes = 4 * (12 * 32 * 32 + 13 * 32), 4 * (5000 * 32 + 2 * 32)
    assert [entry[:2] for entry in built] == [(1, 4 * 32 * (2048 + 128)), (3, 3 * block_bytes), (1, head_bytes), (1, block_bytes)]
    assert [entry[2] for entry in built] == [5, 5, 5, 3], "only the blocks that are timed are built"


@given(items=st.lists(st.integers(0, 60), min_size=1, unique=True).map(sorted), weight_bytes=st.integers(0, 2**31))
def test_the_stages_of_a_kind_overflow_the_cache_but_exceed_no_model(items: list[int], weight_bytes: int) -> None:
    enough = 2 * cache_bytes()
    kind = kinds.kind_of(items, weight_bytes, enough)
    timed = set(range(kind.start, kind.stop))
    assert timed and timed <= set(items)
    timed_bytes = kind.num_copies * len(timed) * weight_bytes
    assert timed_bytes >= min(enough, len(items) * weight_bytes)
    assert (kind.num_copies - 1) * len(timed) * weight_bytes < max(1, enough)


def test_times_are_the_median_per_item(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = chain([9.0, 9.0, 1.0, 2.0, 6.0, 50.0, 3.0] * 3, repeat(1.0))  # prefill, warm-up, then the steps that count
    monkeypatch.setattr(measure, "_step", lambda *_: next(ticks))
    monkeypatch.setattr(measure, "_MAX_REPEATS", 5)
    monkeypatch.setattr(measure, "cache_bytes", lambda: 2**30)
    assert measure_config(small_gpt2(), dtype="float32", device="cpu").item_s == (3.0, *[3.0 / 4] * 4, 3.0)


def test_the_base_is_what_a_step_after_a_pause_takes_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """One large outlier does not count, and a base below zero is none."""
    for slower_s, base_s in ((0.5, 0.5), (-0.5, 0.0)):
        paused: list[float] = []

        def step(*_: object, slower_s: float = slower_s, paused: list[float] = paused) -> float:
            waited = len(paused) and paused.pop()
            return 2.0 + (slower_s if waited else 0.0)

        monkeypatch.setattr(measure, "_step", step)
        monkeypatch.setattr(measure.time, "sleep", paused.append)
        assert measure_config(small_gpt2(), dtype="float32", device="cpu").base_s == base_s


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(InvalidInput, match="'cuda:99'"):
        measure_config(small_gpt2(), dtype="float32", device="cuda:99")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_goes_back_to_the_system() -> None:
    program = (
        "import psutil, torch; from transformers import GPT2Config; from engine.model.profiling import measure\n"
        "rss = lambda: psutil.Process().memory_info().rss >> 20\n"
        "c = GPT2Config(n_layer=6, n_embd=512, n_head=8, vocab_size=60000, n_positions=64)  # a head of 117 MiB\n"
        "measure.measure_config(c, dtype='float32', device='cpu'); before = rss(); peaks = []\n"
        "step = measure._step; measure._step = lambda *a: (peaks.append(rss()), step(*a))[1]\n"
        "measure.measure_config(c, dtype='float32', device='cpu'); print(before, max(peaks), rss())"
    )
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    before, peak, after = map(int, output.split())
    assert peak > before + 80
    assert after < before + 30
