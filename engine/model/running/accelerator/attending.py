"""Which kernels attend over pages on a device: found by running them, compared with torch's own attention.

Shapes: T packed tokens, Hq query heads, H key heads, K and V sizes; pools as in `paged_kv`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from engine.data.errors import NoodleError
from engine.model.running.accelerator.paged_step import PagedStep
from engine.model.running.kv import LayerShape
from engine.model.running.paged_kv import PAGE_TOKENS, PagedKV

Pools = tuple[torch.Tensor, torch.Tensor]
_WANTED_PROGRAMS = 512  # of one call: a few for each multiprocessor of a large card
_MOST_SPLITS = 32
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 3e-3}  # norm of the difference over the norm


class PagedAttention(ABC):
    """One call of `write` and one of `attend` for all rows of a step in a layer."""

    name: str
    tile_tokens: int  # the most prompt tokens of one tile of a step

    @abstractmethod
    def write(self, keys: torch.Tensor, values: torch.Tensor, pools: Pools, table: torch.Tensor, step: PagedStep) -> None:
        """Put new keys [1, H, T, K] and values [1, H, T, V] into the pages."""

    @abstractmethod
    def attend(
        self, query: torch.Tensor, pools: Pools, table: torch.Tensor, step: PagedStep,
        scale: float, window: int, softcap: float | None, sinks: torch.Tensor | None,
    ) -> torch.Tensor:  # fmt: skip
        """Queries [1, Hq, T, K] over what the pages hold; returns [T, Hq, V]. `window` 0 sees every earlier token."""


class TritonAttention(PagedAttention):
    """This engine's own kernels; see `attention_kernels`."""

    name = "Triton kernels over pages"

    def __init__(self, dtype: torch.dtype) -> None:
        from engine.model.running.accelerator import attention_kernels

        self._kernels = attention_kernels
        self.tile_tokens = 32 if dtype == torch.float32 else 128

    def write(self, keys: torch.Tensor, values: torch.Tensor, pools: Pools, table: torch.Tensor, step: PagedStep) -> None:
        keys, values = (part if part.stride(3) == 1 else part.contiguous() for part in (keys, values))
        self._kernels.store(keys, values, pools, table, step.rows, step.positions)

    def attend(
        self, query: torch.Tensor, pools: Pools, table: torch.Tensor, step: PagedStep,
        scale: float, window: int, softcap: float | None, sinks: torch.Tensor | None,
    ) -> torch.Tensor:  # fmt: skip
        query = query if query.stride(3) == 1 else query.contiguous()
        out = torch.empty((query.shape[2], query.shape[1], pools[1].shape[3]), dtype=query.dtype, device=query.device)
        num_lone = query.shape[2] if step.last is None else 0 if step.lone is None else step.lone.shape[0]
        if num_lone:
            self._kernels.decode(
                query, out, pools, table, step.rows, step.positions, step.lone,
                num_splits=num_splits(num_lone * pools[0].shape[2]), scale=scale, window=window, softcap=softcap, sinks=sinks,
            )  # fmt: skip
        if step.tiles is not None and len(step.tiles):
            self._kernels.chunks(
                query, out, pools, table, step.rows, step.positions, step.tiles,
                tile_tokens=self.tile_tokens, scale=scale, window=window, softcap=softcap, sinks=sinks,
            )  # fmt: skip
        return out


def num_splits(num_programs: int) -> int:
    """Into how many parts a text is split so that the card is busy: a power of two."""
    splits = 1
    while splits < _MOST_SPLITS and splits * num_programs < _WANTED_PROGRAMS:
        splits *= 2
    return splits


