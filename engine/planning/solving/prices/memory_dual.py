"""A lower bound of round trips when memory forces several nodes: linear programming duality, one price per node's memory.

Relax contiguity: item i goes to any node c for t[c, i], node c holds at most room_c bytes. For any prices m_c >= 0 per byte,
sum_i min_c(t[c, i] + m_c w_i) - sum_c m_c room_c is at most the optimum. It splits over items and nodes, so for a partial
chain the bound of the rest is a suffix sum plus a charge per node in use. The prices come from a subgradient climb; any of
them are valid, better ones only prune more. A stage's hop and base are
paid in proportion to the room that it takes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from engine.planning.solving.tables import Tables

CLIMBS = 400
SAFETY = 1 + 1e-12  # what is computed with rounding is put on the safe side by this


class MemoryDual:
    """`rest` [position] and `charge` [class]: any completion costs at least rest[b] + sum of charge over nodes in use."""

    def __init__(self, tables: Tables, times: Any) -> None:
        problem = tables.problem
        kv_tokens = problem.sessions * problem.context_tokens
        sizes = np.array([i.weight_bytes - i.tied_bytes + i.kv_bytes_per_token * kv_tokens for i in problem.items], dtype=float)
        self.sizes = np.maximum(sizes, 0.0)
        self.rooms = np.maximum([self._fullest(row) for row in tables.limit], 1.0) * SAFETY
        self.count = np.array(tables.size, dtype=float)
        hop_s = min(tables.times.hop[1:-1], default=0.0)
        self.times = times + (hop_s + np.array(tables.times.base)[:, None]) * self.sizes / self.rooms[:, None]
        prices = self._climb()
        least = (self.times + prices[:, None] * self.sizes).min(axis=0)
        paid = float((prices * self.rooms * self.count).sum())
        self.charge = prices * self.rooms
        covered = np.concatenate([np.cumsum(least[::-1])[::-1], [0.0]])  # inf before an item that no node can run
        self.rest = covered * (2 - SAFETY) - SAFETY * (paid + hop_s)  # a small difference of large sums is not exact

    def _fullest(self, limit: list[int]) -> float:
        """What the fullest allowed stage holds, not what the node has; a sum over a window that moves forward."""
        n, fullest = len(limit), 0.0
        for start, stop in enumerate(limit):
            if start == 0 or stop > limit[start - 1]:  # else the stage is a part of the one before
                fullest = max(fullest, float(self.sizes[start:stop].sum()))
            if stop == n:
                break
        return fullest

    def _climb(self) -> Any:
        """Prices after steps along the subgradient that shrink; the best ones seen."""
        prices = np.zeros(len(self.rooms))
        best, best_value = prices, -math.inf
        finite = self.times[np.isfinite(self.times)]
        if not len(finite):  # nothing can run anywhere: any prices say so
            return prices
        typical = np.median(finite) / max(float(np.median(self.sizes)), 1.0)
        offered = self.rooms * self.count
        for k in range(CLIMBS):
            reduced = self.times + prices[:, None] * self.sizes
            chosen = reduced.argmin(axis=0)
            value = float(reduced.min(axis=0).sum() - (prices * offered).sum())
            if value > best_value:
                best, best_value = prices, value
            used = np.bincount(chosen, weights=self.sizes, minlength=len(prices))
            step = 2 * typical / (1 + k / 4)
            prices = np.maximum(0.0, prices + step * (used - offered) / np.maximum(used + offered, 1.0))
        return best
