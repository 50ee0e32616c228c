"""Products of 8-bit weights with rows that are rounded to 14 bits as they come, summed in 32-bit integers.

One scale for each row of the weight, its largest value / 127, and one for each row of the input, its largest value / 8192. A rounded
value is 128 x upper + lower, and both parts are 8-bit numbers: a row of the input goes in as two. Sums of integers are exact, so a row's
result depends neither on the rows beside it, nor on threads, nor on how a kernel orders its work.

Rows of 8 bits would do where the CPU adds four products of 8 bits in 32 (AVX512 VNNI), but a few large numbers among small ones, which
trained models have, cost them 4 % of perplexity. Elsewhere fbgemm adds pairs of products in 16 bits, which 8 by 8 bits overflow
without a word. Parts of at most 64 fit: 2 x 128 x 127 < 2^15, the 128 with the zero point that fbgemm adds.

What computes it is found once by trying, never by the name of a CPU: fbgemm, which torch brings along on x86, or else *plain*,
`torch._int_mm`.

Shapes: T rows, K inputs, N outputs. Rows may have more dimensions before T, as a model's hidden states do.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, partial
from typing import Any

import torch
from torch.linalg import vector_norm

from engine.model.row_kernels.kernels import row_kernels
from engine.model.row_kernels.plain import in_parts

LARGEST = 127  # of a weight
LARGEST_INPUT = 2**13
MOST_INPUTS = 2**16  # of more, the sum of 128 x 127 might leave 31 bits
_PARTS = 128  # a value is this times its upper part, and its lower part
_ZERO_POINT = 64  # of fbgemm's input, which has no sign
_SCALE_BYTES = 12  # what a packed weight keeps of a row: scale, zero point and sum, 4 bytes each
_FLOATS_AT_ONCE = 2**20  # of a weight that is being rounded
_LEAST_SCALE = 1e-30  # of a row of zeros


class Kernel(StrEnum):
    FBGEMM = "fbgemm"
    PLAIN = "plain"


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows rounded to 14 bits."""

    parts: torch.Tensor  # float32 [2T, K] whole numbers of -64 to 64: the upper part of every row, then the lower part of every row
    scales: torch.Tensor  # float32 [T, 1]; with further dimensions the first one is doubled in `parts`


@dataclass(frozen=True, slots=True)
class Weight:
    """A matrix [N, K] in 8 bits, laid out for `kernel`."""

    packed: Any  # fbgemm's object, or int8 [N, K]
    scales: torch.Tensor  # float32 [N]
    kernel: Kernel

    @property
    def num_outputs(self) -> int:
        return self.scales.shape[0]

    def product(self, rows: Rows) -> torch.Tensor:
        """float32 [T, N]."""
        return row_kernels().put_together(self.sums(rows.parts), rows.scales, _PARTS)

    def sums(self, parts: torch.Tensor) -> torch.Tensor:
        """float32 [2T, N] of both parts, scaled as the weight is and not yet as the rows are."""
        if self.kernel is Kernel.FBGEMM:
            return _fbgemm(parts, self.packed)
        values, right = parts.reshape(-1, parts.shape[-1]).to(torch.int8), self.packed.t()
        sums = torch._int_mm(values, right) if len(right) > 1 else values.int() * right.int()  # torch 2.13 is wrong for one input
        return sums.float().mul_(self.scales).view(*parts.shape[:-1], -1)


def weight_bytes(num_outputs: int, num_inputs: int) -> int:
    """Bytes of a matrix in 8 bits with its scales."""
    return num_outputs * (num_inputs + _SCALE_BYTES)


def round_rows(rows: torch.Tensor) -> Rows:
    """float32 [T, K] to 14 bits."""
    return Rows(*row_kernels().round_rows(rows, LARGEST_INPUT, _PARTS, _LEAST_SCALE))


def whole_product(left: torch.Tensor, right: torch.Tensor) -> Callable[[], torch.Tensor]:
    """What multiplies int8 [T, K] by int8 [K, N] to float32 [T, N], to be called once or more; the layout is made before."""
    rows = Rows(in_parts(left.float(), _PARTS), torch.ones(len(left), 1))
    return partial(_packed(right.t(), torch.ones(right.shape[1]), best_kernel()).product, rows)


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


def side_by_side(weights: Sequence[Weight]) -> Weight:
    """Matrices of the same K and kernel as one, [N of the first + N of the second + .., K]. Their outputs have the same bits."""
    values = torch.cat([_unpacked(weight) for weight in weights])
    return _packed(values, torch.cat([weight.scales for weight in weights]), weights[0].kernel)


@cache
def best_kernel() -> Kernel:
    """fbgemm where its sums are right on this machine."""
    has_fbgemm = "fbgemm" in torch.backends.quantized.supported_engines
    return Kernel.FBGEMM if has_fbgemm and _is_exact(Kernel.FBGEMM) else Kernel.PLAIN


def _is_exact(kernel: Kernel) -> bool:
    """Whether a product with the largest sums that can be comes out right; all of them are below 2^24, so float32 holds them."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(-LARGEST, LARGEST + 1, (64, 256), dtype=torch.int8, generator=generator)
    values[::2] = values[::2].sign() * LARGEST
    most = _PARTS // 2
    parts = torch.randint(-most, most + 1, (40, 256), generator=generator).float()
    parts = torch.cat((parts, torch.full((8, 256), float(most)), torch.full((8, 256), float(-most))))
    try:
        found = _packed(values, torch.ones(64), kernel).sums(parts)
    except RuntimeError:
        return False
    return torch.equal(found.double(), parts.double() @ values.double().t())


def _packed(values: torch.Tensor, scales: torch.Tensor, kernel: Kernel) -> Weight:
    if kernel is Kernel.PLAIN:
        return Weight(values, scales, kernel)
    zeros = torch.zeros(len(scales), dtype=torch.int64)
    with _fbgemm_engine(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that quantised tensors will go; until then nothing else packs
        quantised = torch._make_per_channel_quantized_tensor(values, scales.double(), zeros, 0)
        return Weight(torch.ops.quantized.linear_prepack(quantised, None), scales, kernel)


def _unpacked(weight: Weight) -> torch.Tensor:
    """int8 [N, K]."""
    if weight.kernel is Kernel.PLAIN:
        values: torch.Tensor = weight.packed
    else:
        with _fbgemm_engine():
            values = torch.ops.quantized.linear_unpack(weight.packed)[0].int_repr()
    return values


def _fbgemm(values: torch.Tensor, packed: Any) -> torch.Tensor:
    """Whole numbers [T, K] times the packed weight and its scales, [T, N]."""
    product: torch.Tensor = _fbgemm_operation()(values, 1.0, _ZERO_POINT, packed)
    return product


@cache
def _fbgemm_operation() -> Any:
    """Without what Python does around it: looking through the arguments of every call takes as long as a small product."""
    operation = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32
    return getattr(operation.default, "_op", operation)


@contextmanager
def _fbgemm_engine() -> Iterator[None]:
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = "fbgemm"
    try:
        yield
    finally:
        torch.backends.quantized.engine = before
