"""The cache that a stock model writes to in a step over pages: all rows of a layer at once.

Shapes: T packed tokens, Hq query heads, H key heads, K and V sizes.
"""

from __future__ import annotations

from typing import Any

import torch

from engine.data.errors import NotSupported
from engine.model.running.accelerator.attending import PagedAttention
from engine.model.running.accelerator.paged_step import PagedStep
from engine.model.running.attention import MaskRule, StepLayer, tag
from engine.model.running.cache import StepCache
from engine.model.running.paged_kv import PagedKV


def window_of(rule: MaskRule | None) -> int:
    """The sliding window that a mask rule is, 0 for plain causal. Raises NotSupported if it is neither.

    The rule is a function; it is asked at positions around the multiples of its window, about every earlier position.
    """
    if rule is None or rule.is_plain_causal:
        return 0
    window = rule.local_size
    if window is None:
        raise NotSupported("a mask that is not a window")
    queries = torch.tensor(sorted({0, 1, max(0, window - 1), window, window + 1, 2 * window, 2 * window + 1, 3 * window - 1}))[:, None]
    keys = torch.arange(3 * window)[None, :]
    try:
        seen = rule.function(torch.tensor(0), torch.tensor(0), queries, keys)
    except Exception as error:  # a function over tensors of a step, or one that vmap alone can call
        raise NotSupported("a mask that depends on the step") from error
    if not torch.equal(seen.expand(queries.shape[0], keys.shape[1]), (keys <= queries) & (keys > queries - window)):
        raise NotSupported(f"a mask of {window} tokens that is not a window")
    return window


class PagedCache(StepCache):
    """Writes every row's keys and values to its pages at once. `windows` are those of the layers, filled where they are not known."""

    def __init__(self, store: PagedKV, step: PagedStep, attention: PagedAttention, windows: dict[int, int]) -> None:
        self._store = store
        self._past = None  # even of a lone row: what is recorded must not depend on a length
        self._paged, self._step, self._attention, self._windows = store, step, attention, windows

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        layer = PagedLayer(self._paged, self._step, self._attention, self._windows, layer_idx)
        self._attention.write(key_states, value_states, self._paged.pools[layer_idx], self._paged.table, self._step)
        return tag(key_states, value_states, layer)

    def pass_earlier_blocks(self) -> None:
        """Nobody can ask for a length here."""

    def __repr__(self) -> str:
        return f"PagedCache({self._step.num_rows} rows)"


class PagedLayer(StepLayer):
    """See StepLayer."""

    def __init__(self, store: PagedKV, step: PagedStep, attention: PagedAttention, windows: dict[int, int], layer: int) -> None:
        self._store, self._step, self._attention, self._windows, self._layer = store, step, attention, windows, layer

    def __len__(self) -> int:
        return self._step.num_rows

    def attend(
        self, query: torch.Tensor, rule: MaskRule | None, scaling: float, softcap: float | None, sinks: torch.Tensor | None
    ) -> torch.Tensor:
        if (window := self._windows.get(self._layer)) is None:
            window = self._windows[self._layer] = window_of(rule)
        pools = self._store.pools[self._layer]
        return self._attention.attend(query, pools, self._store.table, self._step, scaling, window, softcap, sinks).unsqueeze(0)
