"""Kernel 1, threshold search: the smallest bottleneck when a further start never hurts.

If every part of an allowed stage is allowed and costs no more (`Regular`), then within a bottleneck T a chain that has
come further can do whatever one behind it can. So one number describes a set of used nodes: the furthest position it can
reach,  f(S + c) = furthest stop of class c from f(S),  the subset DP over count vectors (masks when all nodes differ).
The search bisects T between a bound and a found plan, first by value, then over the stage costs that lie between, and
always replaces T by the cost of the plan found, so that it ends on a realised value (the exact bisection of Pinar and
Aykanat, "Fast optimal load balancing algorithms for 1D partitioning", JPDC 2004, on subsets of unlike nodes).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.planning.states import States
from engine.planning.tables import Chain, Tables

FEW = 40
ENUMERATE = 1500  # so many candidate costs are sorted rather than halved by value


class Regular:
    """The stage costs of a regular problem as arrays over [class, position]; see `regular`."""

    def __init__(self, tables: Tables) -> None:
        self.t, self.n = tables, tables.n
        self.prefix = np.array([tables.prefix[c] if not tables.table[c] else [0.0] * (self.n + 1) for c in range(len(tables.size))])
        self.hop = np.array(tables.hop)
        self.limit = np.array([[*row, self.n] for row in tables.limit], dtype=np.int32)  # [class, start]
        self.steps = np.arange(self.n + 1, dtype=np.int32)
        largest = max(float(self.prefix.max()), *(max((x for x in row if x < np.inf), default=0.0) for row in tables.table))
        self.everything_s = largest + float(self.hop.max())

    def furthest(self, bound_s: float, ends: Any) -> Any:
        """[class, start] -> furthest allowed stop within `bound_s` and `ends`; the start itself if no stage is."""
        t, n = self.t, self.n
        stops = np.empty_like(self.limit)
        inner = bound_s - t.hop[1] if t.additive and n > 1 else bound_s
        for c in range(len(stops)):
            stops[c] = self._within(c, inner)
        np.minimum(stops, self.limit, out=stops)
        np.minimum(stops, ends, out=stops)
        if t.additive:
            for c in range(len(stops)):  # the last stage sends nothing
                last = (self._within(c, bound_s) >= n) & (self.limit[c] >= n) & (ends >= n)
                stops[c, last] = n
        elif n > 1 and self.hop.max() > bound_s:
            open_cut = np.where(self.hop <= bound_s, self.steps, 0)
            stops = np.maximum.accumulate(open_cut)[stops]
        return np.maximum(stops, self.steps)

    def _within(self, c: int, bound_s: float) -> Any:
        """[start] -> furthest stop whose time is at most `bound_s`."""
        if self.t.table[c]:
            length = int(np.searchsorted(self.t.table[c], bound_s, side="right"))
            return np.minimum(self.steps + length, self.n)
        row = self.prefix[c]
        return np.searchsorted(row, row + bound_s, side="right") - 1

    def cost_s(self, c: int, start: int, stop: int) -> float:
        time_s, hop_s = self.t.stage_s(c, start, stop), self.t.hop[stop]
        return time_s + hop_s if self.t.additive else max(time_s, hop_s)

    def nearest(self, bound_s: float) -> Any:
        """[class, stop] -> earliest allowed start within `bound_s` of a stage that ends at the first open cut from `stop` on."""
        t, n = self.t, self.n
        starts = np.empty_like(self.limit)
        inner = bound_s - t.hop[1] if t.additive and n > 1 else bound_s
        for c in range(len(starts)):
            starts[c] = self._from(c, inner)
            if t.additive:
                starts[c, n] = self._from(c, bound_s)[n]
            np.maximum(starts[c], np.searchsorted(self.limit[c, :n], self.steps, side="left"), out=starts[c])
        np.minimum(starts, self.steps, out=starts)
        if not t.additive and n > 1 and self.hop.max() > bound_s:
            open_cut = np.where(self.hop <= bound_s, self.steps, n)
            following = np.minimum.accumulate(open_cut[::-1])[::-1]
            starts = np.minimum(starts[:, following], self.steps)
        return starts

    def _from(self, c: int, bound_s: float) -> Any:
        """[stop] -> earliest start whose time is at most `bound_s`."""
        if self.t.table[c]:
            return np.maximum(self.steps - int(np.searchsorted(self.t.table[c], bound_s, side="right")), 0)
        row = self.prefix[c]
        return np.searchsorted(row, row - bound_s, side="left")

    def equal(self, cost_s: float, ends: Any) -> Chain | None:
        """The allowed stages of exactly this cost, None if they are more than a few or a hop itself costs it."""
        if not self.t.additive and (self.hop == cost_s).any():
            return None
        found = []
        for c in range(len(self.limit)):
            if self.t.table[c]:
                if cost_s in self.t.table[c]:
                    return None
                continue
            row, most = self.prefix[c], np.minimum(self.limit[c], ends)
            for time_s, at_end in self._times_of(cost_s):
                first = np.maximum(np.searchsorted(row, row + time_s, side="left"), self.steps + 1)
                last = np.minimum(np.searchsorted(row, row + time_s, side="right") - 1, most)
                for start in np.flatnonzero(first <= last)[: FEW + 1].tolist():
                    found += [(c, start, b) for b in range(first[start], last[start] + 1) if at_end is None or (b == self.n) == at_end]
        return tuple(found) if len(found) <= FEW else None

    def _times_of(self, cost_s: float) -> list[tuple[float, bool | None]]:
        """(time, whether the stage must be the last one) of stages that cost `cost_s`."""
        if not self.t.additive or self.n == 1:
            return [(cost_s, None)]
        return [(cost_s, True), (cost_s - self.t.hop[1], False)]

    def between(self, low_s: float, high_s: float, most: int) -> list[float] | None:
        """Sorted distinct stage costs in (low_s, high_s), None if there are more than `most` before removing doubles."""
        found: list[Any] = [self.hop[(self.hop > low_s) & (self.hop < high_s)]] if not self.t.additive else []
        total = 0
        for c in range(len(self.limit)):
            for low, high, offset in self._windows(low_s, high_s):
                values, count = self._inside(c, low, high, most - total)
                total += count
                if values is None:
                    return None
                found.append(values + offset)
        return sorted(set(np.concatenate(found).tolist()))

    def _windows(self, low_s: float, high_s: float) -> list[tuple[float, float, float]]:
        """(low, high, what a hop adds): the last stage of an additive chain has no hop."""
        if not self.t.additive or self.n == 1 or self.t.hop[1] == 0:
            return [(low_s, high_s, 0.0)]
        return [(low_s, high_s, 0.0), (low_s - self.t.hop[1], high_s - self.t.hop[1], self.t.hop[1])]

    def _inside(self, c: int, low: float, high: float, most: int) -> tuple[Any, int]:
        if self.t.table[c]:
            table = np.array(self.t.table[c])
            values = table[(table > low) & (table < high)]
            return (values, len(values)) if len(values) <= most else (None, len(values))
        row = self.prefix[c]
        first = np.searchsorted(row, row + low, side="right")
        last = np.minimum(np.searchsorted(row, row + high, side="left"), self.limit[c] + 1)
        counts = np.maximum(last - np.maximum(first, self.steps + 1), 0)
        total = int(counts.sum())
        if total > most:
            return None, total
        starts = np.repeat(self.steps, counts)
        skipped = np.repeat(np.cumsum(counts) - counts, counts)
        stops = np.repeat(np.maximum(first, self.steps + 1), counts) + np.arange(total) - skipped
        return row[stops] - row[starts], total


class Reach:
    """Threshold searches of one regular problem, also around stages that are already fixed.

    `fixed` stages (class, start, stop) are part of every plan; `states` counts the nodes that are left.
    """

    def __init__(self, regular: Regular, fixed: Chain = ()) -> None:
        self.r, self.n, self.fixed = regular, regular.n, sorted(fixed, key=lambda stage: stage[1])
        sizes = list(regular.t.size)
        for c, _, _ in fixed:
            sizes[c] -= 1
        self.states = States.of(tuple(sizes))
        self.ends = np.full(self.n + 1, self.n, dtype=np.int32)  # [start] -> no stage may cross this position
        self.jump = np.arange(self.n + 1, dtype=np.int32)  # [position] -> where the chain goes on
        for _, start, stop in reversed(self.fixed):
            self.ends[: start + 1] = start
            self.ends[start:stop] = regular.steps[start:stop]
            self.jump[start:stop] = self.jump[stop]

    def chain(self, bound_s: float) -> Chain | None:
        """A chain of free stages within `bound_s` that with the fixed ones covers all items; None if there is none."""
        furthest = self.r.furthest(bound_s, self.ends)
        onward = self.jump[furthest]
        begin = int(self.jump[0])
        return self.states.walk(onward, furthest, begin, self.n)

    def covered(self) -> bool:
        return int(self.jump[0]) == self.n

    def cost_s(self, chain: Chain) -> float:
        return max((self.r.cost_s(*stage) for stage in chain), default=0.0)

    def smallest(self, low_s: float, chain: Chain) -> tuple[float, Chain]:
        """Smallest bottleneck of the free stages, and a chain that has it.

        `low_s` is a cost that no chain can stay at or below (or 0), `chain` any valid chain.
        """
        high_s = self.cost_s(chain)
        while True:
            candidates = self.r.between(low_s, high_s, ENUMERATE)
            if candidates is not None:
                return self._among(candidates, high_s, chain)
            middle = (low_s + high_s) / 2
            found = self.chain(middle)
            if found is None:
                low_s = middle
            else:
                high_s, chain = self.cost_s(found), found

    def _among(self, candidates: list[float], high_s: float, chain: Chain) -> tuple[float, Chain]:
        low, high = 0, len(candidates)  # candidates before `low` fail; those from `high` on are not needed
        while low < high:
            middle = (low + high) // 2
            found = self.chain(candidates[middle])
            if found is None:
                low = middle + 1
            else:
                high_s, chain, high = self.cost_s(found), found, middle
                while high > low and candidates[high - 1] >= high_s:
                    high -= 1
        return high_s, chain


def regular(tables: Tables) -> bool:
    """Whether a further start never hurts: uniform links, parts of allowed stages allowed and not dearer, no shared pool."""
    problem = tables.problem
    cuts = range(1, tables.n)
    return (
        tables.uniform
        and problem.free_order
        and tables.least == 1
        and tables.given_stop is None
        and not tables.pool_room
        and all(x <= y for table in tables.table for x, y in zip(table, table[1:], strict=False))
        and (not tables.additive or all(tables.hop[b] == tables.hop[1] for b in cuts))
    )
