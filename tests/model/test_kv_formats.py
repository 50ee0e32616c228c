"""Keys and values in fewer bits: what is kept of a token has the same bits however it came, and moves without another rounding."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.errors import Exhausted, InvalidInput, NotSupported
from engine.data.model import ModelRef
from engine.model.kv_formats import KVFormat
from engine.model.running.contiguous_kv import ContiguousKV
from engine.model.running.kv import LayerShape
from engine.model.running.stage import StageModel
from engine.model.sources.card import describe
from tests.model import tiny

NUM_ITEMS = tiny.NUM_LAYERS + 2
KEPT = {"bfloat16": torch.bfloat16, "float16": torch.float16, "int8": torch.int8}
LAYERS = {3: LayerShape(2, 4, 2, 6), 5: LayerShape(1, 3, 1, 3)}
PROMPTS = [torch.randint(tiny.VOCABULARY, (90,), generator=torch.Generator().manual_seed(i)).tolist() for i in range(3)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("llama")
    tiny.random_model(tiny.tiny_config("llama")).save_pretrained(path)
    return path


def numbers(heads: int, tokens: int, size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(heads, tokens, size, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=100, deadline=None)
@given(
    heads=st.integers(1, 4),
    tokens=st.integers(1, 20),
    size=st.integers(1, 70),
    seed=st.integers(0, 99),
    computed=st.sampled_from((torch.float32, torch.bfloat16)),
)
def test_8_bits_of_a_head_are_its_own_and_within_half_a_step(heads: int, tokens: int, size: int, seed: int, computed: torch.dtype) -> None:
    form, given_numbers = KVFormat(computed, torch.int8), numbers(heads, tokens, size, seed).to(computed)
    kept = form.to_kept(given_numbers)
    assert kept.shape == (heads, tokens, form.kept_size(size)) and kept.dtype == torch.int8
    apart = [form.to_kept(given_numbers[h : h + 1, t : t + 1]) for h in range(heads) for t in range(tokens)]
    assert torch.equal(kept, torch.cat(apart).view(kept.shape))
    back, step = form.to_computed(kept), given_numbers.float().abs().amax(-1, keepdim=True) / 127
    rounding = 2**-7 * given_numbers.float().abs() if computed == torch.bfloat16 else 1e-6
    assert back.dtype == computed and bool(((back.float() - given_numbers.float()).abs() <= 0.5001 * step + rounding).all())


def test_zeros_stay_zeros() -> None:
    form = KVFormat(torch.float32, torch.int8)
    assert torch.equal(form.to_computed(form.to_kept(torch.zeros(2, 3, 5))), torch.zeros(2, 3, 5))
    assert torch.equal(form.to_computed(torch.zeros(2, 3, 9, dtype=torch.int8)), torch.zeros(2, 3, 5)), "what pads a buffer"


def store(kind: str, budget_bytes: int = 2**20) -> ContiguousKV:
    return ContiguousKV(LAYERS, budget_bytes, dtype=torch.float32, kept_dtype=KEPT[kind])


def fill(kv: ContiguousKV, chunks: tuple[int, ...]) -> None:
    whole = {
        layer: (numbers(s.num_key_heads, 100, s.key_size), numbers(s.num_value_heads, 100, s.value_size)) for layer, s in LAYERS.items()
    }
    kv.open("a", 100)
    for start, stop in pairwise((0, *chunks)):
        for layer, (keys, values) in whole.items():
            kv.write("a", layer, keys[:, start:stop], values[:, start:stop])
        kv.commit("a", stop)
    kv.check()


@pytest.mark.parametrize("kind", KEPT)
def test_what_is_kept_is_the_same_in_any_chunks_and_after_a_move(kind: str) -> None:
    at_once, in_chunks, moved = store(kind), store(kind), store(kind)
    fill(at_once, (80,))
    fill(in_chunks, (1, 7, 64, 79, 80))
    moved.open("a", 100)
    for layer in LAYERS:
        for start, stop in ((0, 33), (33, 80)):
            moved.import_block("a", layer, start, *at_once.export_block("a", layer, start, stop))
    moved.check()
    for other in (in_chunks, moved):
        for layer in LAYERS:
            expected, found = (kv.export_block("a", layer, 0, 80) for kv in (at_once, other))
            assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


@pytest.mark.parametrize(("kind", "token_bytes"), [("bfloat16", 2 * 26), ("int8", 26 + 4 * 6)])
def test_a_budget_counts_the_bytes_that_are_kept(kind: str, token_bytes: int) -> None:
    kv = store(kind, 10 * token_bytes)
    assert kv.bytes_per_token == token_bytes
    kv.open("a", 10)
    with pytest.raises(Exhausted):
        kv.open("b", 1)


def test_a_block_in_another_dtype_is_refused() -> None:
    plain, small = ContiguousKV(LAYERS, 2**20, dtype=torch.float32), store("int8")
    fill(plain, (8,))
    small.open("a", 100)
    with pytest.raises(InvalidInput, match=r"in torch.int8 with at least 1 token, but got .* in torch.float32"):
        small.import_block("a", 3, 0, *plain.export_block("a", 3, 0, 8))


def load(folder: Path, start: int, stop: int, dtype: str, kv_dtype: str) -> StageModel:
    return StageModel.load(folder, start, stop, dtype=dtype, kv_dtype=kv_dtype, kv_budget_bytes=tiny.KV_BYTES)


def logits(stages: list[StageModel], rows: list[tuple[str, list[int]]]) -> torch.Tensor:
    hidden: torch.Tensor | None = None
    for stage in stages:
        hidden = stage.forward(rows, hidden)
    assert hidden is not None
    return hidden


@pytest.mark.parametrize("kv_dtype", KEPT)
@pytest.mark.parametrize("chunk", [17, 64, 90])
def test_int8_answers_stay_exact_in_company_chunks_and_splits(kv_dtype: str, chunk: int, folder: Path) -> None:
    alone = [load(folder, 0, NUM_ITEMS, "int8", kv_dtype)]
    alone[0].open("a", 90)
    for token in PROMPTS[0]:
        wanted = logits(alone, [("a", [token])])
    split = [load(folder, *ends, "int8", kv_dtype) for ends in ((0, 2), (2, NUM_ITEMS))]
    for stage in split:
        for name in "abc":
            stage.open(name, 100)
    for at in range(0, 90, chunk):
        found = logits(split, [(name, prompt[at : at + chunk]) for name, prompt in zip("abc", PROMPTS, strict=True)])
    assert torch.equal(found[0], wanted[0])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("kv_dtype", KEPT)
def test_answers_stay_near_and_the_card_counts_what_a_stage_keeps(dtype: str, kv_dtype: str, folder: Path) -> None:
    plain, small = load(folder, 0, NUM_ITEMS, dtype, "auto"), load(folder, 0, NUM_ITEMS, dtype, kv_dtype)
    for stage in (plain, small):
        stage.open("a", 90)
    expected, found = (logits([stage], [("a", PROMPTS[0])]) for stage in (plain, small))
    assert torch.nn.functional.cosine_similarity(expected, found).item() > 0.99
    card = describe(folder, ModelRef(str(folder), dtype=dtype, kv_dtype=kv_dtype))
    assert sum(item.kv_bytes_per_token for item in card.items) == small.kv.bytes_per_token
    assert sum(item.weight_bytes for item in card.items) == sum(i.weight_bytes for i in describe(folder, ModelRef("", dtype=dtype)).items)
    if dtype != "bfloat16" or kv_dtype == "int8":  # 16 bits hold what was computed in bfloat16
        assert not torch.equal(expected, found)


def test_a_dtype_that_is_none_is_named_and_other_devices_keep_kv_as_they_compute(folder: Path) -> None:
    with pytest.raises(InvalidInput, match="KV dtype 'int4' is not known: use auto, float32"):
        load(folder, 0, NUM_ITEMS, "float32", "int4")
    with pytest.raises(InvalidInput, match="KV dtype 'int4' is not known: use auto, float32"):
        describe(folder, ModelRef("", kv_dtype="int4"))
    with pytest.raises(NotSupported, match="keeps KV as it computes: leave --kv-dtype int8 out"):
        StageModel.load(folder, 0, 1, device="cuda:0", kv_dtype="int8", kv_budget_bytes=2**20)
