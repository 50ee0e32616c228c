"""Problems on which a further start never hurts, and their stages within a bottleneck.

Regular: links uniform, nodes in free order, every part of an allowed stage is allowed and costs no more, no shared pool.
Then within a bottleneck T a chain that has come further can do whatever one behind it can.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from itertools import pairwise
from typing import Any

import numpy as np

from engine.planning.tables import Chain, Tables


def is_regular(tables: Tables) -> bool:
    return (
        tables.uniform
        and tables.problem.free_order
        and tables.least == 1
        and tables.given_stop is None
        and not tables.pool_room
        and all(x <= y for table in tables.table for x, y in pairwise(table))
        and (not tables.additive or len(set(tables.hop[1:-1])) <= 1)
    )


class Regular:
    """Stages of a regular problem around `fixed` ones (class, start, stop), which are part of every chain."""

    def __init__(self, tables: Tables, fixed: Chain = ()) -> None:
        self.t, self.n = tables, tables.n
        self.fixed = tuple(sorted(fixed, key=lambda stage: stage[1]))
        self.hop_s = tables.hop[1] if self.n > 1 else 0.0  # only meant where hops are equal
        self.largest_hop_s = max(tables.hop)
        self.jump = list(range(self.n + 1))  # [position] -> where the chain goes on
        self.limit = tables.limit
        for c, start, stop in reversed(self.fixed):
            del c
            self.jump[start] = self.jump[stop]
        if fixed:
            ends, at = [], 0
            for _, start, stop in self.fixed:
                ends += [start] * (start + 1 - at) + list(range(start + 1, stop))
                at = stop
            ends += [self.n] * (self.n - at)
            self.limit = [[min(b, end) for b, end in zip(row, ends, strict=True)] for row in tables.limit]
        self.begin = self.jump[0]

    def cost_s(self, c: int, start: int, stop: int) -> float:
        time_s, hop_s = self.t.stage_s(c, start, stop), self.t.hop[stop]
        return time_s + hop_s if self.t.additive else max(time_s, hop_s)

    # ------------------------------------------------------------------------------------------------ one at a time
    def furthest(self, c: int, start: int, bound_s: float) -> int:
        """The last allowed stop within `bound_s`; `start` itself if there is none."""
        t, limit = self.t, self.limit[c][start] if start < self.n else start
        if t.additive and limit == self.n and t.stage_s(c, start, limit) <= bound_s:
            return limit
        inner = bound_s - self.hop_s if t.additive else bound_s
        if t.table[c]:
            stop = min(limit, start + bisect_right(t.table[c], inner))
        else:
            row = t.prefix[c]
            stop = min(limit, bisect_right(row, row[start] + inner) - 1)
        if self.largest_hop_s > bound_s and not t.additive:
            while start < stop < self.n and t.hop[stop] > bound_s:
                stop -= 1
        return max(stop, start)

    def next_cost(self, c: int, start: int, bound_s: float) -> float:
        """The smallest cost above `bound_s` of a stage that begins at `start`, or a lower bound of it."""
        t, limit = self.t, self.limit[c][start] if start < self.n else start
        inner = bound_s - self.hop_s if t.additive else bound_s
        row = t.prefix[c]
        stop = start + bisect_right(t.table[c], inner) + 1 if t.table[c] else bisect_right(row, row[start] + inner)
        stop = max(stop, start + 1)
        best = math.inf
        if stop <= limit:
            cost = t.stage_s(c, start, stop) + (self.hop_s if t.additive and stop < self.n else 0.0)
            best = cost if cost > bound_s else best
        if t.additive and limit == self.n:
            whole = t.stage_s(c, start, limit)
            best = min(best, whole) if whole > bound_s else best
        return best

    def next_hop(self, bound_s: float) -> float:
        """The smallest hop above `bound_s`: beyond it another cut opens."""
        if self.t.additive or self.largest_hop_s <= bound_s:
            return math.inf
        return min(h for h in self.t.hop if h > bound_s)

    # ------------------------------------------------------------------------------------------------ all at once
    def arrays(self) -> Arrays:
        return Arrays(self)


class Arrays:
    """The same for all classes and starts at once; rows are classes."""

    def __init__(self, regular: Regular) -> None:
        t = regular.t
        self.r, self.n = regular, regular.n
        self.prefix = [np.array(row) for row in t.prefix]
        self.limit = np.array([[*row, self.n] for row in regular.limit], dtype=np.int32)
        self.hop, self.jump = np.array(t.hop), np.array([*regular.jump, 0], dtype=np.int32)
        self.steps = np.arange(self.n + 1, dtype=np.int32)

    def furthest(self, bound_s: float) -> Any:
        """[class, start] -> as Regular.furthest, with a last column of zeros."""
        t, n = self.r.t, self.n
        stops = np.zeros((len(self.limit), n + 2), dtype=np.int32)
        inner = bound_s - self.r.hop_s if t.additive else bound_s
        for c, row in enumerate(stops):
            row[:-1] = np.minimum(self._within(c, inner), self.limit[c])
            if t.additive:  # the last stage sends nothing
                row[:-1][(self._within(c, bound_s) >= n) & (self.limit[c] >= n)] = n
        if not t.additive and self.r.largest_hop_s > bound_s:
            stops[:, :-1] = np.maximum.accumulate(np.where(self.hop <= bound_s, self.steps, 0))[stops[:, :-1]]
        np.maximum(stops[:, :-1], self.steps, out=stops[:, :-1])
        return stops

    def _within(self, c: int, bound_s: float) -> Any:
        if self.r.t.table[c]:
            return np.minimum(self.steps + int(np.searchsorted(self.r.t.table[c], bound_s, side="right")), self.n)
        row = self.prefix[c]
        return np.searchsorted(row, row + bound_s, side="right") - 1

    def next_cost(self, bound_s: float, classes: list[int], starts: Any) -> float:
        """The smallest cost above `bound_s` of any stage that begins at one of `starts`, or a lower bound of it."""
        t, n, best = self.r.t, self.n, math.inf
        inner = bound_s - self.r.hop_s if t.additive else bound_s
        for c in classes:
            limit = self.limit[c][starts]
            stops = np.maximum(self._within(c, inner)[starts], starts) + 1
            allowed = stops <= limit
            if allowed.any():
                costs = self._times(c, starts[allowed], stops[allowed])
                if t.additive:
                    costs = costs + np.where(stops[allowed] < n, self.r.hop_s, 0.0)
                best = min(best, float(costs[costs > bound_s].min(initial=math.inf)))
            if t.additive:
                whole = self._times(c, starts[limit == n], n)
                best = min(best, float(whole[whole > bound_s].min(initial=math.inf)))
        return best

    def _times(self, c: int, starts: Any, stops: Any) -> Any:
        if self.r.t.table[c]:
            table = np.array([*self.r.t.table[c], *[math.inf] * self.n])
            return table[stops - starts - 1]
        return self.prefix[c][stops] - self.prefix[c][starts]

    def onward(self, stops: Any) -> Any:
        """Where the chain goes on after these stops."""
        there = self.jump[stops]
        there[:, -1] = 0
        return there

    def nearest(self, bound_s: float) -> Any:
        """[class, stop] -> earliest allowed start of a stage that ends at the first open cut from `stop` on."""
        t, n = self.r.t, self.n
        starts = np.empty((len(self.limit), n + 1), dtype=np.int32)
        inner = bound_s - self.r.hop_s if t.additive else bound_s
        for c, row in enumerate(starts):
            row[:] = self._from(c, inner)
            if t.additive:
                row[n] = self._from(c, bound_s)[n]
            np.maximum(row, np.searchsorted(self.limit[c, :n], self.steps, side="left"), out=row)
        np.minimum(starts, self.steps, out=starts)
        if not t.additive and self.r.largest_hop_s > bound_s:
            open_cut = np.where(self.hop <= bound_s, self.steps, n)
            open_cut[0] = 0
            following = np.minimum.accumulate(open_cut[::-1])[::-1]
            starts = np.minimum(starts[:, following], self.steps)
        return starts

    def _from(self, c: int, bound_s: float) -> Any:
        """[stop] -> earliest start whose time is at most `bound_s`."""
        if self.r.t.table[c]:
            return np.maximum(self.steps - int(np.searchsorted(self.r.t.table[c], bound_s, side="right")), 0)
        row = self.prefix[c]
        return np.searchsorted(row, row - bound_s, side="left")
