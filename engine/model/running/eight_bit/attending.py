"""Attention whose bits for a token depend on that token's session and position alone.

Float sums differ in their last bits with the shape of a call, and rounding to 8 bits behind them makes large differences of
these. So each token is computed as if it were alone, over its history padded to whole blocks: the same call whether it comes as
one of a long prompt, as a decode row, or again after a loss. The tokens of a prompt that end in the same block share one
call of torch's kernel, which takes them as a batch and treats each member alike.

Shapes: T packed tokens, n tokens of a group, Hq query heads, H key heads, R rows of a key head, K and V sizes, L padded length.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch.nn.functional import pad, scaled_dot_product_attention, softmax

from engine.model.running.attention import MaskRule, StepLayer, tag
from engine.model.running.cache import StepCache
from engine.model.running.contiguous_kv import ContiguousKV
from engine.model.running.eight_bit import BLOCK_TOKENS
from engine.model.running.eight_bit.elementwise import in_pieces


class _History(NamedTuple):
    """One session's share of a step in one layer."""

    start: int  # its tokens are [start, stop) of the packed row
    stop: int
    length: int  # tokens of the session after the step
    keys: torch.Tensor  # [H, L, K], whole blocks
    values: torch.Tensor  # [H, L, V]


class ExactCache(StepCache):
    """Hands a model's attention the sessions' padded buffers. The store has blocks of `BLOCK_TOKENS`."""

    def __init__(self, store: Any, rows: Sequence[tuple[str, int]]) -> None:
        super().__init__(store, rows)
        self._store: ContiguousKV
        self._masks: dict[tuple[Any, int, int], torch.Tensor] = {}

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self._written.add(layer_idx)
        self._store.append(self._rows, layer_idx, key_states[0], value_states[0])
        histories, start = [], 0
        for session_id, num_new in self._rows:
            stop = start + num_new
            length = self._store.length(session_id) + num_new
            histories.append(_History(start, stop, length, *self._store.padded(session_id, layer_idx, length)))
            start = stop
        return tag(key_states, value_states, _ExactLayer(histories, self._masks))


class _ExactLayer(StepLayer):
    """See StepLayer."""

    def __init__(self, histories: list[_History], masks: dict[tuple[Any, int, int], torch.Tensor]) -> None:
        self._histories, self._masks = histories, masks

    def __len__(self) -> int:
        return len(self._histories)

    def attend(
        self, query: torch.Tensor, rule: MaskRule | None, scaling: float, softcap: float | None, sinks: torch.Tensor | None
    ) -> torch.Tensor:
        queries = query[0].transpose(0, 1)  # [T, Hq, K]
        is_fused, outputs = softcap is None and sinks is None, []
        num_heads, value_size = self._histories[0].keys.shape[0], self._histories[0].values.shape[2]
        grouped = _grouped(queries, num_heads, value_size) if is_fused else queries.contiguous()
        for history in self._histories:
            first, packed = history.length - (history.stop - history.start), history.start
            while first < history.length:
                num_visible = _whole_blocks(first + 1)
                after = min(history.length, num_visible)
                group, mask = grouped[packed : packed + after - first], self._mask(rule, first, after)
                keys, values = history.keys, history.values
                if num_visible < keys.shape[1]:
                    keys, values = keys[:, :num_visible], values[:, :num_visible]
                if is_fused:
                    outputs.append(_attend(group, keys, values, mask, scaling))
                else:
                    outputs += [_by_hand(q, keys, values, m, scaling, softcap, sinks) for q, m in zip(group, mask, strict=True)]
                first, packed = after, packed + after - first
        output = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
        if is_fused:
            output = output[:, :, : queries.shape[1] // num_heads].reshape(*queries.shape[:2], value_size)
        return output.unsqueeze(0)

    def _mask(self, rule: MaskRule | None, first: int, after: int) -> torch.Tensor:
        """What positions [first, after) see of their padded history: 0 or -inf, [n, 1, 1, L]. All layers of a step share it."""
        key = (None if rule is None else id(rule), first, after)
        if key not in self._masks:
            visible = None if rule is None else rule.mask(after - first, after, torch.device("cpu"))
            if visible is None:
                visible = torch.arange(after) <= torch.arange(first, after)[:, None]
            hidden = pad(~visible, (0, _whole_blocks(after) - after), value=True)
            self._masks[key] = torch.zeros(hidden.shape).masked_fill_(hidden, -torch.inf)[:, None, None]
        return self._masks[key]


def _whole_blocks(num_tokens: int) -> int:
    return -(-num_tokens // BLOCK_TOKENS) * BLOCK_TOKENS


def _grouped(queries: torch.Tensor, num_heads: int, value_size: int) -> torch.Tensor:
    """[T, Hq, K] as [T, H, R, K]: query heads of one key head are rows of one product, and some rows of zeros."""
    num_tokens, num_query_heads, size = queries.shape
    grouped = queries.reshape(num_tokens, num_heads, num_query_heads // num_heads, size)
    num_shared = grouped.shape[2]
    num_added = _aligned(num_shared, value_size) - num_shared
    return torch.cat((grouped, grouped.new_zeros(num_tokens, num_heads, num_added, size)), 2) if num_added else grouped.contiguous()


def _attend(grouped: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, scaling: float) -> torch.Tensor:
    """Queries [n, H, R, K] over keys [H, L, K]; returns [n, H, R, V]."""
    size = (len(grouped), -1, -1, -1)
    return scaled_dot_product_attention(grouped, keys.expand(size), values.expand(size), attn_mask=mask, scale=scaling)


@cache
def _aligned(num_rows: int, value_size: int) -> int:
    """So many rows that the scratch memory of each of the kernel's threads begins at a multiple of 64 bytes.

    The kernel lays the scratch of its threads end to end, rows x (L + 2 + V) floats each, and its products have other last bits where
    that does not begin at such an address: which thread takes a head would show.
    """
    return next(rows for rows in range(num_rows, num_rows + 16) if rows * (2 + value_size) % 16 == 0)


def _by_hand(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor,
    scaling: float,
    softcap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """One query [Hq, K] with capped scores or sink columns, which the fused kernel lacks; the order of operations is transformers'."""
    num_key_heads, length = keys.shape[:2]
    scores = (query.view(num_key_heads, -1, query.shape[1]) @ keys.transpose(1, 2)) * scaling  # [H, Hq / H, L]
    if softcap is not None:
        scores = in_pieces(torch.tanh, scores / softcap) * softcap
    scores = scores + mask[0]
    if sinks is not None:
        scores = torch.cat((scores, sinks.view(num_key_heads, -1, 1).to(scores.dtype)), dim=-1)
    weights = softmax(scores, dim=-1)[..., :length].contiguous()
    return (weights @ values).reshape(1, query.shape[0], -1)
