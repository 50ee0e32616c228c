"""From the documents that other commands write to what a scenario needs."""

from __future__ import annotations

from engine.data.model import Item
from engine.profile.profile import Profile


def items_of(profile: Profile) -> tuple[Item, ...]:
    """The chain that was profiled."""
    return tuple(
        Item(item.name, item.weight_bytes, item.kv_bytes_per_token, item.output_bytes_per_token, item.tied_to, item.tied_bytes)
        for item in profile.items
    )
