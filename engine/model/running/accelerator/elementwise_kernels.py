"""Chains of elementwise operations as one Triton kernel each: norm, residual and norm, gate, rotary positions.

Each rounds where the chain of torch operations rounds, so that in any dtype what changes is the order of one sum at most.

Shapes: T tokens, D hidden size, N size of the gate, H heads, K their size.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl


@triton.jit
def _norm_kernel(  # type: ignore[no-untyped-def]
    hidden, addend, total, weight, out, eps,
    SIZE: tl.constexpr, BLOCK: tl.constexpr, HAS_ADDEND: tl.constexpr, ONE_PLUS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * SIZE
    cell = tl.arange(0, BLOCK)
    inside = cell < SIZE
    dtype = out.dtype.element_ty
    x = tl.load(hidden + row + cell, mask=inside, other=0.0).to(tl.float32)
    if HAS_ADDEND:
        x = (x + tl.load(addend + row + cell, mask=inside, other=0.0).to(tl.float32)).to(dtype)
        tl.store(total + row + cell, x, mask=inside)
        x = x.to(tl.float32)
    scaled = x / tl.sqrt(tl.sum(x * x, 0) / SIZE + eps)
    w = tl.load(weight + cell, mask=inside, other=0.0).to(tl.float32)
    y = scaled * (1.0 + w) if ONE_PLUS else scaled.to(dtype).to(tl.float32) * w
    tl.store(out + row + cell, y.to(dtype), mask=inside)


def rms_norm(hidden: torch.Tensor, weight: torch.Tensor, eps: float, one_plus: bool) -> torch.Tensor:
    """Root-mean-square norm over the last dimension, scaled by `weight`, or by 1 + `weight`. `hidden` is contiguous."""
    out = torch.empty_like(hidden)
    _norm(hidden, hidden, out, weight, out, eps, one_plus, has_addend=False)
    return out


def add_rms_norm(
    hidden: torch.Tensor, addend: torch.Tensor, weight: torch.Tensor, eps: float, one_plus: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """(hidden + addend, the norm of it). All are contiguous and of one shape [.., D]."""
    total, out = torch.empty_like(hidden), torch.empty_like(hidden)
    _norm(hidden, addend, total, weight, out, eps, one_plus, has_addend=True)
    return total, out


def _norm(
    hidden: torch.Tensor, addend: torch.Tensor, total: torch.Tensor, weight: torch.Tensor, out: torch.Tensor,
    eps: float, one_plus: bool, has_addend: bool,
) -> None:  # fmt: skip
    size = hidden.shape[-1]
    block = triton.next_power_of_2(size)
    _norm_kernel[(hidden.numel() // size,)](
        hidden, addend, total, weight, out, eps,
        SIZE=size, BLOCK=block, HAS_ADDEND=has_addend, ONE_PLUS=one_plus, num_warps=min(16, max(1, block // 512)),
    )  # fmt: skip


@triton.jit
def _gate_kernel(both, out, size, first_row, KIND: tl.constexpr, GATE_FIRST: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(1).to(tl.int64)
    cell = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = cell < size
    gate_at = 0 if GATE_FIRST else size
    g = tl.load(both + row * first_row + gate_at + cell, mask=inside, other=0.0)
    u = tl.load(both + row * first_row + (size - gate_at) + cell, mask=inside, other=0.0).to(tl.float32)
    x = g.to(tl.float32)
    if KIND == "silu":
        y = x / (1.0 + tl.exp(-x))
    elif KIND == "gelu":
        y = 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))
    else:  # gelu_tanh
        inner = 0.7978845608028654 * (x + 0.044715 * x * x * x)
        y = x * (1.0 - 1.0 / (tl.exp(2.0 * inner) + 1.0))
    tl.store(out + row * size + cell, (y.to(g.dtype).to(tl.float32) * u).to(g.dtype), mask=inside)


GATES = ("silu", "gelu", "gelu_tanh")


def gated(both: torch.Tensor, kind: str, gate_first: bool) -> torch.Tensor:
    """activation(gate) * up of a joined product [.., 2 N]; `kind` is one of GATES. Returns [.., N], contiguous."""
    size = both.shape[-1] // 2
    out = torch.empty((*both.shape[:-1], size), dtype=both.dtype, device=both.device)
    block = 1024
    _gate_kernel[(triton.cdiv(size, block), both.numel() // both.shape[-1])](
        both, out, size, both.stride(-2), KIND=kind, GATE_FIRST=gate_first, BLOCK=block, num_warps=4
    )
    return out


@triton.jit
def _rotary_kernel(  # type: ignore[no-untyped-def]
    query, key, query_out, key_out, cos, sin,
    query_head, query_token, key_head, key_token, num_query_heads, num_key_heads, num_tokens, cos_token, sin_token,
    SIZE: tl.constexpr, HALF: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    token, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    cell = tl.arange(0, BLOCK)
    inside = cell < SIZE
    other = tl.where(cell < HALF, cell + HALF, cell - HALF)
    c = tl.load(cos + token * cos_token + cell, mask=inside, other=0.0)
    s = tl.load(sin + token * sin_token + cell, mask=inside, other=0.0)
    if head < num_query_heads:
        start = query + head * query_head + token * query_token
        place = query_out + (token * num_query_heads + head) * SIZE
    else:
        start = key + (head - num_query_heads) * key_head + token * key_token
        place = key_out + (token * num_key_heads + head - num_query_heads) * SIZE
    x = tl.load(start + cell, mask=inside, other=0.0)
    y = tl.load(start + other, mask=inside, other=0.0)
    dtype = x.dtype
    turned = tl.where(cell < HALF, -y.to(tl.float32), y.to(tl.float32))
    straight = (x.to(tl.float32) * c.to(tl.float32)).to(dtype).to(tl.float32)
    crossed = (turned * s.to(tl.float32)).to(dtype).to(tl.float32)
    tl.store(place + cell, (straight + crossed).to(dtype), mask=inside)


def rotary(query: torch.Tensor, key: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Query [1, Hq, T, K] and key [1, H, T, K], whose halves are turned against each other by cos and sin [1, T, K]."""
    _, num_query_heads, num_tokens, size = query.shape
    num_key_heads = key.shape[1]
    outs = [torch.empty((1, num_tokens, heads, size), dtype=query.dtype, device=query.device) for heads in (num_query_heads, num_key_heads)]
    _rotary_kernel[(num_tokens, num_query_heads + num_key_heads)](
        query, key, *outs, cos, sin,
        query.stride(1), query.stride(2), key.stride(1), key.stride(2), num_query_heads, num_key_heads, num_tokens,
        cos.stride(1), sin.stride(1), SIZE=size, HALF=size // 2, BLOCK=triton.next_power_of_2(size), num_warps=1,
    )  # fmt: skip
    return outs[0].transpose(1, 2), outs[1].transpose(1, 2)
