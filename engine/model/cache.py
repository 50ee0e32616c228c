"""The cache object that a stock model writes to during one step; it only routes to the stage's KVStore.

Anything else a model might ask of a cache (recurrent states, other layers' keys) raises NotSupported, so a family that
needs it cannot be answered wrongly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from transformers.cache_utils import Cache

from engine.data.errors import NotSupported
from engine.model.attention import RowKV, tag
from engine.model.kv import KVStore, LayerShape


class StepCache(Cache):
    """Keys and values of one step: `rows` are (session id, number of new tokens) in packed order."""

    is_compileable = False

    def __init__(self, store: KVStore, rows: Sequence[tuple[str, int]]) -> None:
        super().__init__(layers=[])
        self._store = store
        self._rows = rows
        # A model asks for the past length only to place a lone row; packed rows get explicit positions.
        self._past = store.length(rows[0][0]) if len(rows) == 1 else 0

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write keys [1, H, T, K] and values [1, H, T, V]; a lone row gets its whole history back, packed rows a tagged tensor."""
        if len(self._rows) == 1:
            keys, values = self._store.write(self._rows[0][0], layer_idx, key_states[0], value_states[0])
            keys, values = keys.unsqueeze(0), values.unsqueeze(0)
            return tag(keys, [RowKV(0, key_states.shape[2], keys, values)]), values
        tagged, start = [], 0
        for session_id, num_new in self._rows:
            stop = start + num_new
            keys, values = self._store.write(session_id, layer_idx, key_states[0, :, start:stop], value_states[0, :, start:stop])
            tagged.append(RowKV(start, stop, keys.unsqueeze(0), values.unsqueeze(0)))
            start = stop
        return tag(key_states, tagged), value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self._past

    def get_query_offset(self, layer_idx: int = 0) -> int:
        return self._past

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        return self._past + query_length, 0

    def get_max_length(self, layer_idx: int | None = None) -> int:
        return -1

    def __len__(self) -> int:
        return 1 + max(self._store.layers, default=0)

    def __bool__(self) -> bool:
        return True

    def has_previous_state(self, layer_idx: int | None = None, state_idx: int | None = None) -> NoReturn:
        refuse_state()

    def update_conv_state(self, *args: Any, **kwargs: Any) -> NoReturn:
        refuse_state()

    def update_recurrent_state(self, *args: Any, **kwargs: Any) -> NoReturn:
        refuse_state()

    def update_indexer(self, *args: Any, **kwargs: Any) -> NoReturn:
        refuse_state()


class ShapeSeen(Exception):
    """Raised by ProbeCache to leave a block as soon as its keys and values are known."""


class ProbeCache(StepCache):
    """Records the shape of the first keys and values it is given, and stops the block there."""

    def __init__(self) -> None:
        Cache.__init__(self, layers=[])
        self._past = 0
        self.seen: dict[int, LayerShape] = {}

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.seen[layer_idx] = LayerShape(key_states.shape[1], key_states.shape[3], value_states.shape[1], value_states.shape[3])
        raise ShapeSeen

    def __len__(self) -> int:
        return 1


def refuse_state() -> NoReturn:
    """Raise NotSupported for a cache operation that is not plain keys and values."""
    raise NotSupported("the model keeps a state that is not keys and values per token (recurrent, convolution or indexer state)")
