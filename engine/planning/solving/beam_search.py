"""Beyond exact search: a good plan and a certificate of how far from the optimum it can be.

Bound. Fix a bottleneck T and give every node a price. Any chain within T uses a node at most once, so it pays at most the sum
of all prices; if even the cheapest chain that may use nodes again and again pays more, no chain within T exists. That is
linear programming duality for the packing of stages, with the contiguity of stages kept; multiplicative weights raise the
prices of nodes that the cheapest chain overuses. Any prices prove, good ones prove more.

Plan. A beam over (position, nodes used), ordered by the price paid so far plus the cheapest rest.

All work limits count operations, so that the same problem has the same answer on any machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.planning.solving.bounds import least_bottleneck
from engine.planning.solving.prices.additive_search import Shortest
from engine.planning.solving.prices.chain_dual import ChainDual
from engine.planning.solving.prices.memory_dual import MemoryDual
from engine.planning.solving.tables import Chain, Tables
from engine.planning.solving.thresholds.regular import Regular

ROUNDS = 160  # price updates for one bound
BISECTIONS = 9
TRIALS = 6  # beams for one bottleneck
GOLDEN = 0.6180339887498949
WIDTH = 250
NEAR, GUIDED = 60, 400  # sets of nodes of each size that a walk keeps, before and after nodes have prices
MOST_SETS = 2**62  # that numbers can tell apart
BOTTLENECKS = (1.0, 1.1, 1.3)
GOOD = 1.005  # of the bound; a plan further from it is worth a second look with a wider beam
SECOND_LOOKS = 3
WIDER = 1000
SAFETY = 1 + 1e-9  # a proof must hold by more than its rounding


@dataclass(frozen=True, slots=True)
class Prices:
    """`paid` [class]; `rest` [position] the cheapest way from there to the end; whether they prove that nothing fits.

    `mean` [class] is the average over all updates: it tells the nodes that are hard to use well, where `paid` may not.
    """

    paid: Any
    rest: Any
    mean: Any
    infeasible: bool


class Large:
    """The search on a regular problem (or a regular relaxation of the real one, of which it then bounds the optimum)."""

    def __init__(self, tables: Tables) -> None:
        self.t, self.n = tables, tables.n
        self.r = Regular(tables)
        self.arrays = self.r.arrays()
        self.sizes = np.array(tables.size, dtype=float)

    # ------------------------------------------------------------------------------------------------ bottleneck
    def bottleneck(self) -> tuple[float, list[Chain]]:
        """(a bound that no chain is below, chains found from slow to fast); no chain if none was found."""
        low_s, chains = least_bottleneck(self.t), []
        for bound_s in self._upwards(low_s, self.r.everything_s):
            chain = self._chain(bound_s)
            if chain:
                chains.append(chain)
                break
        if not chains:
            return low_s, []
        self._better(chains, low_s, BISECTIONS, WIDTH)
        low_s = self._bound(low_s, self._cost_s(chains[-1]))
        if self._cost_s(chains[-1]) > GOOD * low_s:
            self._better(chains, low_s, SECOND_LOOKS, WIDER)
        return low_s, chains

    def _better(self, chains: list[Chain], tried_s: float, looks: int, width: int) -> None:
        """Add faster chains to the list, bisecting between the last one and `tried_s`."""
        high_s = self._cost_s(chains[-1])
        for _ in range(looks):
            bound_s = self.t.times.grid.between(tried_s, high_s)
            if bound_s <= tried_s:
                break
            chain = self._chain(bound_s, width)
            if chain and self._cost_s(chain) < high_s:
                chains.append(chain)
                high_s = self._cost_s(chain)
            else:
                tried_s = bound_s

    def _upwards(self, low_s: float, high_s: float) -> Iterator[float]:
        factor = 1.05
        while low_s > 0 and low_s * factor < high_s:
            yield low_s * factor
            factor = 1 + (factor - 1) * 1.7
        yield high_s

    def _bound(self, low_s: float, high_s: float) -> float:
        """Raise `low_s` as far as prices prove, at most to `high_s`, the cost of a known chain."""
        open_s = high_s
        for _ in range(BISECTIONS):
            bound_s = self.t.times.grid.between(low_s, open_s)
            if bound_s <= low_s:
                break
            stops = self.arrays.furthest(bound_s)
            if self._prices(stops).infeasible:
                low_s = min(high_s, self._next_cost(bound_s))
            else:
                open_s = bound_s
        return low_s

    def _next_cost(self, bound_s: float) -> float:
        every = np.arange(self.n)
        return min(self.r.next_hop(bound_s), self.arrays.next_cost(bound_s, list(range(len(self.sizes))), every))

    def _cost_s(self, chain: Chain) -> float:
        return max(self.r.cost(*stage) for stage in chain)

    def _chain(self, bound_s: float, width: int = WIDTH) -> Chain:
        stops = self.arrays.furthest(bound_s)
        prices = self._prices(stops)
        if prices.infeasible or not np.isfinite(prices.rest[0]):
            return ()
        for trial in range(TRIALS):
            each = prices.mean * self._shaken(trial - 1) if trial else prices.paid
            paid = np.broadcast_to(each[:, None], stops.shape)
            chain = self._beam(stops, paid, prices.rest if trial == 0 else self._cheapest(stops, paid)[0], width)
            if chain:
                return chain
        return ()

    def _shaken(self, trial: int) -> Any:
        """Factors near 1 by class, other ones for each trial: equal prices make a beam of equals."""
        spread_evenly = (np.arange(len(self.sizes)) * GOLDEN + trial * math.sqrt(2)) * (trial + 1) % 1.0
        return 1.0 + 0.04 * (trial % 4) * (2 * spread_evenly - 1)

    def _prices(self, stops: Any) -> Prices:
        """Multiplicative weights; stops at a proof. At first a node's price is the most items that it can take."""
        most = (stops[:, : self.n] - np.arange(self.n)).max(axis=1)
        weights = np.maximum(most, 0.01)
        best: tuple[float, Any, Any] = (-1.0, weights, np.zeros(self.n + 1))
        total = np.zeros(len(weights))
        for k in range(ROUNDS):
            paid = weights / float((weights * self.sizes).sum())
            total += paid
            rest, chosen = self._cheapest(stops, np.broadcast_to(paid[:, None], stops.shape))
            if rest[0] > best[0]:
                best = (float(rest[0]), paid, rest)
            if rest[0] > SAFETY:
                return Prices(paid, rest, paid, True)
            uses = np.zeros(len(weights))
            at = 0
            while at < self.n:
                uses[chosen[at]] += 1
                at = int(stops[chosen[at], at])
            step = 0.05 / math.sqrt(1 + k / 10)
            weights = weights * np.exp(step * np.clip(uses / self.sizes - 1.0, -1, 3))
        return Prices(best[1], best[2], total / ROUNDS, False)

    def _cheapest(self, stops: Any, price: Any) -> tuple[Any, list[int]]:
        """[position] cheapest cover of the rest by any nodes, used as often as wished, and the class that begins it."""
        rest, chosen = np.full(self.n + 2, np.inf), [0] * self.n
        rest[self.n] = 0.0
        for start in range(self.n - 1, -1, -1):
            there = stops[:, start]
            ways = np.where(there > start, price[:, start] + rest[there], np.inf)
            chosen[start] = int(ways.argmin())
            rest[start] = ways[chosen[start]]
        return rest[: self.n + 1], chosen

    def _beam(self, stops: Any, price: Any, rest: Any, width: int = WIDTH) -> Chain:
        """A chain of furthest stages with each node used at most as often as there is one; () if the beam finds none."""
        position, paid = np.zeros(1, dtype=np.int64), np.zeros(1)
        left = self.sizes[None, :].astype(np.int16)
        history: list[tuple[Any, Any]] = []
        for _ in range(min(int(self.sizes.sum()), self.n)):
            there = stops[:, position].T  # [state, class]
            usable = (left > 0) & (there > position[:, None])
            score = np.where(usable, paid[:, None] + price[:, position].T + rest[there], np.inf).ravel()
            order = np.argpartition(score, 4 * width)[: 4 * width] if len(score) > 4 * width else np.arange(len(score))
            order = order[np.argsort(score[order], kind="stable")]
            order = order[np.isfinite(score[order])]
            if not len(order):
                return ()
            ends = there.ravel()[order]
            _, once = np.unique(np.round(score[order], 12) + 1e3 * ends, return_index=True)
            order = order[np.sort(once)][:width]
            parent, c = np.divmod(order, len(self.sizes))
            history.append((parent, c))
            ends = there.ravel()[order]
            if (ends >= self.n).any():
                return self._unwind(history, stops, int((ends >= self.n).argmax()))
            paid = paid[parent] + price[c, position[parent]]
            position = ends.astype(np.int64)
            left = left[parent]
            left[np.arange(len(c)), c] -= 1
        return ()

    def _unwind(self, history: list[tuple[Any, Any]], stops: Any, k: int) -> Chain:
        classes = []
        for parent, c in reversed(history):
            classes.append(int(c[k]))
            k = int(parent[k])
        stages, start = [], 0
        for c in reversed(classes):
            stop = int(stops[c, start])
            stages.append((c, start, stop))
            start = stop
        return tuple(stages)

    # ------------------------------------------------------------------------------------------------ round trip
    def round_trip(self, bottleneck_s: float) -> tuple[float, list[Chain]]:
        """(a bound of every round trip, chains within several bottlenecks from `bottleneck_s` up)."""
        if any(self.t.times.table):
            return 0.0, []
        times = np.where(self.arrays.limit[:, : self.n] <= np.arange(self.n), np.inf, np.diff(np.array(self.t.times.trip_prefix), axis=1))
        dual = MemoryDual(self.t, times)
        bound_s = max(float(times.min(axis=0).sum()), float(dual.rest[0])) * (1 - 1e-9)
        chains = list(self._furthest(bottleneck_s, dual))
        search = Shortest(self.t) if math.prod(size + 1 for size in self.t.size) < MOST_SETS else None
        if search is not None:
            search.dual, search.upper = dual, math.inf
            chains.append(search.near(NEAR)[1])
        chains = [chain for chain in chains if chain]
        if not chains:
            return bound_s, []
        upper_s = min(self._trip_s(chain) for chain in chains)
        by_node = ChainDual(self.t, dual, upper_s)
        bound_s = max(bound_s, float(by_node.rest[0]) * (1 - 1e-9))
        if search is not None:
            proved_s, chain = search.guided(by_node, upper_s, GUIDED)
            bound_s = max(bound_s, proved_s)
            chains += [found for found in (chain, *self._within_bottlenecks(by_node, bottleneck_s)) if found]
        return bound_s, chains

    def _within_bottlenecks(self, dual: ChainDual, bottleneck_s: float) -> Iterator[Chain]:
        """Where several sessions are in flight, short chains need a small bottleneck too."""
        for factor in BOTTLENECKS if self.t.problem.in_flight > 1 else ():
            search = Shortest(self.t, self.t.times.grid.between(0.0, 2 * bottleneck_s * factor), dual=dual)
            yield search.near(NEAR)[1]

    def _furthest(self, bottleneck_s: float, dual: MemoryDual) -> Iterator[Chain]:
        """Chains of stages that reach as far as they can, by time alone and with the price of memory."""
        prefix, base, hop = np.array(self.t.times.trip_prefix), np.array(self.t.times.base)[:, None], np.array(self.t.times.hop)
        for factor in (1.0, 1.05, 1.2, 1.5, 2.0, 4.0, 1e6):
            stops = self.arrays.furthest(self.t.times.grid.between(0.0, 2 * bottleneck_s * factor))
            ends = np.minimum(stops, self.n)
            starts = np.broadcast_to(np.arange(self.n + 2), stops.shape).clip(max=self.n)
            spent = np.take_along_axis(prefix, ends, axis=1) - np.take_along_axis(prefix, starts, axis=1) + base + hop[ends]
            for price in (spent, spent + dual.charge[:, None]):
                rest, _ = self._cheapest(stops, price)
                if np.isfinite(rest[0]):
                    yield self._beam(stops, price, rest)

    def _trip_s(self, chain: Chain) -> float:
        return sum(self.t.times.trip_s(*stage) + self.t.times.hop[stage[2]] for stage in chain) + (
            self.t.times.back if len(chain) > 1 else 0.0
        )


def spread(tables: Tables, chain: Chain, bound_s: float) -> Chain:
    """The chain with nodes that it left out taking over parts of stages, without a stage above `bound_s`, while there are any."""
    r, left = Regular(tables), list(tables.size)
    for c, _, _ in chain:
        left[c] -= 1
    stages = list(chain)
    for c in sorted(range(len(left)), key=lambda c: tables.times.prefix[c][-1]):
        while left[c] and _split(r, stages, c, bound_s):
            left[c] -= 1
    return tuple(stages)


def _split(r: Regular, stages: list[tuple[int, int, int]], c: int, bound_s: float) -> bool:
    """Give class c the beginning of the slowest stage that can be divided within the bound."""
    for k in sorted(range(len(stages)), key=lambda k: -r.cost(*stages[k])):
        owner, start, stop = stages[k]
        for cut in range(start + 1, stop):
            new, old = (c, start, cut), (owner, cut, stop)
            if cut <= r.limit(c, start) and r.cost(*new) <= bound_s and r.cost(*old) <= bound_s:
                stages[k : k + 1] = [new, old]
                return True
    return False
