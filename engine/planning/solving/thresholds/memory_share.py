"""memory_aware on regular problems: the smallest largest share of memory within a bottleneck, by the same threshold search.

The share of a node's memory that a stage takes grows with the stage, as its time does, so the search of reach.py finds the
smallest one when shares take the place of costs; the bottleneck that all stages must keep becomes a limit of their own.
With that share as a limit, the problem is regular again, and its smallest bottleneck is the tie-break.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import Any

import numpy as np

from engine.planning.problem import Problem
from engine.planning.solution import ratio
from engine.planning.solving.tables import Chain, Tables
from engine.planning.solving.thresholds.node_sets import MANY, at_most, whole_space
from engine.planning.solving.thresholds.regular import Arrays, Regular
from engine.planning.solving.thresholds.threshold_search import Reach

EXACT = 2**52  # units: up to here floats add and subtract sizes exactly


def emptiest(tables: Tables, most_s: float, chain: Chain, most: int = MANY) -> tuple[float, Chain]:
    """The smallest share of memory of any chain of `most` stages at most with a bottleneck within `most_s`, and a chain that has it;
    `chain` is one."""
    filling = Filling(tables, most_s)
    return Reach(filling, at_most(whole_space(tables.size, tables.limits.threshold), most)).smallest(least_share(tables), chain)


def no_fuller(tables: Tables, share: float) -> Tables:
    """The problem without the stages that take more than `share` of their node's memory."""
    stops = FillingArrays(Filling(tables, math.inf)).within_share(share)
    return tables.narrowed([row[:-1] for row in np.maximum(np.minimum(stops, tables.limit_array), np.arange(tables.n + 1)).tolist()])


def least_share(tables: Tables) -> float:
    """No chain has a smaller one: an item somewhere, or all items over all nodes."""
    room = sum(max(0.0, room) * size for room, size in zip(tables.rooms.of_class, tables.size, strict=True))
    total = tables.problem.stage_bytes(0, tables.n)
    return ratio(total, room) * (1 - 1e-12) if room < math.inf else 0.0


class Filling(Regular):
    """Stages within a bottleneck, compared by the share of memory that they take."""

    def __init__(self, tables: Tables, most_s: float) -> None:
        super().__init__(tables)
        self.most_s = tables.times.grid.below(most_s) if most_s < math.inf else most_s
        self._sums = _sums(tables.problem) if tables.problem.sums_are_stages else ()
        self._buffer = [tables.problem.nodes[u].buffer_bytes for u in tables.first]
        self._far: dict[tuple[int, int], tuple[int, bool]] = {}
        self.open_cut = [held_s <= self.most_s or tables.times.additive for held_s in tables.times.held]

    def cost(self, c: int, start: int, stop: int) -> float:
        return self.t.rooms.used_ratio(c, start, stop)

    def halfway(self, low: float, high: float) -> float:
        return min(low + (high - low) / 2, self.below(high))

    def below(self, bound: float) -> float:
        return math.nextafter(bound, -math.inf)

    def above(self, bound: float) -> float:
        return math.nextafter(bound, math.inf)

    def far(self, c: int, start: int) -> tuple[int, bool]:
        """(the furthest stop of a stage that sends on, whether the whole rest is within the bottleneck) whatever the memory."""
        if (c, start) not in self._far:
            limit = self.limit(c, start)
            whole = self.is_last_within(c, start, limit, self.most_s)
            self._far[c, start] = self.furthest_sending(c, start, limit, self.most_s), whole
        return self._far[c, start]

    def furthest(self, c: int, start: int, bound: float) -> int:
        far, whole = self.far(c, start)
        if whole and self.cost(c, start, self.n) <= bound:
            return self.n
        stop = self._within_share(c, start, far, bound)
        while stop > start and not self.open_cut[stop]:
            stop -= 1
        return stop

    def _within_share(self, c: int, start: int, far: int, bound: float) -> int:
        """The last stop up to `far` that takes at most this share of the memory."""
        if not self._sums or self.t.rooms.of_class[c] == math.inf:
            return start + bisect_right(range(start + 1, far + 1), bound, key=lambda stop: self.cost(c, start, stop))
        room = bound * self.t.rooms.of_class[c] - self._buffer[c]
        stop = max(start, bisect_right(self._sums, self._sums[start] + room, start, far + 1) - 1)  # but for rounding
        while stop < far and self.cost(c, start, stop + 1) <= bound:
            stop += 1
        while stop > start and self.cost(c, start, stop) > bound:
            stop -= 1
        return stop

    def next_cost(self, c: int, start: int, bound: float) -> float:
        far, whole = self.far(c, start)
        stop = self.furthest(c, start, bound) + 1
        while stop <= far and not self.open_cut[stop]:
            stop += 1
        best = self.cost(c, start, stop) if stop <= far else math.inf
        return min(best, self.cost(c, start, self.n)) if whole and stop <= self.n else best

    def next_hop(self, bound: float) -> float:
        return math.inf

    def arrays(self) -> FillingArrays:
        return FillingArrays(self)


