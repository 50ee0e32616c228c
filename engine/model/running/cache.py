"""The cache object that a stock model writes to during one step; it only routes to the stage's KVStore.

A model may ask a cache how long the text is so far. For a lone row that has an answer, the one of transformers' own
cache; sessions that share a packed row have a length each, so there the answer is a `NoPosition`, with which nothing
can be computed. Everything else that transformers' cache can be asked (other layers' keys, recurrent states) is
refused, so a model that needs it cannot be answered wrongly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from transformers.cache_utils import Cache

from engine.data.errors import NotSupported
from engine.model.running.attention import ProbeArrived, RowKV, tag
from engine.model.running.kv import KVStore, LayerShape


def _no_one_position(*_: Any) -> NoReturn:
    raise NotSupported("the model computes with one text length for a whole step, but each session has its own: run its rows one by one")


class NoPosition:
    """Stands for the text length of a packed row. It may be handed on, as a mask builder does; using it raises NotSupported."""

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __neg__ = _no_one_position
    __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = _no_one_position
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __bool__ = __hash__ = _no_one_position
    __index__ = __int__ = __float__ = __len__ = __iter__ = __str__ = _no_one_position


class StepCache(Cache):
    """Keys and values of one step: `rows` are (session id, number of new tokens) in packed order."""

    # What the cache is, whoever shares the step: it keeps every token of every layer, and nothing is compiled for it.
    is_compileable = False
    is_sliding: Any = ()  # per layer that is
    is_linear: Any = ()
    is_dummy: Any = ()

    def __init__(self, store: KVStore[Any], rows: Sequence[tuple[str, int]]) -> None:
        self._store = store  # Cache.__init__ would make layers that nobody fills
        self._rows = rows
        self._past = store.length(rows[0][0]) if len(rows) == 1 else None
        self._written: set[int] = set()
        self._earlier_blocks_ran = False

    def pass_earlier_blocks(self) -> None:
        """Tell the cache that the blocks of earlier stages count as run: their layers hold the step's tokens elsewhere."""
        self._earlier_blocks_ran = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write keys [1, H, T, K] and values [1, H, T, V]; a lone row gets its whole history back, packed rows a tagged tensor."""
        self._written.add(layer_idx)
        if len(self._rows) == 1:
            keys, values = self._store.write(self._rows[0][0], layer_idx, key_states[0], value_states[0])
            keys, values = keys.unsqueeze(0), values.unsqueeze(0)
            return tag(keys, values, [RowKV(0, key_states.shape[2], keys, values)])
        tagged, start = [], 0
        for session_id, num_new in self._rows:
            stop = start + num_new
            keys, values = self._store.write(session_id, layer_idx, key_states[0, :, start:stop], value_states[0, :, start:stop])
            tagged.append(RowKV(start, stop, keys.unsqueeze(0), values.unsqueeze(0)))
            start = stop
        return tag(key_states, value_states, tagged)

    def get_seq_length(self, layer_idx: int = 0) -> Any:
        """Tokens that the layer holds, with those of this step once it was written; a NoPosition for packed rows."""
        if self._past is None:
            return NoPosition()
        ran = layer_idx in self._written or (self._earlier_blocks_ran and layer_idx < min(self._store.layers, default=layer_idx + 1))
        return self._past + (self._rows[0][1] if ran else 0)

    def get_query_offset(self, layer_idx: int = 0) -> Any:
        return self.get_seq_length(layer_idx)

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[Any, int]:
        length = self.get_seq_length(layer_idx)
        return (length if self._past is None else length + query_length), 0

    def get_max_length(self, layer_idx: int | None = None) -> int:
        return -1

    def __len__(self) -> int:
        return 1 + max(self._store.layers, default=0)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"StepCache({len(self._rows)} rows)"


def _refusal(name: str) -> property:
    def ask(_: StepCache) -> NoReturn:
        raise NotSupported(f"the model asks its cache for {name!r}, which is not keys and values per token: it cannot be split into stages")

    return property(ask)


for _name in dir(Cache):
    if not _name.startswith("_") and _name not in vars(StepCache):
        setattr(StepCache, _name, _refusal(_name))


class ProbeCache(StepCache):
    """Records the shape of the first keys and values that each block gives it.

    A lone row's block is left there. With packed rows it goes on to the attention function, which must get what the
    cache handed out: whatever a model does with it in between is done without knowing whose it is.
    """

    def __init__(self, rows: Sequence[tuple[str, int]]) -> None:
        self._rows = rows
        self._past = 0 if len(rows) == 1 else None
        self._written = set()
        self._earlier_blocks_ran = False
        self.seen: dict[int, LayerShape] = {}

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self._written.add(layer_idx)
        self.seen[layer_idx] = LayerShape(key_states.shape[1], key_states.shape[3], value_states.shape[1], value_states.shape[3])
        if len(self._rows) == 1:
            raise ProbeArrived
        return tag(key_states, value_states, [])

    def __len__(self) -> int:
        return 1
