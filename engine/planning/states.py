"""Sets of used nodes as numbers: count vectors over classes in mixed radix (bit masks when all nodes differ).

Taking one more node of class c adds strides[c]. A Space is all such sets or a part of them, in layers of equally many
nodes; it finds how far each set can reach, in Python where there are few sets, else a layer at a time in numpy.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

SMALL = 500  # transitions; beyond, arrays pay
MAX_STATES = 300_000


class Space:
    """A set of states, closed under nothing: a state whose predecessor is missing starts from the beginning instead.

    That is sound, as every set of nodes can at least stand at the beginning, and loses nothing when the missing ones are
    on no chain that is looked for.
    """

    def __init__(self, sizes: tuple[int, ...], states: Any | None = None) -> None:
        self.sizes = sizes
        self.strides, self.total = strides_of(sizes)
        self.live = [c for c, size in enumerate(sizes) if size]
        numbers = np.arange(self.total, dtype=np.int32) if states is None else _distinct(states, self.total)
        digits = [numbers // self.strides[c] % (sizes[c] + 1) for c in self.live]
        count = sum(digits, np.zeros(len(numbers), dtype=np.int32))
        order = np.argsort(count, kind="stable")
        self.states = numbers[order]
        self.small = len(numbers) * len(self.live) <= SMALL
        self._place(count[order], [digit[order] for digit in digits])

    def _place(self, count: Any, digits: list[Any]) -> None:
        """The index of each state's predecessor by class; beyond the last state where the class is not in use."""
        nowhere = len(self.states)
        self.where = where = np.zeros(self.total, dtype=np.int32)
        where[self.states] = np.arange(nowhere, dtype=np.int32)
        self.before = np.empty((len(self.live), nowhere), dtype=np.int32)
        for row, c, digit in zip(self.before, self.live, digits, strict=True):
            row[:] = np.where(digit > 0, where[np.where(digit > 0, self.states - self.strides[c], 0)], nowhere)
        if self.small:
            self.rows = [[(c, i) for c, i in zip(self.live, column, strict=True) if i < nowhere] for column in self.before.T.tolist()]
        else:
            self.bounds = np.searchsorted(count, np.arange(sum(self.sizes) + 2)).tolist()

    def reach_one(self, onward: Callable[[int, int], int], begin: int, goal: int) -> list[int]:
        """[index of state] -> furthest position, up to the first state that reaches `goal`; for small spaces."""
        position = [begin]
        for row in self.rows[1:]:
            best = begin
            for c, i in row:
                there = onward(c, position[i])
                if there > best:
                    best = there
            position.append(best)
            if best >= goal:
                break
        return position

    def reach_all(self, onward: Any, begin: int, goal: int) -> Any:
        """The same for large spaces, a layer at a time; `onward` is [class, position] with a last column of zeros."""
        width = onward.shape[1]
        position = np.empty(len(self.states) + 1, dtype=np.int32)
        position[0], position[-1] = begin, width - 1
        flat, offsets = onward.ravel(), np.array(self.live, dtype=np.int32)[:, None] * width
        for low, high in zip(self.bounds[1:], self.bounds[2:], strict=False):
            if low < high:
                best = flat.take(position.take(self.before[:, low:high]) + offsets).max(axis=0)
                position[low:high] = best
                if best.max() >= goal:
                    return position[:high]
        return position[:-1]


def _distinct(states: Any, total: int) -> Any:
    """The states sorted, once each, the empty one among them."""
    present = np.zeros(total, dtype=bool)
    present[states] = True
    present[0] = True
    return np.flatnonzero(present).astype(np.int32)


def strides_of(sizes: tuple[int, ...]) -> tuple[list[int], int]:
    """Mixed-radix weights, and how many count vectors there are."""
    strides, total = [], 1
    for size in sizes:
        strides.append(total)
        total *= size + 1
    return strides, total


@lru_cache(maxsize=2)
def whole_space(sizes: tuple[int, ...]) -> Space:
    return Space(sizes)
