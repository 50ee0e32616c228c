"""Stages over pages, with recorded steps and fused blocks, on the CPU as a device: the tokens are those of `generate()`.

`PlainAttention` stands for the kernels, running a step again for its replay, and Triton's interpreter for the fused pieces; where there is
a GPU, Triton compiles them for it.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="the fused pieces are written in Triton")

from engine.data.errors import Exhausted
from engine.model.running.accelerator import fusing, row_products
from engine.model.running.accelerator.acceleration import Acceleration, CaptureLimits
from engine.model.running.accelerator.attending import PlainAttention, num_splits, probed
from engine.model.running.accelerator.graphs import DecodeGraphs
from engine.model.running.accelerator.paged_cache import window_of
from engine.model.running.accelerator.paged_step import PagedStep
from engine.model.running.attention import MaskRule
from engine.model.running.contiguous_kv import ContiguousKV
from engine.model.running.paged_kv import SCRATCH_ROW, PagedKV
from engine.model.running.stage import StageModel
from tests.model import tiny

pytest.importorskip("triton", reason="the fused pieces are written in Triton")

FUSING = Acceleration(attention=PlainAttention(), limits=CaptureLimits(max_rows=1))
PAGED = replace(FUSING, fuse=False, limits=CaptureLimits(max_rows=4))  # the interpreter takes milliseconds for each kernel
KERNELS_RUN_ON = "cuda:0" if torch.cuda.is_available() else "cpu"
WHOLE, THREE = (0, tiny.NUM_LAYERS + 2), (0, 2, 4, tiny.NUM_LAYERS + 2)
# What is found in each of four blocks; sandwich norms and experts allow less.
FUSED = {
    "llama": {"joined product": 2, "norm": 2, "gate": 1, "rotary": 1, "residual and norm": 1},
    "phi3": {"norm": 2, "gate": 1, "rotary": 1, "residual and norm": 1},
    "qwen3": {"joined product": 2, "norm": 4, "gate": 1, "rotary": 1, "residual and norm": 1},
    "gemma2": {"joined product": 2, "norm": 4, "gate": 1, "rotary": 1},
    "mixtral": {"joined product": 1, "norm": 2, "rotary": 1, "residual and norm": 1},
    "gpt2": {},
}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def saved(family: str, folder: Path) -> Any:
    model = tiny.random_model(tiny.tiny_config(family))
    model.save_pretrained(folder)
    return model


def close(found: tiny.Answers, expected: tiny.Answers) -> bool:
    scale = max(float(logits.abs().max()) for logits in expected.logits)
    return all(float((a - b).abs().max()) < 1e-4 * scale for a, b in zip(found.logits, expected.logits, strict=True))


@pytest.mark.parametrize("family", ["llama", "gpt2", "mistral", "gemma2", "gpt_oss", "qwen3", "mixtral", "phi3", "bloom", "opt", "cohere2"])
def test_tokens_over_pages_are_those_of_generate(family: str, tmp_path: Path) -> None:
    """Windows, capped scores, sinks, experts, grouped heads; ragged, in company, in chunks; what cannot be packed too."""
    model = saved(family, tmp_path)
    expected = tiny.whole_answers(model, tiny.prompts(), 8)
    for cuts, chunk in ((WHOLE, None), (THREE, 3)):
        stages = tiny.load_slices(tmp_path, cuts, acceleration=PAGED)
        assert all(isinstance(stage.kv, PagedKV) for stage in stages)
        found = tiny.sliced_answers(stages, tiny.prompts(), 8, chunk)
        assert found.tokens == expected.tokens and close(found, expected)


@pytest.mark.parametrize("family", FUSED)
def test_what_is_fused_is_found_by_structure(family: str, tmp_path: Path) -> None:
    model = saved(family, tmp_path)
    (stage,) = tiny.load_slices(tmp_path, WHOLE, acceleration=FUSING, device=KERNELS_RUN_ON)
    found = ", ".join(f"{tiny.NUM_LAYERS * n} of {kind}" for kind, n in sorted(FUSED[family].items())) or "nothing"
    assert f"fused in {tiny.NUM_LAYERS} blocks: {found};" in stage.running_text
    assert tiny.sliced([stage], tiny.prompts((3,)), 3) == tiny.whole(model, tiny.prompts((3,)), 3)


def test_a_piece_that_changes_the_output_is_taken_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = saved("llama", tmp_path)
    gated = fusing.kernels.gated
    calls = []

    def wrong_later(both: torch.Tensor, *args: Any) -> torch.Tensor:  # right on the probe of one module, wrong in the block
        calls.append(both.shape)
        return gated(both, *args) * (1.0 if both.dim() == 2 else 1.01)

    monkeypatch.setattr(fusing.kernels, "gated", wrong_later)
    (stage,) = tiny.load_slices(tmp_path, WHOLE, acceleration=FUSING)
    assert calls and "gate" not in stage.running_text and "8 of joined product" in stage.running_text
    assert tiny.sliced([stage], tiny.prompts((3,)), 3) == tiny.whole(model, tiny.prompts((3,)), 3)


def test_joined_products_take_no_more_memory_and_are_taken_over(tmp_path: Path) -> None:
    saved("llama", tmp_path)
    plain = StageModel.load(tmp_path, 0, 6, kv_budget_bytes=tiny.KV_BYTES)
    old = StageModel.load(tmp_path, 0, 4, kv_budget_bytes=tiny.KV_BYTES, acceleration=FUSING)
    new = StageModel.load(tmp_path, 0, 6, kv_budget_bytes=tiny.KV_BYTES, acceleration=FUSING, reuse=old)
    blocks: Any = new.module.get_submodule(new.blocks)
    storages = {p.untyped_storage().data_ptr() for p in blocks[0].self_attn.parameters()}
    assert len(storages) == 2  # one of query, key and value, one of the output
    assert new.bytes_beyond(None) == plain.bytes_beyond(None)
    assert new.bytes_beyond(old) == sum(t.nbytes for item in (4, 5) for t in tensors_of(new, item))


def tensors_of(stage: StageModel, item: int) -> Iterator[torch.Tensor]:
    from engine.model.running.slicing import item_state

    return (tensor for _, tensor in item_state(stage.module, stage._chain, item))


def test_a_session_moves_between_layouts_and_goes_on(tmp_path: Path) -> None:
    saved("mistral", tmp_path)
    kinds = (None, PAGED)
    stages = [StageModel.load(tmp_path, 0, 6, kv_budget_bytes=tiny.KV_BYTES, acceleration=kind) for kind in kinds]
    assert isinstance(stages[0].kv, ContiguousKV) and isinstance(stages[1].kv, PagedKV)
    prompt = tiny.prompts((70,))[0]
    for source, target in (stages, stages[::-1]):
        for stage in stages:
            stage.open("a", 90)
        source.forward([("a", prompt)], None)
        for layer in source.kv.layers:
            for start in range(0, 70, 32):
                block = source.kv.export_block("a", layer, start, min(70, start + 32))
                target.kv.import_block("a", layer, start, *block)
        assert torch.allclose(target.forward([("a", [7])], None), source.forward([("a", [7])], None), atol=1e-4)
        for stage in stages:
            stage.close("a")


def test_a_step_that_fails_half_way_leaves_sessions_as_they_were(tmp_path: Path) -> None:
    saved("llama", tmp_path)
    unrecorded = Acceleration(attention=PlainAttention(), graphs=False)
    (stage,) = tiny.load_slices(tmp_path, WHOLE, acceleration=unrecorded)
    for session in ("a", "b"):
        stage.open(session, 20)
    stage.forward([("a", [5, 6, 7]), ("b", [8])], None)
    expected = stage.forward([("a", [9]), ("b", [10])], None)
    stage.kv.truncate("a", 3)
    stage.kv.truncate("b", 1)
    blocks: Any = stage.module.get_submodule(stage.blocks)
    handle = blocks[2].register_forward_pre_hook(lambda *_: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        stage.forward([("a", [11, 12]), ("b", [13])], None)
    handle.remove()
    assert (stage.length("a"), stage.length("b")) == (3, 1)
    assert torch.equal(stage.forward([("a", [9]), ("b", [10])], None), expected)
    with pytest.raises(Exhausted):
        stage.forward([("a", [1] * 30)], None)


# ---------------------------------------------------------------------------------------------- recordings
VOCABULARY = 11


def counted(step: PagedStep, hidden: torch.Tensor | None) -> torch.Tensor:
    """A stage of one number a row: what it was given, mixed."""
    numbers = (step.token_ids * 10_000 + step.positions * 100 + step.rows).float()[:, None]
    return numbers if hidden is None else numbers + hidden


def graphs(run: Any = counted, hidden_size: int | None = None) -> DecodeGraphs:
    options: dict[str, Any] = {"device": "cpu", "dtype": torch.float32, "vocab_size": VOCABULARY, "page_tokens": 16}
    return DecodeGraphs(run, hidden_size=hidden_size, has_logits=True, **options)


def test_a_step_takes_the_next_larger_recording_and_gets_its_own_rows() -> None:
    sizes: list[int] = []

    def noted(step: PagedStep, hidden: torch.Tensor | None) -> torch.Tensor:
        sizes.append(step.num_rows)
        assert step.rows[3:].eq(SCRATCH_ROW).all() or step.num_rows != 4 or len(sizes) < 20
        return counted(step, hidden)

    recorded = graphs(noted, hidden_size=1)
    recorded.record(CaptureLimits(max_rows=8))
    assert recorded.sizes == (1, 2, 3, 4, 6, 8) and not recorded.holds(9)
    for num_rows in (1, 5, 8, 3, 7):
        numbers = [[2 + row for row in range(num_rows)], [30 + row for row in range(num_rows)], [1 + row for row in range(num_rows)]]
        hidden = torch.arange(num_rows)[:, None] * 1e6
        sizes.clear()
        found = recorded.step(numbers, hidden)
        assert sizes == [next(size for size in (1, 2, 3, 4, 6, 8) if size >= num_rows)]
        assert found[:, 0].tolist() == [1e6 * row + (2 + row) * 10_000 + (30 + row) * 100 + 1 + row for row in range(num_rows)]


def test_a_recording_picks_the_largest_and_says_what_is_not_finite() -> None:
    def logits(step: PagedStep, hidden: torch.Tensor | None) -> torch.Tensor:
        return torch.nn.functional.one_hot(step.token_ids, VOCABULARY).float()

    recorded = graphs(logits)
    recorded.record(CaptureLimits(max_rows=4))
    recorded.step([[4, 9, 2], [1, 2, 3], [1, 2, 3]], None)
    assert recorded.picks is not None and recorded.picks.tolist() == [[4, 9, 2], [1, 1, 1]]
    first = torch.arange(VOCABULARY) == 0
    for bad in (torch.inf, -torch.inf, torch.nan):
        recorded = graphs(
            lambda step, hidden, bad=bad: torch.where((step.positions[:, None] == 99) & first, bad, logits(step, hidden))  # in one cell
        )
        recorded.record(CaptureLimits(max_rows=4))
        recorded.step([[4, 9], [99, 1], [1, 2]], None)
        assert recorded.picks is not None and recorded.picks[1].tolist() == [0, 1] and recorded.picks[0, 1] == 9


def test_an_answer_is_not_overwritten_by_the_next_step() -> None:
    recorded = graphs()
    recorded.record(CaptureLimits(max_rows=2))
    first = recorded.step([[1], [0], [1]], None)
    kept = first.clone()
    recorded.step([[7], [3], [2]], None)
    assert torch.equal(first, kept)


def test_rows_that_fill_a_recording_write_to_the_scratch_page() -> None:
    seen: list[list[int]] = []

    def noted(step: PagedStep, hidden: torch.Tensor | None) -> torch.Tensor:
        seen.append(step.rows.tolist())
        return counted(step, hidden)

    recorded = graphs(noted)
    recorded.record(CaptureLimits(max_rows=4))
    recorded.step([[1, 2, 3, 4], [0] * 4, [5, 6, 7, 8]], None)
    recorded.step([[1, 2, 3], [0] * 3, [5, 6, 7]], None)
    recorded.step([[1] * 4, [0] * 4, [5, 6, 7, 9]], None)
    assert seen[-3:] == [[5, 6, 7, 8], [5, 6, 7], [5, 6, 7, 9]]
    recorded._sizes.remove(3)
    recorded.step([[1, 2, 3], [0] * 3, [5, 6, 7]], None)
    assert seen[-1] == [5, 6, 7, SCRATCH_ROW]


def test_a_replay_that_differs_is_not_kept_and_says_so() -> None:
    runs: list[int] = []

    def drifting(step: PagedStep, hidden: torch.Tensor | None) -> torch.Tensor:
        runs.append(step.num_rows)
        return counted(step, hidden) + len(runs) * 1e6

    recorded = graphs(drifting)
    recorded.record(CaptureLimits(max_rows=4))
    assert recorded.sizes == () and not recorded.holds(1)
    assert "no step is recorded" in recorded.text and "differs by" in recorded.text


def test_a_model_that_cannot_be_recorded_says_why() -> None:
    def refuses(step: PagedStep, hidden: torch.Tensor | None) -> torch.Tensor:
        if step.num_rows < 3:
            raise RuntimeError("operation not permitted when stream is capturing\nand more")
        return counted(step, hidden)

    recorded = graphs(refuses)
    recorded.record(CaptureLimits(max_rows=4))
    assert recorded.sizes == (3, 4)
    assert "stopped: RuntimeError: operation not permitted when stream is capturing)" in recorded.text


def test_recording_stops_at_its_time() -> None:
    recorded = graphs()
    told: list[str] = []
    recorded.record(CaptureLimits(max_rows=8, time_s=0.0), lambda _, text: told.append(text))
    assert recorded.sizes == (8,) and "stopped: 0 s" in recorded.text
    assert told == ["recording decode steps of 8 rows"]


# ---------------------------------------------------------------------------------------------- masks and probes
def rule(function: Any, size: int | None) -> MaskRule:
    return MaskRule(function, False, size)


def test_masks_that_are_windows_are_known_by_asking_them() -> None:
    assert window_of(None) == window_of(MaskRule(lambda *_: None, True, None)) == 0
    assert window_of(rule(lambda b, h, q, k: (k <= q) & (k > q - 8), 8)) == 8
    others = (
        rule(lambda b, h, q, k: (k <= q) & (k >= q - 8), 8),  # nine tokens
        rule(lambda b, h, q, k: (k <= q) & (k // 8 == q // 8), 8),  # chunks
        rule(lambda b, h, q, k: k <= q, 8),
        rule(lambda b, h, q, k: (k <= q) & (k > q - 8), None),
        rule(lambda b, h, q, k: torch.ones(3, dtype=torch.bool)[k], 8),
    )
    for other in others:
        with pytest.raises(Exception, match="a mask"):
            window_of(other)


def test_a_chunked_mask_is_left_to_the_way_session_by_session(tmp_path: Path) -> None:
    config = tiny.tiny_config("llama4_text")
    config.attn_temperature_tuning = False
    model = tiny.random_model(config)
    model.save_pretrained(tmp_path)
    (stage,) = tiny.load_slices(tmp_path, WHOLE, acceleration=PAGED)
    assert "one by one: NotSupported: a mask of 8 tokens that is not a window" in stage.running_text
    assert tiny.sliced([stage], tiny.prompts(), 8) == tiny.whole(model, tiny.prompts(), 8)


def test_a_cpu_keeps_its_own_layout(tmp_path: Path) -> None:
    saved("llama", tmp_path)
    (stage,) = tiny.load_slices(tmp_path, WHOLE)
    assert isinstance(stage.kv, ContiguousKV) and stage.running_text == "cpu: sessions attend one by one"
    assert probed("cpu", torch.float32).attention is None


def test_long_texts_are_split_until_the_card_is_busy() -> None:
    assert [num_splits(programs) for programs in (1, 8, 64, 256, 512, 5000)] == [32, 32, 8, 2, 1, 1]


@pytest.mark.parametrize(("size", "outputs"), [(20, 7), (3000, 5), (9000, 3)])
@pytest.mark.parametrize("has_bias", [False, True])
def test_the_product_of_one_row(size: int, outputs: int, has_bias: bool) -> None:
    weight, row = torch.randn(outputs, size, device=KERNELS_RUN_ON), torch.randn(1, 1, size, device=KERNELS_RUN_ON)
    bias = torch.randn(outputs, device=KERNELS_RUN_ON) if has_bias else None
    found = row_products._row(weight, bias, row)
    assert torch.allclose(found, torch.nn.functional.linear(row, weight, bias), atol=1e-3) and found.shape == (1, 1, outputs)
    assert not row_products.suits(weight.cpu()), "a CPU keeps its own products"


def test_a_stage_that_retires_keeps_its_weights_alone(tmp_path: Path) -> None:
    model = saved("llama", tmp_path)
    old = StageModel.load(tmp_path, 0, 6, kv_budget_bytes=tiny.KV_BYTES, acceleration=PAGED)
    old.open("a", 10)
    pools = [weakref.ref(pool) for pair in old.kv.pools.values() for pool in pair]  # type: ignore[attr-defined]
    old.retire()
    gc.collect()
    assert pools and all(pool() is None for pool in pools) and old.kv.session_ids == ()
    new = StageModel.load(tmp_path, 0, 6, kv_budget_bytes=tiny.KV_BYTES, acceleration=PAGED, reuse=old)
    assert new.bytes_beyond(old) == 0
    assert tiny.sliced([new], tiny.prompts(), 4) == tiny.whole(model, tiny.prompts(), 4)
