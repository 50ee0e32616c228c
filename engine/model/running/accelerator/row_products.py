"""The product of one row with a matrix, as a Triton kernel that does nothing but read the matrix once.

A step of one session is such products and little else. A library made for large products reads 16-bit matrices of 8 to 235 MB at 55
to 95 % of what the memory allows (H200); a program for each output, or two, reads them at 80 to 100 %.

Shapes: K inputs, N outputs.
"""

from __future__ import annotations

from functools import cache, partial

import torch
import triton
import triton.language as tl
from torch import nn
from torch.nn.functional import linear

_TOLERANCE = 8e-3  # norm of the difference over the norm: the rounding of bfloat16
_BLOCK = 2048


@triton.jit
def _row_kernel(  # type: ignore[no-untyped-def]
    row, weight, bias, out, num_outputs,
    SIZE: tl.constexpr, OUTPUTS: tl.constexpr, BLOCK: tl.constexpr, HAS_BIAS: tl.constexpr,
):  # fmt: skip
    output = tl.program_id(0) * OUTPUTS + tl.arange(0, OUTPUTS)
    inside = output < num_outputs
    cell = tl.arange(0, BLOCK)
    sums = tl.zeros([OUTPUTS, BLOCK], tl.float32)
    for start in range(0, SIZE, BLOCK):
        within = start + cell < SIZE
        x = tl.load(row + start + cell, mask=within, other=0.0).to(tl.float32)
        place = weight + output[:, None].to(tl.int64) * SIZE + start + cell[None, :]
        w = tl.load(place, mask=inside[:, None] & within[None, :], other=0.0, eviction_policy="evict_first").to(tl.float32)
        sums += w * x[None, :]
    total = tl.sum(sums, 1)
    if HAS_BIAS:
        total += tl.load(bias + output, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + output, total.to(out.dtype.element_ty), mask=inside)


def product(weight: torch.Tensor, bias: torch.Tensor | None, hidden: torch.Tensor) -> torch.Tensor:
    """As `linear(hidden, weight, bias)`, hidden [.., K], weight [N, K]; one row of 16 bit takes the kernel."""
    if hidden.numel() != weight.shape[1] or not suits(weight) or not is_right(str(weight.device), weight.dtype):
        return linear(hidden, weight, bias)
    return _row(weight, bias, hidden)


def suits(weight: torch.Tensor) -> bool:
    """Whether a weight is of a kind that the kernel is for."""
    return weight.is_cuda and weight.dtype in (torch.bfloat16, torch.float16) and weight.is_contiguous()


def _row(weight: torch.Tensor, bias: torch.Tensor | None, hidden: torch.Tensor) -> torch.Tensor:
    num_outputs, size = weight.shape
    out = torch.empty((*hidden.shape[:-1], num_outputs), dtype=hidden.dtype, device=hidden.device)
    outputs = 1 if size <= 8192 else 2
    _row_kernel[(triton.cdiv(num_outputs, outputs),)](
        hidden.contiguous(), weight, weight if bias is None else bias, out, num_outputs,
        SIZE=size, OUTPUTS=outputs, BLOCK=min(_BLOCK, triton.next_power_of_2(size)), HAS_BIAS=bias is not None, num_warps=4, num_stages=3,
    )  # fmt: skip
    return out


@cache
def is_right(device: str, dtype: torch.dtype) -> bool:
    """Whether the kernel runs on the device and equals torch's product."""
    try:
        return all(_difference(device, dtype, size) <= _TOLERANCE for size in (96, 5000, 9000))
    except Exception:  # no compiler, a card without the instructions: each says so in its own way
        return False


def _difference(device: str, dtype: torch.dtype, size: int) -> float:
    generator = torch.Generator().manual_seed(1)
    weight, bias, hidden = (torch.randn(shape, generator=generator).to(device, dtype) for shape in ((33, size), (33,), (1, 1, size)))
    found, expected = _row(weight, bias, hidden).float(), linear(hidden, weight, bias).float()
    return float((found - expected).norm() / expected.norm())


def install(model: nn.Module) -> int:
    """Have the filled plain linear layers of a model use `product`; returns how many."""
    layers = [m for m in model.modules() if type(m) is nn.Linear and suits(m.weight) and "forward" not in m.__dict__]
    for layer in layers:
        layer.forward = partial(product, layer.weight, layer.bias)  # type: ignore[method-assign]
    return len(layers)
