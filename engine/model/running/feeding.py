"""What a model's forward is given for one step. The probe (`chain`) and the stage ask here, so what was tried is what runs.

Sessions share one row where the model can be told everything about each of them: positions as an argument, keys and
values by a tag (`attention`). Otherwise a step runs its sessions one after another. Which of the two a model allows is
found by trying, in the order of `Feeding`.

Shapes: T new tokens of all rows together.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from engine.model.running.cache import StepCache

Rows = Sequence[tuple[str, Sequence[int]]]


@dataclass(frozen=True, slots=True)
class Arriving:
    """Hidden states [T, D] that somebody else is still computing: `arrive` waits for them and puts them into the tensor that it is given,
    on the stage's device."""

    shape: tuple[int, int]
    dtype: torch.dtype
    arrive: Callable[[torch.Tensor], None]


Hidden = torch.Tensor | Arriving | None  # None on the first stage


def arrived(hidden: Hidden, device: str) -> torch.Tensor | None:
    """The tensor itself; raises what waiting for it raises."""
    if not isinstance(hidden, Arriving):
        return hidden
    here = torch.empty(hidden.shape, dtype=hidden.dtype, device=device)
    hidden.arrive(here)
    return here


class Feeding(StrEnum):
    """How the sessions of a step reach a model, best first."""

    PACKED = "packed"
    PACKED_WITH_MASK = "packed with a mask"  # for models that otherwise build a mask from the number of earlier tokens
    ROW_BY_ROW = "row by row"

    @property
    def is_packed(self) -> bool:
        return self is not Feeding.ROW_BY_ROW


class Feeder:
    """The arguments of one model's forward. `blocks` is the path of its block list."""

    def __init__(self, model: Any, blocks: str, feeding: Feeding) -> None:
        self.feeding = feeding
        self._options = _options(model, blocks)
        self._cache_name = "cache" if "cache" in self._options else "past_key_values"  # transformers renamed it in 5.24

    def arguments(
        self, rows: Rows, lengths: Sequence[int], cache: StepCache, device: str, *, logits_at: torch.Tensor | None = None
    ) -> dict[str, Any]:
        """Arguments for new tokens of `rows`, (session id, token ids), whose sessions have `lengths` tokens already.

        Logits are wanted at the packed positions `logits_at` alone; everywhere if it is None, or if the model cannot be asked for fewer.
        """
        sizes = [len(token_ids) for _, token_ids in rows]
        token_ids = [token_id for _, ids in rows for token_id in ids]
        arguments: dict[str, Any] = {"input_ids": torch.tensor([token_ids], device=device), "use_cache": True}  # ids [1, T]
        arguments[self._cache_name] = cache
        if "position_ids" in self._options:
            positions = [p for length, size in zip(lengths, sizes, strict=True) for p in range(length, length + size)]
            arguments["position_ids"] = torch.tensor([positions], device=device)
        if self.feeding is not Feeding.PACKED:  # no token is padding
            num_seen = sum(sizes) + (lengths[0] if len(rows) == 1 else 0)
            arguments["attention_mask"] = torch.ones(1, num_seen, dtype=torch.long, device=device)
        if logits_at is not None and "logits_to_keep" in self._options:
            arguments["logits_to_keep"] = logits_at
        return arguments

    def packed_arguments(
        self, token_ids: torch.Tensor, positions: torch.Tensor, cache: StepCache, last: torch.Tensor | None
    ) -> dict[str, Any]:
        """The same for packed rows whose numbers are tensors already, [T] each; `last` [R]: logits are wanted of these alone."""
        arguments: dict[str, Any] = {"input_ids": token_ids.unsqueeze(0), "use_cache": True, self._cache_name: cache}
        if "position_ids" in self._options:
            arguments["position_ids"] = positions.unsqueeze(0)
        if last is not None and "logits_to_keep" in self._options:
            arguments["logits_to_keep"] = last
        return arguments


def last_positions(sizes: Sequence[int], num_logits: Sequence[int]) -> list[int] | None:
    """Packed positions of each row's last `num_logits` tokens, [sum(num_logits)]; None if those are all there are."""
    if sizes == num_logits:
        return None
    positions, stop = list[int](), 0
    for size, wanted in zip(sizes, num_logits, strict=True):
        stop += size
        positions += range(stop - wanted, stop)
    return positions


def _options(model: Any, blocks: str) -> frozenset[str]:
    """Arguments that the model's forward understands, itself or by passing them on to its decoder."""
    own = inspect.signature(model.forward).parameters
    decoder = model.get_submodule(blocks.rpartition(".")[0])
    inner = inspect.signature(decoder.forward).parameters if "kwargs" in own else {}
    return frozenset(own) | (frozenset(inner) & {"position_ids"})