class PlainAttention(PagedAttention):
    """Token by token in plain torch, on any device: what the others are tested against."""

    name = "plain torch"
    tile_tokens = 16

    def write(self, keys: torch.Tensor, values: torch.Tensor, pools: Pools, table: torch.Tensor, step: PagedStep) -> None:
        page_tokens = pools[0].shape[1]
        slots = table[step.rows, step.positions // page_tokens].long() * page_tokens + step.positions % page_tokens
        for pool, new in zip(pools, (keys, values), strict=True):
            pool.view(-1, *pool.shape[2:])[slots] = new[0].transpose(0, 1)

    def attend(
        self, query: torch.Tensor, pools: Pools, table: torch.Tensor, step: PagedStep,
        scale: float, window: int, softcap: float | None, sinks: torch.Tensor | None,
    ) -> torch.Tensor:  # fmt: skip
        num_groups = query.shape[1] // pools[0].shape[2]
        outs = []
        for token, (row, position) in enumerate(zip(step.rows.tolist(), step.positions.tolist(), strict=True)):
            first = max(0, position + 1 - window) if window else 0
            pages = table[row, : position // pools[0].shape[1] + 1].long()
            keys, values = (
                pool[pages].flatten(0, 1)[first : position + 1].transpose(0, 1).repeat_interleave(num_groups, 0).float() for pool in pools
            )
            scores = query[0, :, token, None].float() @ keys.mT * scale  # [Hq, 1, L]
            if softcap is not None:
                scores = torch.tanh(scores / softcap) * softcap
            if sinks is not None:
                scores = torch.cat((scores, sinks.float()[:, None, None]), -1)
            outs.append((scores.softmax(-1)[..., : values.shape[1]] @ values).squeeze(1))
        return torch.stack(outs).to(query.dtype)


class VarlenAttention(TritonAttention):
    """torch's own varlen attention with a block table (torch 2.13 and later), for layers without caps and sinks; the others and
    the writing are left to the Triton kernels."""

    name = "torch varlen attention with a block table"

    def __init__(self, dtype: torch.dtype) -> None:
        from torch.nn.attention.varlen import varlen_attn

        super().__init__(dtype)
        self._varlen = varlen_attn

    def attend(
        self, query: torch.Tensor, pools: Pools, table: torch.Tensor, step: PagedStep,
        scale: float, window: int, softcap: float | None, sinks: torch.Tensor | None,
    ) -> torch.Tensor:  # fmt: skip
        if softcap is not None or sinks is not None or step.last is not None:
            return super().attend(query, pools, table, step, scale, window, softcap, sinks)
        starts = torch.arange(step.num_rows + 1, dtype=torch.int32, device=query.device)
        out: Any = self._varlen(
            query[0].transpose(0, 1).contiguous(), *pools, starts, None, 1, table.shape[1] * pools[0].shape[1], scale=scale,
            window_size=(window - 1 if window else -1, 0), enable_gqa=True, seqused_k=(step.positions + 1).int(),
            block_table=table.index_select(0, step.rows),
        )  # fmt: skip
        attended: torch.Tensor = out
        return attended


@dataclass(frozen=True, slots=True)
class Probed:
    """What a device attends with. `attention` is None where nothing works; `text` is a sentence."""

    attention: PagedAttention | None
    text: str


@cache
def probed(device: str, dtype: torch.dtype) -> Probed:
    """The fastest kernels that run here and equal torch's own attention; never raises for what is lacking."""
    failures: list[str] = []
    if not device.startswith("cuda"):
        return Probed(None, f"{device}: sessions attend one by one")
    for kind in (TritonAttention, VarlenAttention):
        try:
            attention = kind(dtype)
            error = difference(attention, device, dtype)
        except NoodleError as e:
            failures.append(f"{kind.name}: {e}")
        except Exception as e:  # no Triton, no compiler, a card without the instructions: each says so in its own way
            failures.append(f"{kind.name}: {type(e).__name__}: {(str(e).strip().splitlines() or [''])[0][:160]}")
        else:
            if error <= TOLERANCE[dtype]:
                return Probed(attention, f"{attention.name}; differs from torch's attention by {error:.1e}")
            failures.append(f"{attention.name}: differs from torch's attention by {error:.1e}, at most {TOLERANCE[dtype]:.1e} is right")
    return Probed(None, f"sessions attend one by one, because nothing else works: {'; '.join(failures)}")


@torch.inference_mode()
def difference(attention: PagedAttention, device: str, dtype: torch.dtype) -> float:
    """Largest relative difference to `scaled_dot_product_attention`: decode rows and a prompt chunk in one step, grouped heads."""
    generator = torch.Generator().manual_seed(1)
    past, sizes, heads, size = (3, 200, 70), (1, 1, 40), 2, 64
    shape = LayerShape(heads, size, heads, size)
    kv = PagedKV({0: shape}, 8 * PAGE_TOKENS * shape.num_elements * 4 * 4, dtype=dtype, device=device, longest_tokens=256)
    query, keys, values = (torch.randn(1, n, sum(sizes), size, generator=generator).to(device, dtype) for n in (4 * heads, heads, heads))
    rows: list[int] = []
    positions: list[int] = []
    wanted, start = [], 0
    for name, (length, new) in enumerate(zip(past, sizes, strict=True)):
        kv.open(str(name), 256)
        old = [torch.randn(heads, length, size, generator=generator).to(device, dtype) for _ in range(2)]
        kv.import_block(str(name), 0, 0, *old)
        k, v = (torch.cat((o, n[0, :, start : start + new]), 1) for o, n in zip(old, (keys, values), strict=True))
        mask = torch.ones(new, length + new, dtype=torch.bool, device=device).tril(length)
        wanted.append(scaled_dot_product_attention(query[:, :, start : start + new], k[None], v[None], attn_mask=mask, enable_gqa=True)[0])
        rows += [kv.rows([str(name)])[0]] * new
        positions += range(length, length + new)
        start += new
    expected = torch.cat(wanted, 1).transpose(0, 1).float()
    step = PagedStep.of(([0] * start, positions, rows), sizes, attention.tile_tokens, device)
    attention.write(keys, values, kv.pools[0], kv.table, step)
    found = attention.attend(query, kv.pools[0], kv.table, step, size**-0.5, 0, None, None).float()
    return float((found - expected).norm() / expected.norm())
