"""Sets of used nodes as numbers: count vectors over classes in mixed radix (bit masks when all nodes differ).

Taking one more node of class c adds strides[c]. A Space is all such sets or a part of them, in layers of equally many
nodes; it finds how far each set can reach, in Python where there are few sets, else a layer at a time in numpy.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from engine.planning.route import DEFAULT, ThresholdLimits

MANY = 10**9  # stages
LOOK = 4  # layers between looks whether the goal is reached


class Space:
    """A set of states, closed under nothing: a state whose predecessor is missing starts from the beginning instead.

    That is sound, as every set of nodes can at least stand at the beginning, and loses nothing when the missing ones are
    on no chain that is looked for.

    `digits` [row, index] is how many nodes of class live[row] a state uses, `before` [row, index] the index of the state
    without one of them; one beyond the last state where there is none.
    """

    def __init__(self, sizes: tuple[int, ...], digits: Any, before: Any, limits: ThresholdLimits) -> None:
        self.sizes, self.digits, self.before, self.limits = sizes, digits, before, limits
        self.strides, self.total = strides_of(sizes)
        self.live = [c for c, size in enumerate(sizes) if size]
        self.num_states = digits.shape[1]
        self.whole = self.num_states == self.total
        self.small = self.num_states * len(self.live) <= limits.small

    @cached_property
    def states(self) -> Any:
        """The numbers, fewest nodes first."""
        numbers = np.zeros(self.num_states, dtype=np.int32)
        for c, digit in zip(self.live, self.digits, strict=True):
            numbers += np.int32(self.strides[c]) * digit
        return numbers

    @cached_property
    def where(self) -> Any:
        """[number] -> index; 0 where it is not among the states."""
        where = np.zeros(self.total, dtype=np.int32)
        where[self.states] = np.arange(self.num_states, dtype=np.int32)
        return where

    @cached_property
    def rows(self) -> list[list[tuple[int, int]]]:
        """[index] -> (class, index without one of it), for small spaces."""
        columns = zip(*self.before.tolist(), strict=True) if self.live else [()]
        return [[(c, i) for c, i in zip(self.live, column, strict=True) if i < self.num_states] for column in columns]

    @cached_property
    def bounds(self) -> list[int]:
        """Where each layer begins, for large spaces."""
        count = self.digits.sum(axis=0, dtype=np.int16)
        return np.searchsorted(count, np.arange(sum(self.sizes) + 2)).tolist()

    def without(self, c: int) -> Space:
        """The sets of the other nodes when one of class c is spoken for: those before its stage lack it, those behind hold it."""
        sizes = tuple(size - (k == c) for k, size in enumerate(self.sizes))
        row = self.live.index(c)
        if not self.whole:
            strides, _ = strides_of(sizes)
            numbers = np.zeros(self.num_states, dtype=np.int32)
            for k, digit in zip(self.live, self.digits, strict=True):
                numbers += np.int32(strides[k]) * digit
            before, behind = numbers[self.digits[row] <= sizes[c]], numbers[self.digits[row] > 0] - strides[c]
            return part(sizes, np.concatenate([before, behind]), self.limits)
        kept = np.flatnonzero(self.digits[row] <= sizes[c])
        index = np.full(self.num_states + 1, len(kept), dtype=np.int32)
        index[kept] = np.arange(len(kept), dtype=np.int32)
        rows = [k for k in range(len(self.live)) if k != row or sizes[c]]
        digits, before = (np.empty((len(rows), len(kept)), dtype=dtype) for dtype in (np.int16, np.int32))
        for k, digit, fewer in zip(rows, digits, before, strict=True):
            self.digits[k].take(kept, out=digit, mode="wrap")
            index.take(self.before[k].take(kept, mode="wrap"), out=fewer, mode="wrap")
        return Space(sizes, digits, before, self.limits)

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
        position = np.empty(self.num_states + 1, dtype=np.int16)
        position[0], position[-1] = begin, width - 1
        rows = onward.astype(np.int16)
        flat, offsets = rows.ravel(), np.array(self.live, dtype=np.int32)[:, None] * width
        for layer, (low, high) in enumerate(zip(self.bounds[1:], self.bounds[2:], strict=False)):
            if low < high:
                before = self.before[:, low:high]
                if high - low < self.limits.wide:  # every index is valid: `wrap` only spares numpy the check
                    best = np.maximum.reduce(flat.take(position.take(before, mode="wrap") + offsets, mode="wrap"))
                else:
                    best = position[low:high]
                    best[:] = 0
                    for c, row in zip(self.live, before, strict=True):
                        np.maximum(best, rows[c].take(position.take(row, mode="wrap"), mode="wrap"), out=best)
                position[low:high] = best
                if layer % LOOK == 0 and np.maximum.reduce(best) >= goal:
                    return position[:high]
        return position[:-1]


def part(sizes: tuple[int, ...], numbers: Any, limits: ThresholdLimits) -> Space:
    """The space of these states and of the empty one; repeated numbers count once."""
    _, total = strides_of(sizes)
    present = np.zeros(total, dtype=bool)
    present[numbers] = True
    present[0] = True
    return _space(sizes, np.flatnonzero(present).astype(np.int32), limits)


def at_most(space: Space, num_nodes: int) -> Space:
    """Its sets of so many nodes at most: no chain of so many stages needs another."""
    if num_nodes >= sum(space.sizes):
        return space
    few = space.digits.sum(axis=0, dtype=np.int32) <= num_nodes
    return space if few.all() else part(space.sizes, space.states[few], space.limits)


def _space(sizes: tuple[int, ...], numbers: Any, limits: ThresholdLimits) -> Space:
    strides, total = strides_of(sizes)
    live = [c for c, size in enumerate(sizes) if size]
    digits = np.empty((len(live), len(numbers)), dtype=np.int16)
    for digit, c in zip(digits, live, strict=True):
        digit[:] = numbers // np.int32(strides[c]) % np.int32(sizes[c] + 1)
    order = np.argsort(digits.sum(axis=0, dtype=np.int16), kind="stable")
    digits, numbers = digits[:, order], numbers[order]
    where = np.zeros(total, dtype=np.int32)
    where[numbers] = np.arange(len(numbers), dtype=np.int32)
    before = np.empty(digits.shape, dtype=np.int32)
    for row, c, digit in zip(before, live, digits, strict=True):
        row[:] = np.where(digit > 0, where[np.where(digit > 0, numbers - strides[c], 0)], len(numbers))
    return Space(sizes, digits, before, limits)


def strides_of(sizes: tuple[int, ...]) -> tuple[list[int], int]:
    """Mixed-radix weights, and how many count vectors there are."""
    strides, total = [], 1
    for size in sizes:
        strides.append(total)
        total *= size + 1
    return strides, total


@lru_cache(maxsize=2)
def whole_space(sizes: tuple[int, ...], limits: ThresholdLimits = DEFAULT.threshold) -> Space:
    return _space(sizes, np.arange(strides_of(sizes)[1], dtype=np.int32), limits)
