"""Which kept keys and values begin like a prompt: chains of block keys, and what was used longest ago. Pure; it holds no tensors.

A chain is what a session's tokens are cut into: one key for each block, made from the block and the key before it (R. C. Merkle 1979).
Equal keys mean equal tokens up to there, so the longest common prefix is found block by block, in a dictionary.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    """`keys` of the blocks that are kept, in order."""

    kept_id: int
    keys: tuple[bytes, ...]


class PrefixIndex:
    """Entries in order of their last use, at most `max_entries` after `evict`; `num_blocks` are kept together.

    No entry is the beginning of another.
    """

    def __init__(self, max_entries: int = 1024) -> None:
        self.max_entries = max_entries
        self._entries: OrderedDict[int, Entry] = OrderedDict()  # the least recently used first
        self._by_key: dict[bytes, dict[int, None]] = {}  # the entries that have this block
        self.num_blocks = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, kept_id: int) -> bool:
        return kept_id in self._entries

    def longest(self, keys: Sequence[bytes]) -> tuple[Entry, int] | None:
        """The entry that begins with most of these blocks, and with how many; None if with none. Of several: the shortest."""
        found: tuple[dict[int, None], int] | None = None
        for number, key in enumerate(keys, 1):
            if (holders := self._by_key.get(key)) is None:
                break
            found = holders, number
        if found is None:
            return None
        entries = [self._entries[kept_id] for kept_id in found[0]]
        return min(entries, key=lambda entry: len(entry.keys)), found[1]

    def num_blocks_of(self, kept_ids: Collection[int]) -> int:
        """How many blocks these entries have together."""
        return sum(len(self._entries[i].keys) for i in {*kept_ids})

    def touch(self, kept_id: int) -> None:
        """It was used just now."""
        self._entries.move_to_end(kept_id)

    def add(self, kept_id: int, keys: tuple[bytes, ...]) -> tuple[bool, list[int]]:
        """Whether it was added, and the entries that went for it: those that are beginnings of it.

        What is the beginning of an entry already is not added; the newest such entry counts as used.
        """
        if not keys:
            return False, []
        if holders := self._by_key.get(keys[-1]):
            self.touch([*holders][-1])
            return False, []
        shorter = [i for key in keys[:-1] for i in self._by_key.get(key, ()) if self._entries[i].keys[-1] == key]
        for one in shorter:
            self.remove(one)
        self._entries[kept_id] = Entry(kept_id, keys)
        self.num_blocks += len(keys)
        for key in keys:
            self._by_key.setdefault(key, {})[kept_id] = None
        return True, shorter

    def remove(self, kept_id: int) -> None:
        """Forget an entry; an unknown id is fine."""
        entry = self._entries.pop(kept_id, None)
        if entry is None:
            return
        self.num_blocks -= len(entry.keys)
        for key in entry.keys:
            holders = self._by_key[key]
            del holders[kept_id]
            if not holders:
                del self._by_key[key]

    def evict(self, most_blocks: int, spared: Collection[int] = ()) -> list[int]:
        """Remove what was used longest ago until at most so many blocks are kept, or nothing but the spared is left; the ids removed."""
        evicted = list[int]()
        while self.is_above(most_blocks):
            kept_id = next((i for i in self._entries if i not in spared), None)
            if kept_id is None:
                break
            self.remove(kept_id)
            evicted.append(kept_id)
        return evicted

    def is_above(self, most_blocks: int) -> bool:
        """Whether more is kept than that, or than `max_entries`."""
        return self.num_blocks > most_blocks or len(self) > self.max_entries

    def clear(self) -> None:
        self._entries.clear()
        self._by_key.clear()
        self.num_blocks = 0

    def check(self) -> None:
        """Raise AssertionError unless the books agree."""
        if self.num_blocks != sum(len(e.keys) for e in self._entries.values()):
            raise AssertionError("the blocks that are kept do not add up")
        holders = {(key, e.kept_id) for e in self._entries.values() for key in e.keys}
        if holders != {(key, kept_id) for key, ids in self._by_key.items() for kept_id in ids}:
            raise AssertionError("the dictionary of block keys and the entries differ")
        if any(len(self._by_key[e.keys[-1]]) > 1 for e in self._entries.values()):
            raise AssertionError("what is kept is the beginning of something else that is kept")
