"""The dtype of a cluster that was told `auto`: chosen once, from what the workers say of themselves, before the first is measured. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.data.model import ModelCard
from engine.data.plan import NodeSpec
from engine.data.precision import automatic_dtype


@dataclass(frozen=True, slots=True)
class Chosen:
    card: ModelCard
    why: str


def chosen(cards: Sequence[ModelCard], specs: Sequence[NodeSpec]) -> Chosen:
    """One of a model's cards, which differ in their dtype alone, for these workers."""
    by_dtype = {card.ref.dtype: card for card in cards}
    dtype, why = automatic_dtype(
        cards[0].stored_dtype,
        {spec.device_type for spec in specs},
        lambda dtype: dtype in by_dtype and all(dtype in spec.dtypes for spec in specs),
        lambda dtype: dtype in by_dtype and fits(by_dtype[dtype], specs),
    )
    return Chosen(by_dtype[dtype], why)


def fits(card: ModelCard, specs: Sequence[NodeSpec]) -> bool:
    """Whether the workers hold the items in a row if the roomiest begins. What several share is counted once."""
    shared_bytes = {spec.pool_id: max(s.pool_bytes for s in specs if s.pool_id == spec.pool_id) for spec in specs if spec.pool_id}
    for spec in specs:
        if spec.pool_id in shared_bytes:
            shared_bytes[spec.pool_id] -= spec.kv_budget_bytes
    item = 0
    for spec in sorted(specs, key=lambda s: s.memory_bytes - s.kv_budget_bytes, reverse=True):
        start, room_bytes = item, spec.memory_bytes - spec.kv_budget_bytes
        while item < card.num_items:
            needed_bytes = _added_bytes(card, start, item)
            if needed_bytes > min(room_bytes, shared_bytes.get(spec.pool_id, room_bytes)):
                break
            room_bytes -= needed_bytes
            if spec.pool_id in shared_bytes:
                shared_bytes[spec.pool_id] -= needed_bytes
            item += 1
    return item == card.num_items


def _added_bytes(card: ModelCard, start: int, item: int) -> int:
    """What a stage that began at `start` takes more with that item; a tied table lies in it once."""
    added = card.items[item]
    is_here = added.tied_to is not None and start <= added.tied_to < item
    return added.weight_bytes - (added.tied_bytes if is_here else 0)
