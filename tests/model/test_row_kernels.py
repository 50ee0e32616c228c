"""Compiled row kernels have the bits of torch's operations, whatever the rows hold; and a stage has the same logits without them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from engine.model import eight_bit_products
from engine.model.eight_bit_products import LARGEST_INPUT
from engine.model.row_kernels import kernels, plain
from engine.model.row_kernels.kernels import RowKernels, row_kernels
from engine.model.running import rows as shortened
from engine.model.running.rows import shorten_forwards
from engine.model.running.stage import StageModel
from tests.model import tiny

ROWS = st.integers(1, 5) | st.integers(120, 140)  # from some on more than go into one call
SIZES = st.integers(1, 70) | st.sampled_from((127, 128, 576, 1000, 2049))
SPECIAL = (0.0, -0.0, 1e-40, 3e38, float("inf"), float("nan"))
NUM_PARTS, LEAST = 128, 1e-30


def numbers(seed: int, *shape: int) -> torch.Tensor:
    """Of very different sizes; every third seed has rows of zeros, and numbers that overflow or are none."""
    generator = torch.Generator().manual_seed(seed)
    found = torch.randn(shape, generator=generator) * torch.randn(shape, generator=generator).mul_(4).exp_()
    if seed % 3 == 0:
        found[..., -1, :] = 0.0
        places = torch.randint(found.numel(), (3,), generator=generator)
        found.view(-1)[places] = torch.tensor(SPECIAL)[torch.randint(len(SPECIAL), (3,), generator=generator)]
    return found


def same(found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Bit for bit, except that one number that is none is as good as another."""
    if found.shape != expected.shape or not torch.equal(found.isnan(), expected.isnan()):
        return False
    return torch.equal(found.nan_to_num().view(torch.int32), expected.nan_to_num().view(torch.int32))


ALL = ["rms_norm", "round_rows", "put_together", "rotary", "put_token"]
# In which order torch sums a row was compared for these instruction sets; elsewhere its own norm may have to stay.
IS_KNOWN = torch.backends.cpu.get_cpu_capability() == "AVX2"


def test_all_are_compiled_here() -> None:
    names = row_kernels().names
    assert names == ALL or (not IS_KNOWN and names == ALL[1:])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), ROWS, SIZES, st.booleans())
def test_norms(seed: int, num_rows: int, size: int, one_plus: bool) -> None:
    """Of rows one behind the other, and of heads that are part of wider rows."""
    rows, weight = numbers(seed, 1, num_rows, 3 * size), torch.randn(size, generator=torch.Generator().manual_seed(seed))
    for hidden in (
        rows[..., :size].contiguous(),
        rows[..., : 2 * size].view(1, num_rows, 2, size),
        rows.view(1, num_rows, 3, size).transpose(1, 2),
    ):
        found, alone = row_kernels().rms_norm(hidden, weight, 1e-6, one_plus), plain.rms_norm(hidden.contiguous(), weight, 1e-6, one_plus)
        assert same(found, plain.rms_norm(hidden, weight, 1e-6, one_plus)) and same(found, alone)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), ROWS, SIZES)
def test_rounding(seed: int, num_rows: int, size: int) -> None:
    rows = numbers(seed, 1, num_rows, size)
    found = row_kernels().round_rows(rows, LARGEST_INPUT, NUM_PARTS, LEAST)
    for a, b in zip(found, plain.round_rows(rows, LARGEST_INPUT, NUM_PARTS, LEAST), strict=True):
        assert same(a + 0.0, b + 0.0)  # a zero may have another sign, which no sum keeps


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), ROWS, SIZES)
def test_parts_of_a_product(seed: int, num_rows: int, size: int) -> None:
    sums, scales = numbers(seed, 2, num_rows, size), numbers(seed + 1, 1, num_rows, 1).abs()
    assert same(row_kernels().put_together(sums, scales, NUM_PARTS), plain.put_together(sums, scales, NUM_PARTS))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 9), st.integers(1, 5), st.integers(1, 70), st.data())
def test_tokens_that_are_kept(seed: int, num_tokens: int, num_heads: int, size: int, data: st.DataObject) -> None:
    """Heads as rotary positions leave them, and as parts of a wider row."""
    token, position = data.draw(st.integers(0, num_tokens - 1)), data.draw(st.integers(0, 19))
    for heads in (numbers(seed, num_heads, num_tokens, size), numbers(seed, num_tokens, num_heads, size + 3).transpose(0, 1)[..., :size]):
        found, expected = torch.zeros(2, num_heads, 20, size)
        row_kernels().put_token(heads, token, found, position)
        plain.put_token(heads, token, expected, position)
        assert same(found, expected) and same(found[:, position], heads[:, token])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), ROWS, st.integers(1, 5), st.integers(1, 40), st.booleans())
