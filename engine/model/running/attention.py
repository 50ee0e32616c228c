"""Attention over packed sessions, registered with transformers, so that stock models run ragged batches.

A step packs the new tokens of all sessions into one row. `StepCache.update` writes each session's keys and values to
its own buffers and hands back tensors tagged with them; the attention function below takes the tag and attends
session by session, or in one call where the store has pages. Where a model does anything else with those tensors, the tag
is lost and the step is refused: a wrong answer is impossible, not merely unlikely. Masks stay functions until a session's
own positions are known.

Shapes: T packed tokens, n new tokens of one session, L its length after the step, Hq query heads, H key heads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch.nn.functional import pad, scaled_dot_product_attention, softmax

from engine.data.errors import NotSupported

IMPLEMENTATION = "noodle_packed"
_TAG = "noodle_rows"


class RowKV(NamedTuple):
    """One session's share of a packed step in one layer."""

    start: int  # its tokens are [start, stop) of the packed row
    stop: int
    keys: torch.Tensor  # [1, H, L, K]
    values: torch.Tensor  # [1, H, L, V]


class StepLayer(ABC):
    """All rows of a packed step in one layer, where one call attends for them together. Its length is their number."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def attend(
        self, query: torch.Tensor, rule: MaskRule | None, scaling: float, softcap: float | None, sinks: torch.Tensor | None
    ) -> torch.Tensor:
        """Queries [1, Hq, T, K] over each session's own keys; returns [1, T, Hq, V]."""


class ProbeArrived(Exception):
    """Raised for keys that no session owns: a probe only asks whether they get here."""


def tag(keys: torch.Tensor, values: torch.Tensor, rows: list[RowKV] | StepLayer) -> tuple[torch.Tensor, torch.Tensor]:
    """Attach the sessions' buffers to the keys and values that a model passes on to its attention function."""
    setattr(keys, _TAG, rows)
    setattr(values, _TAG, rows)
    return keys, values


@dataclass(slots=True)
class MaskRule:
    """Which earlier positions a position sees, as transformers describes it, evaluated per session and once per step."""

    function: Callable[..., Any]  # (batch, head, query position, key position) -> visible
    is_plain_causal: bool
    local_size: int | None  # up to this length the rule is plain causal
    _masks: dict[tuple[int, int], torch.Tensor | None] = field(default_factory=dict)

    def mask(self, num_new: int, length: int, device: torch.device) -> torch.Tensor | None:
        """Visibility [n, L] of keys 0..L-1 for the last n positions; None if they see every earlier position."""
        if self.is_plain_causal or (self.local_size is not None and length <= self.local_size):
            return None
        key = (num_new, length)
        if key not in self._masks:
            queries = torch.arange(length - num_new, length, device=device)[:, None]
            self._masks[key] = self.function(torch.tensor(0), torch.tensor(0), queries, torch.arange(length, device=device)[None, :])
        return self._masks[key]


def register() -> None:
    """Make `IMPLEMENTATION` known to transformers; calling it again changes nothing."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import causal_mask_function

    def mask_rule(*_: Any, mask_function: Callable[..., Any] = causal_mask_function, local_size: int | None = None, **__: Any) -> MaskRule:
        return MaskRule(mask_function, mask_function is causal_mask_function, local_size)

    AttentionInterface.register(IMPLEMENTATION, attend_packed)
    AttentionMaskInterface.register(IMPLEMENTATION, mask_rule)


def attend_packed(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: MaskRule | None,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    position_bias: torch.Tensor | None = None,
    is_causal: bool | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of packed queries [1, Hq, T, K] over each session's own keys; returns [1, T, Hq, V].

    Raises NotSupported where the model uses something that cannot be split by session.
    """
    rows: list[RowKV] | StepLayer | None = getattr(key, _TAG, None)
    is_untouched = rows is not None and getattr(value, _TAG, None) is rows
    if rows is None or not is_untouched or position_bias is not None or not isinstance(attention_mask, MaskRule | None):
        raise NotSupported(f"{type(module).__name__} computes attention in a way that cannot be split by session: run its rows one by one")
    if (getattr(module, "is_causal", True) if is_causal is None else is_causal) is False and query.shape[2] > len(rows):
        raise NotSupported(f"{type(module).__name__} attends to later tokens: only causal models can be split")
    if not rows:
        raise ProbeArrived
    if isinstance(rows, StepLayer):
        return rows.attend(query, attention_mask, query.shape[3] ** -0.5 if scaling is None else scaling, softcap, s_aux), None
    if len(rows) == 1:
        return _attend(query, rows[0], attention_mask, scaling, softcap, s_aux), None
    outputs = [_attend(query[:, :, row.start : row.stop], row, attention_mask, scaling, softcap, s_aux) for row in rows]
    return torch.cat(outputs, dim=1), None


def _attend(
    query: torch.Tensor, row: RowKV, rule: MaskRule | None, scaling: float | None, softcap: float | None, sinks: torch.Tensor | None
) -> torch.Tensor:
    """One session: query [1, Hq, n, K] over keys [1, H, L, K]; returns [1, n, Hq, V]."""
    keys, values = row.keys, row.values
    num_new, length = query.shape[2], keys.shape[2]
    mask = None if rule is None else rule.mask(num_new, length, query.device)
    if softcap is not None or sinks is not None:
        return _attend_by_hand(query, keys, values, mask, scaling, softcap, sinks)
    if num_new == 1:
        return _attend_one(query, keys, values, mask, scaling)
    is_causal = mask is None and num_new == length
    if mask is None and not is_causal:
        mask = _causal(num_new, length, query.device)
    output = scaled_dot_product_attention(
        query, keys, values, attn_mask=mask, scale=scaling, is_causal=is_causal, enable_gqa=query.shape[1] != keys.shape[1]
    )
    return output.transpose(1, 2)


def _attend_one(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor | None, scaling: float | None
) -> torch.Tensor:
    """A decode row. Query heads that share a key head become its rows, so keys are never repeated."""
    num_query_heads, num_key_heads = query.shape[1], keys.shape[1]
    if num_query_heads != num_key_heads:
        query = query.reshape(1, num_key_heads, num_query_heads // num_key_heads, query.shape[3])
    output = scaled_dot_product_attention(query, keys, values, attn_mask=mask, scale=scaling)
    return output.reshape(1, 1, num_query_heads, values.shape[3])


def _attend_by_hand(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float | None,
    softcap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """Attention with capped scores or sink columns, which the fused kernels lack; the order of operations is transformers'."""
    num_groups = query.shape[1] // keys.shape[1]
    scores = query @ keys.repeat_interleave(num_groups, dim=1).transpose(2, 3)  # [1, Hq, n, L]
    scores = scores * (query.shape[3] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    num_new, length = query.shape[2], keys.shape[2]
    if mask is None:
        mask = _causal(num_new, length, query.device)
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    if sinks is not None:
        scores = torch.cat((scores, sinks.reshape(1, -1, 1, 1).expand(1, -1, num_new, 1).to(scores.dtype)), dim=-1)
    weights = softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)[..., :length]
    return (weights @ values.repeat_interleave(num_groups, dim=1)).transpose(1, 2)


def _causal(num_new: int, length: int, device: torch.device) -> torch.Tensor:
    """Plain causal visibility [n, L] of the last n positions."""
    return pad(torch.ones(num_new, num_new, dtype=torch.bool, device=device).tril(), (length - num_new, 0), value=True)
