"""A lower bound of round trips that keeps stages contiguous: linear programming duality, one price per use of a node.

Let chains use a node as often as they wish, at a price for each use. For any prices l_c >= 0, the cheapest such chain minus
the prices of all nodes together is at most the optimum, as the optimum uses each node at most once. For a partial chain the
bound of the rest is the cheapest way from its position, minus the prices of the nodes not in use yet. The prices climb along
the subgradient (nodes that the cheapest chain overuses) with Polyak's steps towards a known plan (Polyak, "Minimization of
unsmooth functionals", 1969); any of them are valid, better ones prune more.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.planning.solving.prices.memory_dual import SAFETY, MemoryDual
from engine.planning.solving.tables import Tables

CLIMBS = 60


class ChainDual:
    """`rest` [position] and `charge` [class], as MemoryDual has them; `upper` is the round trip of some plan."""

    def __init__(self, tables: Tables, first: MemoryDual, upper: float) -> None:
        self.t, self.n = tables, tables.n
        self.count = np.array(tables.size, dtype=float)
        self.prefix = np.array(tables.times.trip_prefix)
        self.limit = tables.limit_array
        self.reach = int((self.limit[:, : self.n] - np.arange(self.n)).max(initial=1))
        self.after = self._padded(self.prefix + np.array(tables.times.base)[:, None] + tables.times.hop_array)
        self.back = tables.times.back if int(self.limit[:, 0].max()) < self.n else 0.0  # where no node holds everything
        self.charge, self.rest = self._climb(first.charge, upper)

    def _padded(self, rows: Any) -> Any:
        return np.concatenate([rows, np.full((len(rows), self.reach), np.inf)], axis=1)

    def _climb(self, prices: Any, upper: float) -> tuple[Any, Any]:
        best: tuple[float, Any, Any] | None = None
        for k in range(CLIMBS):
            rest, uses = self._cheapest(prices)
            paid = float((prices * self.count).sum())
            rest = (rest + self.back) * (2 - SAFETY) - SAFETY * paid  # a small difference of large sums is not exact
            if best is None or rest[0] > best[0]:
                best = float(rest[0]), prices, rest
            gradient = uses - self.count
            length = float((gradient * gradient * ((prices > 0) | (gradient > 0))).sum())
            if length == 0 or rest[0] >= upper:
                break
            prices = np.maximum(0.0, prices + (upper - rest[0]) / length * gradient / (1 + k / 20))
        assert best is not None, "there is a first climb"  # noqa: S101  an invariant, not validation
        return best[1], best[2]

    def _cheapest(self, prices: Any) -> tuple[Any, Any]:
        """[position] cheapest way to the end with every use of a node priced, and how often each class is on the one from 0."""
        rest = np.full(self.n + 1 + self.reach, np.inf)
        rest[self.n] = 0.0
        steps, chosen = np.arange(1, self.reach + 1), np.zeros((self.n, 2), dtype=np.int64)
        room = self.limit - np.arange(self.n + 1)
        for start in range(self.n - 1, -1, -1):
            ways = self.after[:, start + 1 : start + 1 + self.reach] + rest[start + 1 : start + 1 + self.reach]
            ways = np.where(steps <= room[:, start, None], ways, np.inf) + (prices - self.prefix[:, start])[:, None]
            k = int(ways.argmin())
            c, length = divmod(k, self.reach)
            rest[start], chosen[start] = ways[c, length], (c, start + 1 + length)
        uses, at = np.zeros(len(prices)), 0
        while at < self.n and rest[at] < np.inf:
            uses[chosen[at, 0]] += 1
            at = int(chosen[at, 1])
        return rest[: self.n + 1], uses
