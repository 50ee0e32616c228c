"""Nodes in a given order: the smallest bottleneck by reachability over positions, for any stage costs at all.

Nothing is assumed of the costs (tables need not rise, stages may have fewest items): every stop is tried from every start,
all starts at once. One node after the other is taken or left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from engine.planning.solving.tables import Chain, Tables


class Ordered:
    """Stage costs of a problem with uniform links and nodes in a given order, as matrices [start, stop]."""

    def __init__(self, tables: Tables) -> None:
        self.t, self.n = tables, tables.n
        self.costs = [self._matrix(c) for c in range(len(tables.size))]

    def _matrix(self, c: int) -> Any:
        t, n = self.t, self.n
        costs = np.full((n + 1, n + 1), np.inf)
        starts = range(n) if t.given_stop is None else t.given_stop
        held = np.array(t.times.held)
        for start in starts:
            low, high = start + t.least, t.limit[c][start]
            if t.given_stop is not None:
                low, high = max(low, t.given_stop[start]), min(high, t.given_stop[start])
            if low <= high:
                times = self._times(c, start, low, high)
                hops = held[low : high + 1]
                costs[start, low : high + 1] = times + hops if t.times.additive else np.maximum(times, hops)
        return costs

    def _times(self, c: int, start: int, low: int, high: int) -> Any:
        if self.t.times.table[c]:
            return np.array(self.t.times.table[c][low - start - 1 : high - start])
        row = self.t.times.prefix[c]
        return np.array(row[low : high + 1]) - row[start] + self.t.times.base[c]

    def bottleneck(self) -> tuple[float, Chain] | None:
        """The smallest bottleneck and a chain that has it."""
        before = np.full(self.n + 1, np.inf)
        before[0] = 0.0
        rows = [before]
        for costs in self.costs:
            rows.append(np.minimum(rows[-1], np.maximum(rows[-1][:, None], costs).min(axis=0)))
        best = float(rows[-1][self.n])
        return None if best == np.inf else (best, self._trace(rows, best))

    def _trace(self, rows: list[Any], best: float) -> Chain:
        stop, stages = self.n, []
        for c in range(len(self.costs) - 1, -1, -1):
            if rows[c][stop] > best:
                ways = np.maximum(rows[c], self.costs[c][:, stop])
                start = int(ways.argmin())
                stages.append((c, start, stop))
                stop = start
        return tuple(reversed(stages))

    def lost(self, bound_s: float) -> Callable[[int, int], bool]:
        """(nodes passed, position) -> whether the nodes behind cannot cover the rest within `bound_s`."""
        reach = np.zeros(self.n + 1, dtype=bool)
        reach[self.n] = True
        rows = [reach]
        for costs in reversed(self.costs):
            rows.append(rows[-1] | ((costs <= bound_s) & rows[-1]).any(axis=1))
        table = [row.tolist() for row in reversed(rows)]
        return lambda used, stop: not table[used][stop]
