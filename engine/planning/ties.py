"""Which items share one tensor. Pure data."""

from __future__ import annotations

from engine.data.errors import InvalidInput
from engine.data.model import Item


def tie_groups(items: tuple[Item, ...]) -> tuple[tuple[tuple[int, ...], float], ...]:
    """Items that share one tensor, with its bytes; a tie may be written at one end or at both."""
    root = list(range(len(items)))

    def find(i: int) -> int:
        while root[i] != i:
            i = root[i]
        return i

    for i, item in enumerate(items):
        if item.tied_to is not None:
            if not 0 <= item.tied_to < len(items) or item.tied_to == i:
                raise InvalidInput(f"item {item.name} is tied to item {item.tied_to}: name another item, 0 to {len(items) - 1}")
            root[max(find(i), find(item.tied_to))] = min(find(i), find(item.tied_to))
    groups: dict[int, list[int]] = {}
    for i in range(len(items)):
        groups.setdefault(find(i), []).append(i)
    tied = [tuple(members) for members in groups.values() if len(members) > 1]
    return tuple((members, min(max(items[i].tied_bytes for i in members), *(items[i].weight_bytes for i in members))) for members in tied)