def test_rotary_positions(seed: int, num_tokens: int, num_heads: int, half: int, is_wider: bool) -> None:
    """Heads as a model has them, views of rows of heads, and part of a head that is wider."""
    size = 2 * half
    heads = numbers(seed, 1, num_tokens, num_heads, size + 6 * is_wider).transpose(1, 2)[..., :size]
    angles = torch.randn(1, num_tokens, size, generator=torch.Generator().manual_seed(seed))
    found = row_kernels().rotary(heads, angles.cos(), angles.sin())
    assert same(found, plain.rotary(heads, angles.cos(), angles.sin()))


def test_what_does_not_lie_in_a_row_takes_torch() -> None:
    hidden = numbers(1, 8, 5).t()
    assert same(row_kernels().rms_norm(hidden, torch.ones(8), 1e-6, False), plain.rms_norm(hidden, torch.ones(8), 1e-6, False))
    found = row_kernels().round_rows(hidden, LARGEST_INPUT, NUM_PARTS, LEAST)
    assert all(map(torch.equal, found, plain.round_rows(hidden, LARGEST_INPUT, NUM_PARTS, LEAST)))
    odd = numbers(1, 1, 3, 2, 8).transpose(1, 2)[..., ::2]
    angles = torch.randn(1, 3, 4)
    assert torch.equal(row_kernels().rotary(odd, angles, angles), plain.rotary(odd, angles, angles))


def test_a_kernel_with_other_bits_is_not_used() -> None:
    """As on a CPU whose vectors have another width than those that are tried."""
    wrong = lambda *args: plain.rms_norm(*args).nextafter(torch.tensor(9.0))  # noqa: E731
    assert kernels._first_equal(plain.rms_norm, [wrong], kernels._norms()) is plain.rms_norm
    assert kernels._first_equal(plain.rms_norm, [wrong, row_kernels().rms_norm], kernels._norms()) is row_kernels().rms_norm


class Shifted(LlamaRMSNorm):
    """Like a norm in all but what it computes."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return super().forward(hidden) + 1e-6


@pytest.mark.parametrize("kind", [LlamaRMSNorm, GemmaRMSNorm])
def test_norms_are_found_by_what_they_compute(kind: type[nn.Module]) -> None:
    norm, other, hidden = kind(24).requires_grad_(False), Shifted(24).requires_grad_(False), numbers(1, 1, 5, 24)
    nn.init.normal_(norm.weight)
    expected = norm(hidden)
    shorten_forwards(norm)
    shorten_forwards(other)
    assert ("forward" in vars(norm)) == ("rms_norm" in row_kernels().names) and "forward" not in vars(other)
    assert torch.equal(norm(hidden), expected)
    assert norm(hidden.double()).dtype is torch.float64


def logits(folder: Path, dtype: str) -> list[torch.Tensor]:
    """Of a long prompt, of steps of two sessions, and how many forwards are other ones."""
    stage = StageModel.load(folder, 0, tiny.NUM_LAYERS + 2, dtype=dtype, kv_budget_bytes=1 << 30)
    found = []
    for name, length in (("a", 60), ("b", 5)):
        stage.open(name, 80)
        found.append(stage.forward([(name, [k % tiny.VOCABULARY for k in range(length)])], None))
    found += [stage.forward([("a", [k]), ("b", [k + 1])], None) for k in range(4)]
    changed = sum("forward" in vars(module) for module in stage.module.modules())
    return [*found, torch.tensor([float(changed)])]


@pytest.mark.parametrize("dtype", ["float32", "int8"])
@pytest.mark.parametrize("family", ["llama", "gemma2", "qwen3", "phi3", "gpt2"])
def test_a_stage_has_the_same_logits_without_them(family: str, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.random_model(tiny.tiny_config(family)).save_pretrained(tmp_path)
    found = logits(tmp_path, dtype)
    for module in (eight_bit_products, shortened):
        monkeypatch.setattr(module, "row_kernels", RowKernels)
    expected = logits(tmp_path, dtype)
    assert all(map(torch.equal, found[:-1], expected[:-1]))
    assert family == "gpt2" or row_kernels().names != ALL or found[-1] > expected[-1], "nothing was compiled"


def test_without_numba_steps_run_all_the_same() -> None:
    program = """
import sys
sys.modules["numba"] = None
from engine.model.row_kernels.kernels import row_kernels
assert row_kernels().names == []
import torch
from engine.model.eight_bit_products import round_rows, round_weight
print(round_weight(torch.ones(4, 4)).product(round_rows(torch.ones(1, 4))).round().tolist())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[[4.0, 4.0, 4.0, 4.0]]"