class FillingArrays(Arrays):
    """The same for all classes and starts at once."""

    def __init__(self, filling: Filling) -> None:
        super().__init__(filling)
        most_s = filling.most_s
        self.far = super().furthest_sending(most_s)
        self.whole = super().is_last_within(most_s) if self.r.t.times.additive else None
        is_open = np.array(filling.open_cut)
        self.last_open = np.maximum.accumulate(np.where(is_open, self.steps, 0))
        self.next_open = np.minimum.accumulate(np.where(is_open, self.steps, self.n + 1)[::-1])[::-1]
        self.next_open = np.append(self.next_open, self.n + 1)
        self.buffer, self.room = np.array(filling._buffer)[:, None], np.array(self.r.t.rooms.of_class)[:, None]
        self.bytes = StageBytes(self.r.t.problem)
        self._found: tuple[float, Any] | None = None

    def furthest(self, bound: float) -> Any:
        stops = np.zeros((len(self.limit), self.n + 2), dtype=np.int32)
        stops[:, :-1] = self._sending(bound)
        if self.whole is not None:
            stops[:, :-1][self.whole & (self.within_share(bound) >= self.n)] = self.n
        return stops

    def _sending(self, bound: float) -> Any:
        return np.maximum(self.last_open[np.minimum(self.far, self.within_share(bound))], self.steps)

    def within_share(self, bound: float) -> Any:
        """[class, start] furthest stop that takes at most this share of the memory, whatever the time."""
        if self._found is None or self._found[0] != bound:
            self._found = bound, self._furthest_by_sums(bound) if self.bytes.summed else self._furthest_by_halves(bound)
        return self._found[1]

    def _furthest_by_sums(self, bound: float) -> Any:
        room = np.where(self.room < math.inf, bound * np.minimum(self.room, 1e300), math.inf) - self.buffer
        stops = np.stack([self.bytes.sums.searchsorted(self.bytes.sums + row, side="right") - 1 for row in room])
        stops = np.maximum(stops, self.steps)
        while True:  # what rounding left to do
            further = (stops < self.n) & (self._share(self.steps, np.minimum(stops + 1, self.n)) <= bound)
            nearer = (stops > self.steps) & (self._share(self.steps, stops) > bound)
            if not (further.any() or nearer.any()):
                return stops
            stops = stops + further - nearer

    def _furthest_by_halves(self, bound: float) -> Any:
        stops = np.broadcast_to(self.steps, (len(self.room), self.n + 1))
        for k in range(self.n.bit_length() - 1, -1, -1):
            after = np.minimum(stops + (1 << k), self.n)
            stops = np.where(self._share(self.steps, after) <= bound, after, stops)
        return stops

    def _share(self, starts: Any, stops: Any, c: Any = slice(None)) -> Any:
        """What a stage takes; [start] of one class, or [class, start]."""
        used = self.bytes(starts, stops) + self.buffer[c]
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(used <= 0, 0.0, np.where(self.room[c] > 0, used / self.room[c], math.inf))

    def next_cost(self, bound: float, classes: list[int], starts: Any) -> float:
        best = math.inf
        stops = self.next_open[self._sending(bound)[:, starts] + 1]
        for c in classes:
            allowed = stops[c] <= self.far[c][starts]
            if allowed.any():
                best = min(best, float(self._share(starts[allowed], stops[c][allowed], c).min()))
            if self.whole is not None:
                rest = starts[self.whole[c][starts]]
                shares = self._share(rest, np.full(len(rest), self.n), c)
                best = min(best, float(shares[shares > bound].min(initial=math.inf)))
        return best


def _sums(problem: Problem) -> tuple[float, ...]:
    """[position] bytes of the items before it, tied or not."""
    return tuple(units / problem.units_per_byte for units in problem.prefix_units)


class StageBytes:
    """Problem.stage_bytes for arrays of starts and stops; `summed` where it is a difference of `sums`."""

    def __init__(self, problem: Problem) -> None:
        n = len(problem.items)
        self.sums = np.array(_sums(problem))
        self.every = None if problem.prefix_units[-1] <= EXACT else _every_stage(problem)
        self.summed = problem.sums_are_stages and self.every is None
        self.ties = [
            (np.array([sum(i < stop for i in members) for stop in range(n + 1)]), units / problem.units_per_byte)
            for members, units in problem.ties
        ]
        self.largest = [np.array(problem.workspace_bytes)] if problem.workspace_bytes else []  # [k][start] of 2^k items
        while self.largest and 2 ** len(self.largest) <= n:
            half = 2 ** (len(self.largest) - 1)
            self.largest.append(np.maximum(self.largest[-1][:-half], self.largest[-1][half:]))

    def __call__(self, starts: Any, stops: Any) -> Any:
        if self.every is not None:
            return self.every[starts, stops]
        total = self.sums[stops] - self.sums[starts]
        for inside, size in self.ties:
            total = total - size * np.maximum(inside[stops] - inside[starts] - 1, 0)
        return total + self._workspace(*np.broadcast_arrays(starts, stops)) if self.largest else total

    def _workspace(self, starts: Any, stops: Any) -> Any:
        """The largest of each stage, from two overlapping runs of 2^k items."""
        found = np.zeros(starts.shape)
        lengths = stops - starts
        for k, row in enumerate(self.largest):
            here = (lengths >= 1 << k) & (lengths < 2 << k)
            found[here] = np.maximum(row[starts[here]], row[stops[here] - (1 << k)])
        return found


def _every_stage(problem: Problem) -> Any:
    """[start, stop] bytes one by one, where sizes are so unlike that differences of floats lose the small ones."""
    n = len(problem.items)
    found = np.zeros((n + 1, n + 1))
    for start in range(n):
        for stop in range(start + 1, n + 1):
            found[start, stop] = problem.stage_bytes(start, stop)
    return found
