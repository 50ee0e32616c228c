"""Problems on which a further start never hurts, and their stages within a bottleneck.

`structure.is_regular` says which they are. Within a bottleneck T a chain that has come further can do whatever one behind it can.
`bound` is a bottleneck in seconds here; memory_share.py puts shares of memory in its place.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import Any

import numpy as np

from engine.planning.solving.tables import Chain, Tables


class Regular:
    """Stages of a regular problem around `fixed` ones (class, start, stop), which are part of every chain."""

    def __init__(self, tables: Tables, fixed: Chain = ()) -> None:
        self.t, self.n = tables, tables.n
        self.fixed = tuple(sorted(fixed, key=lambda stage: stage[1]))
        self.held_s = tables.times.held[1] if self.n > 1 else 0.0  # only meant where hops are equal
        self.largest_held_s = max(tables.times.held)
        self.jump = list(range(self.n + 1))  # [position] -> where the chain goes on
        self.ends: list[int] | None = None  # [start] -> where the next fixed stage begins
        for _, start, stop in reversed(self.fixed):
            self.jump[start] = self.jump[stop]
        if fixed:
            self.ends, at = [], 0
            for _, start, stop in self.fixed:
                self.ends += [start] * (start + 1 - at) + list(range(start + 1, stop))
                at = stop
            self.ends += [self.n] * (self.n + 1 - at)
        self.begin = self.jump[0]

    def cost(self, c: int, start: int, stop: int) -> float:
        """What a bound is compared with."""
        return self.t.times.stage_cost_s((c, start, stop))

    @property
    def everything_s(self) -> float:
        """No stage costs more."""
        t = self.t
        longest = (base + row[-1] for base, row in zip(t.times.base, t.times.prefix, strict=True))
        return max(*longest, *(x for row in t.times.table for x in row if x < math.inf), 0.0) + self.largest_held_s

    def halfway(self, low: float, high: float) -> float:
        return self.t.times.grid.between(low, high)

    def below(self, bound: float) -> float:
        """The largest possible cost below `bound`."""
        return bound - self.t.times.grid.tick

    def above(self, bound: float) -> float:
        return bound + self.t.times.grid.tick

    def limit(self, c: int, start: int) -> int:
        """The furthest stop whatever it costs."""
        if start >= self.n:
            return start
        limit = self.t.limit[c][start]
        return limit if self.ends is None else min(limit, self.ends[start])

    # ------------------------------------------------------------------------------------------------ one at a time
    def furthest(self, c: int, start: int, bound: float) -> int:
        """The last allowed stop within `bound`; `start` itself if there is none."""
        limit = self.limit(c, start)
        return limit if self.is_last_within(c, start, limit, bound) else self.furthest_sending(c, start, limit, bound)

    def is_last_within(self, c: int, start: int, limit: int, bound: float) -> bool:
        """Whether the rest as one stage, which sends nothing, is within a bound that additive stages with a hop are over."""
        return self.t.times.additive and limit == self.n and self.t.times.stage_s(c, start, limit) <= bound

    def furthest_sending(self, c: int, start: int, limit: int, bound: float) -> int:
        t = self.t
        inner = bound - self.held_s if t.times.additive else bound
        if t.times.table[c]:
            stop = min(limit, start + bisect_right(t.times.table[c], inner))
        else:
            row = t.times.prefix[c]
            stop = min(limit, bisect_right(row, row[start] + inner - t.times.base[c]) - 1)
        if self.largest_held_s > bound and not t.times.additive:
            while start < stop < self.n and t.times.held[stop] > bound:
                stop -= 1
        return max(stop, start)

    def next_cost(self, c: int, start: int, bound: float) -> float:
        """The smallest cost above `bound` of a stage that begins at `start`, or a lower bound of it."""
        t, limit = self.t, self.limit(c, start)
        inner = bound - self.held_s if t.times.additive else bound
        row = t.times.prefix[c]
        stop = (
            start + bisect_right(t.times.table[c], inner) + 1
            if t.times.table[c]
            else bisect_right(row, row[start] + inner - t.times.base[c])
        )
        stop = max(stop, start + 1)
        best = math.inf
        if stop <= limit:
            cost = t.times.stage_s(c, start, stop) + (self.held_s if t.times.additive and stop < self.n else 0.0)
            best = cost if cost > bound else best
        if t.times.additive and limit == self.n:
            whole = t.times.stage_s(c, start, limit)
            best = min(best, whole) if whole > bound else best
        return best

    def next_hop(self, bound: float) -> float:
        """The smallest hop above `bound`: beyond it another cut opens."""
        if self.t.times.additive or self.largest_held_s <= bound:
            return math.inf
        return min(h for h in self.t.times.held if h > bound)

    # ------------------------------------------------------------------------------------------------ all at once
    def arrays(self) -> Arrays:
        return Arrays(self)


class Arrays:
    """The same for all classes and starts at once; rows are classes."""

    def __init__(self, regular: Regular) -> None:
        t = regular.t
        self.r, self.n = regular, regular.n
        self.prefix, self.limit = t.times.prefix_array, t.limit_array
        if regular.ends is not None:
            self.limit = np.minimum(self.limit, np.array(regular.ends, dtype=np.int32))
        self.held, self.jump = t.times.held_array, np.array([*regular.jump, 0], dtype=np.int32)
        self.steps = np.arange(self.n + 1, dtype=np.int32)

    def furthest(self, bound: float) -> Any:
        """[class, start] -> as Regular.furthest, with a last column of zeros."""
        n = self.n
        stops = np.zeros((len(self.limit), n + 2), dtype=np.int32)
        stops[:, :-1] = self.furthest_sending(bound)
        if self.r.t.times.additive:
            stops[:, :-1][self.is_last_within(bound)] = n
        return stops

    def is_last_within(self, bound: float) -> Any:
        """[class, start] -> as Regular.is_last_within."""
        return (self.limit >= self.n) & np.array([self._within(c, bound) >= self.n for c in range(len(self.limit))])

    def furthest_sending(self, bound: float) -> Any:
        """[class, start] -> as Regular.furthest_sending."""
        t = self.r.t
        stops = np.empty((len(self.limit), self.n + 1), dtype=np.int32)
        inner = bound - self.r.held_s if t.times.additive else bound
        for c, row in enumerate(stops):
            row[:] = self._within(c, inner)
        np.minimum(stops, self.limit, out=stops)
        if not t.times.additive and self.r.largest_held_s > bound:
            stops = np.maximum.accumulate(np.where(self.held <= bound, self.steps, 0))[stops]
        return np.maximum(stops, self.steps)

    def _within(self, c: int, bound_s: float) -> Any:
        if self.r.t.times.table[c]:
            return np.minimum(self.steps + int(np.searchsorted(self.r.t.times.table[c], bound_s, side="right")), self.n)
        row = self.prefix[c]
        return np.maximum(row.searchsorted(row + (bound_s - self.r.t.times.base[c]), side="right") - 1, self.steps)

    def next_cost(self, bound: float, classes: list[int], starts: Any) -> float:
        """The smallest cost above `bound` of any stage that begins at one of `starts`, or a lower bound of it."""
        t, n, best = self.r.t, self.n, math.inf
        inner = bound - self.r.held_s if t.times.additive else bound
        for c in classes:
            limit = self.limit[c][starts]
            stops = np.maximum(self._within(c, inner)[starts], starts) + 1
            allowed = stops <= limit
            if allowed.any():
                costs = self._times(c, starts[allowed], stops[allowed])
                if t.times.additive:
                    costs = costs + np.where(stops[allowed] < n, self.r.held_s, 0.0)
                best = min(best, float(costs[costs > bound].min(initial=math.inf)))
            if t.times.additive:
                whole = self._times(c, starts[limit == n], n)
                best = min(best, float(whole[whole > bound].min(initial=math.inf)))
        return best

    def _times(self, c: int, starts: Any, stops: Any) -> Any:
        if self.r.t.times.table[c]:
            table = np.array([*self.r.t.times.table[c], *[math.inf] * self.n])
            return table[stops - starts - 1]
        return self.prefix[c][stops] - self.prefix[c][starts] + self.r.t.times.base[c]

    def onward(self, stops: Any) -> Any:
        """Where the chain goes on after these stops."""
        there = self.jump[stops]
        there[:, -1] = 0
        return there

    def nearest(self, bound: float) -> Any:
        """[class, stop] -> earliest allowed start of a stage that ends at the first open cut from `stop` on."""
        t, n = self.r.t, self.n
        starts = np.empty((len(self.limit), n + 1), dtype=np.int32)
        inner = bound - self.r.held_s if t.times.additive else bound
        for c, row in enumerate(starts):
            row[:] = self._from(c, inner)
            if t.times.additive:
                row[n] = self._from(c, bound)[n]
            np.maximum(row, np.searchsorted(self.limit[c, :n], self.steps, side="left"), out=row)
        np.minimum(starts, self.steps, out=starts)
        if not t.times.additive and self.r.largest_held_s > bound:
            open_cut = np.where(self.held <= bound, self.steps, n)
            open_cut[0] = 0
            following = np.minimum.accumulate(open_cut[::-1])[::-1]
            starts = np.minimum(starts[:, following], self.steps)
        return starts

    def _from(self, c: int, bound_s: float) -> Any:
        """[stop] -> earliest start whose time is at most `bound_s`."""
        if self.r.t.times.table[c]:
            return np.maximum(self.steps - int(np.searchsorted(self.r.t.times.table[c], bound_s, side="right")), 0)
        row = self.prefix[c]
        return np.searchsorted(row, row - (bound_s - self.r.t.times.base[c]), side="left")
