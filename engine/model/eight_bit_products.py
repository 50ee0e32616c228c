"""Products of 8-bit weights with rows that are rounded to 8 bits as they come: W8A8, summed in 32-bit integers.

One scale for each row of the weight and one for each row of the input, both largest value / 127. Sums of integers are
exact, so a row's result depends neither on the rows beside it, nor on threads, nor on how a kernel orders its work.

What computes it is found once by trying, never by the name of a CPU:
- *whole*: fbgemm, which torch brings along, with the input's 8 bits in one go. Right where the CPU sums four products of 8 bits in
  32 (AVX512 VNNI); elsewhere its kernel adds pairs in 16 bits, which overflow.
- *halves*: the same kernel with the input's upper 7 bits and its lowest bit as two rows. Every pair then fits into 16 bits.
- *plain*: `torch._int_mm`, where there is no fbgemm.

Shapes: T rows, K inputs, N outputs.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, partial
from typing import Any

import torch
from torch.linalg import vector_norm

LARGEST = 127
MOST_INPUTS = 2**16  # of more, the sum of 255 x 127 might leave 32 bits
_SCALE_BYTES = 12  # what a packed weight keeps of a row: scale, zero point and sum, 4 bytes each
_FLOATS_AT_ONCE = 2**20  # of a weight that is being rounded
_LEAST_SCALE = 1e-30  # of a row of zeros


class Kernel(StrEnum):
    WHOLE = "whole"
    HALVES = "halves"
    PLAIN = "plain"


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows rounded to 8 bits."""

    values: torch.Tensor  # float32 [T, K] whole numbers up to 127; with halves [2T, K]: all of them // 2, then all of them % 2
    scales: torch.Tensor  # float32 [T, 1]


@dataclass(frozen=True, slots=True)
class Weight:
    """A matrix [N, K] in 8 bits, laid out for `kernel`."""

    packed: Any  # fbgemm's object, or int8 [N, K]
    scales: torch.Tensor  # float32 [N]
    kernel: Kernel

    def product(self, rows: Rows) -> torch.Tensor:
        """float32 [T, N]."""
        if self.kernel is Kernel.PLAIN:
            values, right = rows.values.to(torch.int8), self.packed.t()
            sums = torch._int_mm(values, right) if len(right) > 1 else values.int() * right.int()  # torch 2.13 is wrong for one input
            return sums.float().mul_(self.scales).mul_(rows.scales)
        if self.kernel is Kernel.WHOLE:
            return _fbgemm(rows.values, LARGEST + 1, self.packed).mul_(rows.scales)
        num_rows = len(rows.scales)
        both = _fbgemm(rows.values, (LARGEST + 1) // 2, self.packed)
        return torch.add(both[num_rows:], both[:num_rows], alpha=2).mul_(rows.scales)


def weight_bytes(num_outputs: int, num_inputs: int) -> int:
    """Bytes of a matrix in 8 bits with its scales."""
    return num_outputs * (num_inputs + _SCALE_BYTES)


def round_rows(rows: torch.Tensor, kernel: Kernel) -> Rows:
    """float32 [T, K] to 8 bits."""
    scales = vector_norm(rows, math.inf, -1, keepdim=True).div_(LARGEST).clamp_min_(_LEAST_SCALE)
    return _laid_out((rows / scales).round_(), scales, kernel)


def whole_product(left: torch.Tensor, right: torch.Tensor) -> Callable[[], torch.Tensor]:
    """What multiplies int8 [T, K] by int8 [K, N] to float32 [T, N], to be called once or more; the layout is made before."""
    kernel = best_kernel()
    rows = _laid_out(left.float(), torch.ones(len(left), 1), kernel)
    return partial(_packed(right.t(), torch.ones(right.shape[1]), kernel).product, rows)


def round_weight(weight: torch.Tensor, kernel: Kernel | None = None) -> Weight:
    """A float matrix [N, K] to 8 bits, some rows at a time: beside the result it takes one copy in 8 bits."""
    kernel = kernel or best_kernel()
    scales = vector_norm(weight, math.inf, 1, dtype=torch.float32).div_(LARGEST).clamp_min_(_LEAST_SCALE)
    values = torch.empty(weight.shape, dtype=torch.int8)
    step = max(1, _FLOATS_AT_ONCE // weight.shape[1])
    for start in range(0, len(weight), step):
        part = slice(start, start + step)
        values[part] = (weight[part].float() / scales[part, None]).round_().to(torch.int8)
    return _packed(values, scales, kernel)


@cache
def best_kernel() -> Kernel:
    """The fastest one whose sums are right on this machine."""
    if "fbgemm" in torch.backends.quantized.supported_engines:
        for kernel in (Kernel.WHOLE, Kernel.HALVES):
            if _is_exact(kernel):
                return kernel
    return Kernel.PLAIN


def _is_exact(kernel: Kernel) -> bool:
    """Whether a product with the largest sums that can be comes out right; all of them are below 2^24, so float32 holds them."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(-LARGEST, LARGEST + 1, (64, 256), dtype=torch.int8, generator=generator)
    values[::2] = values[::2].sign() * LARGEST
    rows = torch.cat((values[:40].float(), torch.full((8, 256), float(LARGEST)), torch.full((8, 256), float(-LARGEST))))
    try:
        found = _packed(values, torch.ones(64), kernel).product(_laid_out(rows, torch.ones(len(rows), 1), kernel))
    except RuntimeError:
        return False
    return torch.equal(found.double(), rows.double() @ values.double().t())


def _laid_out(values: torch.Tensor, scales: torch.Tensor, kernel: Kernel) -> Rows:
    if kernel is not Kernel.HALVES:
        return Rows(values, scales)
    num_rows = len(values)
    halves = torch.empty((2 * num_rows, values.shape[1]))
    upper, lowest = halves[:num_rows], halves[num_rows:]
    torch.mul(values, 0.5, out=upper).floor_()
    torch.sub(values, upper, alpha=2, out=lowest)
    return Rows(halves, scales)


def _packed(values: torch.Tensor, scales: torch.Tensor, kernel: Kernel) -> Weight:
    if kernel is Kernel.PLAIN:
        return Weight(values, scales, kernel)
    zeros = torch.zeros(len(scales), dtype=torch.int64)
    with _fbgemm_engine(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that quantised tensors will go; until then nothing else packs
        quantised = torch._make_per_channel_quantized_tensor(values, scales.double(), zeros, 0)
        return Weight(torch.ops.quantized.linear_prepack(quantised, None), scales, kernel)


def _fbgemm(values: torch.Tensor, zero_point: int, packed: Any) -> torch.Tensor:
    """Whole numbers [T, K] times the packed weight and its scales, [T, N]."""
    product: torch.Tensor = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(values, 1.0, zero_point, packed)
    return product


@contextmanager
def _fbgemm_engine() -> Iterator[None]:
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = "fbgemm"
    try:
        yield
    finally:
        torch.backends.quantized.engine = before
