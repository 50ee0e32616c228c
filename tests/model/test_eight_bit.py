"""8 bits are exact: the bits of a token's logits depend on its own session alone, however it is computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from engine.data.errors import NotSupported
from engine.data.model import ModelRef
from engine.model.eight_bit_products import LARGEST, LARGEST_INPUT, Kernel, best_kernel, round_rows, round_weight, side_by_side
from engine.model.running.eight_bit.elementwise import in_pieces
from engine.model.running.eight_bit.layers import EightBitLinear
from engine.model.running.stage import StageModel
from engine.model.sources.card import describe
from tests.model import tiny

NUM_ITEMS = tiny.NUM_LAYERS + 2
CUTS = ((0, NUM_ITEMS), (0, 3, NUM_ITEMS), (0, 1, 4, NUM_ITEMS), (0, 1, 2, 3, 5, NUM_ITEMS))  # 1, 2, 3 and 5 stages
FAMILIES = ("gpt2", "llama", "gemma2", "opt", "phi3")  # caps, windows, masks, joined and biased layers
KERNELS = [Kernel.PLAIN, best_kernel()] if best_kernel() is not Kernel.PLAIN else [Kernel.PLAIN]
LONGEST = 135  # tokens: more than two blocks of keys
MOST_TOKENS = (LONGEST, LONGEST, 70, 20, 20, 9, 5, 1)  # of each prompt
PROMPTS = [torch.randint(tiny.VOCABULARY, (LONGEST,), generator=torch.Generator().manual_seed(i)).tolist() for i in range(8)]


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


class Model:
    """One tiny model: its slices by cut, and the logits of every prefix of every prompt, computed token by token and alone."""

    def __init__(self, folder: Path) -> None:
        torch.set_num_threads(1)
        self.slices = {cuts: [load(folder, *ends) for ends in pairwise(cuts)] for cuts in CUTS}
        self._expected: dict[int, list[torch.Tensor]] = {}

    def expected(self, prompt: int, length: int) -> torch.Tensor:
        if prompt not in self._expected:
            stages = self.slices[CUTS[0]]
            stages[0].open("reference", LONGEST)
            self._expected[prompt] = [step(stages, [("reference", [token])])[0] for token in PROMPTS[prompt][: MOST_TOKENS[prompt]]]
            stages[0].close("reference")
        return self._expected[prompt][length - 1]


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp(request.param)
    tiny.random_model(tiny.tiny_config(request.param)).save_pretrained(folder)
    return Model(folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny.random_model(tiny.tiny_config("llama")).save_pretrained(tmp_path)
    return tmp_path


def load(folder: Path, start: int, stop: int, reuse: StageModel | None = None) -> StageModel:
    return StageModel.load(folder, start, stop, dtype="int8", kv_budget_bytes=tiny.KV_BYTES, reuse=reuse)


def step(stages: Sequence[StageModel], rows: Sequence[tuple[str, list[int]]]) -> torch.Tensor:
    hidden: torch.Tensor | None = None
    for stage in stages:
        hidden = stage.forward(rows, hidden)
    assert hidden is not None
    return hidden


@settings(max_examples=8, deadline=None, phases=(Phase.explicit, Phase.generate))  # a failing example is small enough
@given(
    lengths=st.lists(st.integers(1, LONGEST), min_size=1, max_size=8),
    chunk=st.sampled_from((7, 17, 64, LONGEST)),
    cuts=st.sampled_from(CUTS),
    threads=st.integers(1, 2),
    spare=st.integers(0, 70),
)
def test_logits_are_the_same_bits_in_any_chunks_company_split_and_number_of_threads(
    model: Model, lengths: list[int], chunk: int, cuts: tuple[int, ...], threads: int, spare: int
) -> None:
    lengths = [min(length, most) for length, most in zip(lengths, MOST_TOKENS, strict=False)]
    wanted = [model.expected(prompt, length) for prompt, length in enumerate(lengths)]
    torch.set_num_threads(threads)
    stages = model.slices[cuts]
    for prompt, length in enumerate(lengths):
        for stage in stages:
            stage.open(f"s{prompt}", length + spare)
    try:
        for at in range(0, max(lengths), chunk):
            rows = [(f"s{i}", PROMPTS[i][at : min(at + chunk, length)]) for i, length in enumerate(lengths) if at < length]
            logits = step(stages, rows)
            for (name, token_ids), found in zip(rows, logits, strict=True):
                if at + len(token_ids) == lengths[int(name[1:])]:
                    assert torch.equal(found, wanted[int(name[1:])])
    finally:
        for stage in stages:
            for session_id in stage.kv.session_ids:
                stage.close(session_id)
            stage.kv.check()


@pytest.mark.parametrize("kernel", KERNELS)
@settings(max_examples=40, deadline=None, phases=(Phase.explicit, Phase.generate))
@given(shape=st.tuples(st.integers(1, 40), st.integers(1, 300), st.integers(1, 70)), seed=st.integers(0, 9), is_extreme=st.booleans())
@example(shape=(12, 1, 40), seed=0, is_extreme=False)
def test_a_product_is_the_exact_sum_and_each_row_is_its_own(
    kernel: Kernel, shape: tuple[int, int, int], seed: int, is_extreme: bool
) -> None:
    num_rows, num_inputs, num_outputs = shape
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(num_rows, num_inputs, generator=generator)
    weight = torch.randn(num_outputs, num_inputs, generator=generator)
    if is_extreme:  # the largest sums that can be
        rows, weight = rows.sign(), weight.sign()
    held = round_weight(weight, kernel)
    found = held.product(round_rows(rows))
    row_scale, weight_scale = rows.abs().amax(1, keepdim=True) / LARGEST_INPUT, weight.abs().amax(1, keepdim=True) / LARGEST
    sums = (rows / row_scale).round().double() @ (weight / weight_scale).round().double().t()
    largest = LARGEST_INPUT * LARGEST * num_inputs * float((row_scale * weight_scale.t()).max())  # that any of these sums could be
    torch.testing.assert_close(found.double(), sums * row_scale * weight_scale.t(), rtol=1e-6, atol=1e-7 * largest)
    for index, row in enumerate(rows):
        assert torch.equal(held.product(round_rows(row[None]))[0], found[index])


@pytest.mark.parametrize("kernel", KERNELS)
@settings(max_examples=20, deadline=None)
@given(outputs=st.lists(st.integers(1, 70), min_size=2, max_size=4), num_inputs=st.integers(1, 300), num_rows=st.integers(1, 9))
def test_matrices_side_by_side_give_the_bits_of_each_alone(kernel: Kernel, outputs: list[int], num_inputs: int, num_rows: int) -> None:
    generator = torch.Generator().manual_seed(num_inputs)
    weights = [round_weight(torch.randn(size, num_inputs, generator=generator), kernel) for size in outputs]
    rows = round_rows(torch.randn(num_rows, num_inputs, generator=generator))
    assert torch.equal(side_by_side(weights).product(rows), torch.cat([weight.product(rows) for weight in weights], 1))


def test_one_large_number_costs_the_small_ones_beside_it_little() -> None:
    generator = torch.Generator().manual_seed(0)
    rows, weight = torch.randn(4, 256, generator=generator), torch.randn(64, 256, generator=generator)
    rows[:, 7] = 500  # as trained models have them; in 8 bits the others would be 0
    weight[:, 7] = 0
    exact = rows @ weight.t()
    assert float((round_weight(weight).product(round_rows(rows)) - exact).norm() / exact.norm()) < 0.03


def test_rows_and_weights_of_zeros_give_zeros() -> None:
    held = round_weight(torch.zeros(8, 16))
    assert not held.product(round_rows(torch.zeros(2, 16))).any()


@settings(max_examples=40, deadline=None)
@given(num_rows=st.integers(1, 60), size=st.integers(1, 1500), threads=st.integers(1, 3), seed=st.integers(0, 9))
def test_an_activation_gives_a_number_the_same_bits_wherever_it_lies(num_rows: int, size: int, threads: int, seed: int) -> None:
    numbers = torch.randn(1, num_rows, size, generator=torch.Generator().manual_seed(seed))
    torch.set_num_threads(threads)
    for function in (torch.nn.functional.silu, torch.tanh, lambda x: torch.nn.functional.gelu(x, approximate="tanh")):
        together = in_pieces(function, numbers)
        apart = torch.cat([in_pieces(function, numbers[:, [row]]) for row in range(num_rows)], 1)
        assert torch.equal(together, apart) and torch.allclose(together, function(numbers))


def test_a_stage_has_the_bytes_that_were_planned_and_a_quarter_of_float32_in_its_products(folder: Path) -> None:
    card = describe(folder, ModelRef(str(folder), dtype="int8"))
    stages = [load(folder, index, index + 1) for index in range(NUM_ITEMS)]
    assert [stage.weight_bytes for stage in stages] == [item.weight_bytes for item in card.items]
    full = describe(folder, ModelRef(str(folder)))
    assert card.num_parameters == full.num_parameters and card.items[0] == full.items[0] and not card.inexact
    assert card.items[1].weight_bytes < 0.65 * full.items[1].weight_bytes  # of 32 inputs a row's scale is a third


def test_a_tied_head_has_its_own_bytes(tmp_path: Path) -> None:
    config = tiny.tiny_config("llama")
    config.tie_word_embeddings = True
    tiny.random_model(config).save_pretrained(tmp_path)
    card = describe(tmp_path, ModelRef(str(tmp_path), dtype="int8"))
    assert [item.tied_to for item in card.items] == [None] * NUM_ITEMS
    whole, last = load(tmp_path, 0, NUM_ITEMS), load(tmp_path, NUM_ITEMS - 1, NUM_ITEMS)
    assert whole.weight_bytes == sum(item.weight_bytes for item in card.items)
    assert last.weight_bytes == card.items[-1].weight_bytes
    split = [load(tmp_path, 0, NUM_ITEMS - 1), last]
    for stage in (whole, *split):
        stage.open("a", 9)
    assert torch.equal(step([whole], [("a", PROMPTS[0][:9])]), step(split, [("a", PROMPTS[0][:9])]))


def test_a_new_stage_takes_8_bit_items_over_and_reads_none_of_another_dtype(folder: Path) -> None:
    old = load(folder, 0, 4)
    new = load(folder, 1, 4, reuse=old)
    assert new.bytes_beyond(old) == 0 < new.weight_bytes
    assert old.items_for(old.fingerprint, "float32", "cpu") == range(0) != old.items_for(old.fingerprint, "int8", "cpu")


def test_layers_that_share_an_input_share_a_product_after_a_step_in_every_stage_that_holds_them(folder: Path) -> None:
    old = load(folder, 0, NUM_ITEMS)
    new = load(folder, 0, NUM_ITEMS, reuse=old)
    layers = [layer for layer in old.module.modules() if isinstance(layer, EightBitLinear)]
    for stage in (old, new):
        stage.open("a", 20)
    apart = step([old], [("a", PROMPTS[0][:9])])
    weights = {id(layer.held.part.weight) for layer in layers if layer.held is not None}
    assert len(layers) == 7 * tiny.NUM_LAYERS + 1 and len(weights) == 4 * tiny.NUM_LAYERS + 1
    assert torch.equal(step([new], [("a", PROMPTS[0][:9])]), apart)
    assert old.bytes_beyond(None) == old.weight_bytes == new.weight_bytes and new.bytes_beyond(old) == 0
    assert {id(layer.held.part.weight) for layer in new.module.modules() if isinstance(layer, EightBitLinear) and layer.held} == weights


def test_answers_stay_near_those_of_float32(folder: Path) -> None:
    exact, rounded = StageModel.load(folder, 0, NUM_ITEMS, kv_budget_bytes=tiny.KV_BYTES), load(folder, 0, NUM_ITEMS)
    for stage in (exact, rounded):
        stage.open("a", LONGEST)
    wanted, found = (step([stage], [("a", PROMPTS[0])]) for stage in (exact, rounded))
    assert torch.nn.functional.cosine_similarity(wanted, found).item() > 0.99
    assert not torch.equal(wanted, found)


@pytest.mark.parametrize(("family", "reason"), [("mixtral", "stay in float32"), ("falcon", "computes its attention itself")])
def test_a_model_with_parts_that_depend_on_company_says_so(family: str, reason: str, tmp_path: Path) -> None:
    tiny.random_model(tiny.tiny_config(family)).save_pretrained(tmp_path)
    assert reason in describe(tmp_path, ModelRef(str(tmp_path), dtype="int8")).inexact
    assert not describe(tmp_path, ModelRef(str(tmp_path))).inexact
    stage = load(tmp_path, 0, NUM_ITEMS)
    stage.open("a", 9)
    assert step([stage], [("a", PROMPTS[0][:9])]).isfinite().all()


def test_a_device_without_8_bit_products_is_refused(folder: Path) -> None:
    with pytest.raises(NotSupported, match="use --dtype bfloat16"):
        StageModel.load(folder, 0, 1, dtype="int8", device="cuda:0", kv_budget_bytes=tiny.KV_BYTES)
