"""Kernel 2, additive: the smallest round trip of a regular problem for every set of nodes, within a bottleneck.

F[S, b]: least compute and hop time in which the nodes of S, all in use, cover items [0, b). Stage times are differences
P[b] - P[a] and a base, so  F[S + c, b] = P_c[b] + base_c + hop[b] + min over allowed a of (F[S, a] - P_c[a]),  a minimum over a window of
starts whose ends both move forward with b. Windows are answered for all b at once from running minima over blocks (van
Herk's method, with blocks cut where a window leaves the one before). Layers are numbers of nodes; a state whose cost and a
lower bound of the rest exceed the best plan found is dropped, with which whole layers usually vanish.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from engine.planning.solving.label_search import Work
from engine.planning.solving.prices.chain_dual import ChainDual
from engine.planning.solving.prices.memory_dual import MemoryDual
from engine.planning.solving.tables import Chain, Tables
from engine.planning.solving.thresholds.node_sets import strides_of
from engine.planning.solving.thresholds.regular import Regular

NARROW = 12  # windows of at most so many starts are answered one by one
BEAM = 60
ANY_NUMBER = (1, 10**9)  # of stages


@dataclass(frozen=True, slots=True)
class Trip:
    """A chain, what it costs, and whether its bottleneck is the smallest among chains that are as good."""

    round_trip_s: float
    bottleneck_s: float
    num_stages: int
    chain: Chain
    ties_searched: bool


class Windows:
    """Of one class: where the window of starts of each stop begins (`low`), and the blocks that answer it.

    `low` must not fall, save at the last stop, which is answered by itself; at `shut` stops no stage may end.
    """

    def __init__(self, low: Any, shut: Any) -> None:
        n = len(low) - 1
        self.low, self.shut, self.last = low, shut, int(low[n])
        bounds = [0]
        while bounds[-1] < n:
            later = np.flatnonzero(low[bounds[-1] + 1 :] > bounds[-1])
            bounds.append(bounds[-1] + 1 + int(later[0]) if len(later) else n + 1)
        self.blocks = list(zip(bounds, [*bounds[1:], n + 1], strict=True))
        stops = np.arange(n + 1)
        block_start = np.array(bounds)[np.searchsorted(bounds, stops, side="right") - 1]
        self.left = np.where((low < block_start) & ~shut, low, n + 1)  # n + 1 is a column of infinities
        self.right = np.where((stops > block_start) & ~shut, stops - 1, n + 1)
        widest = int((stops - low)[:n].max(initial=0))
        lengths = range(1, widest + 1) if widest <= NARROW else ()
        self.open = [(k, np.where((stops - low >= k) & ~shut, 0.0, np.inf)[k:]) for k in lengths]

    def least(self, values: Any) -> Any:
        """[state, stop] smallest value over the stop's window; `values` is [state, start]."""
        size, width = values.shape
        if self.open:
            found = np.full((size, width), np.inf)
            for k, penalty in self.open:
                np.minimum(found[:, k:], values[:, : width - k] + penalty, out=found[:, k:])
            found[:, width - 1] = values[:, self.last : width - 1].min(axis=1, initial=np.inf)
            return found
        running = np.full((2, size, width + 1), np.inf)
        for a, b in self.blocks:
            np.minimum.accumulate(values[:, a:b], axis=1, out=running[0, :, a:b])
            np.minimum.accumulate(values[:, a:b][:, ::-1], axis=1, out=running[1, :, a:b][:, ::-1])
        found = np.minimum(running[0][:, self.right], running[1][:, self.left])
        found[:, width - 1] = values[:, self.last : width - 1].min(axis=1, initial=np.inf)
        return found


class Shortest:
    """Round trips within one bottleneck. `priced` makes the goal price times round trip instead of the round trip.

    `dual`: prices that bound the rest of a chain, where they are known already. `stages`: fewest and most.
    """

    def __init__(
        self,
        tables: Tables,
        bound_s: float = math.inf,
        priced: bool = False,
        dual: ChainDual | None = None,
        stages: tuple[int, int] = ANY_NUMBER,
    ) -> None:
        self.t, self.n, self.priced, self.stages = tables, tables.n, priced, stages
        arrays = Regular(tables).arrays()
        self.prefix, self.hop, self.held = np.array(tables.times.trip_prefix), tables.times.hop_array, arrays.held
        self.after = self.prefix + np.array(tables.times.base)[:, None] + self.hop  # [class, stop] what a stage adds but for its start
        low = arrays.nearest(min(bound_s, 1e300))
        shut = np.zeros(self.n + 1, dtype=bool) if tables.times.additive else self.held > bound_s
        self.windows = [Windows(row, shut) for row in low]
        blocked = np.array([[limit <= a for a, limit in enumerate(row)] for row in tables.limit])
        times = np.where(blocked, np.inf, np.diff(self.prefix, axis=1))
        self.rest = np.concatenate([np.cumsum(times.min(axis=0)[::-1])[::-1], [0.0]])
        self.strides, total = strides_of(tables.size)
        self.dual: MemoryDual | ChainDual | None = dual
        self.upper = math.inf  # plans above this are not wanted
        self.truncated = False  # whether a walk dropped states that may lie on the best plan
        self.gave_up = False  # whether one would have had to keep too much
        if dual is None and total * self.n > tables.limits.additive_large and not priced:
            self.dual = MemoryDual(tables, times)
            self.upper = self._walk(BEAM)[0] * (1 + 1e-12)
        self.layers: list[tuple[Any, Any]] = []

    def best(self) -> Trip | None:
        """The chain of least round trip (or price times it, then fewest stages), then of least bottleneck."""
        best = self._walk(None)
        return None if best[0] == math.inf else self._trip(best)

    def near(self, width: int) -> tuple[float, Chain]:
        """A good chain and its round trip, by the same walk with few sets of nodes of each size; inf and none if it finds none."""
        best = self._walk(width)
        return (best[0], self._trip(best).chain) if best[0] < math.inf else (math.inf, ())

    def guided(self, dual: ChainDual, upper_s: float, width: int) -> tuple[float, Chain]:
        """(a bound of every round trip, a chain that is shorter than `upper_s`, if any), by these prices.

        Where the prices leave so few sets of nodes that none has to be dropped, the bound is the least round trip itself.
        """
        self.dual, self.upper = dual, upper_s * (1 + 1e-12)
        trip_s, chain = self.near(width)
        return 0.0 if self.truncated or self.gave_up else min(trip_s, upper_s), chain

    def _walk(self, width: int | None) -> tuple[float, int, float]:
        """Fill the layers; the best (key, number of stages, round trip)."""
        first = np.full((1, self.n + 1), np.inf)
        first[0, 0] = 0.0
        self.layers = [(np.zeros(1, dtype=np.int64), first)]
        best = (math.inf, 0, math.inf)
        entries, self.truncated, self.gave_up = 0, False, False
        for count in range(1, min(sum(self.t.size), self.n, self.stages[1]) + 1):
            states, costs = self._next(*self.layers[-1])
            if not len(states):
                break
            costs[:, self.n] += self._back(count)
            keys = self._keys(states, costs[:, self.n])
            k = int(np.lexsort((costs[:, self.n], keys))[0])
            if count >= self.stages[0]:
                best = min(best, (float(keys[k]), count, float(costs[k, self.n])))
            states, costs = self._prune(states, costs, min(best[0], self.upper))
            if width is not None and len(states) > width:
                kept = np.sort(np.argpartition(self._hopes(states, costs)[:, : self.n].min(axis=1), width)[:width])
                states, costs, self.truncated = states[kept], costs[kept], True
            entries += costs.size
            if entries > self.t.limits.additive_entries:
                self.gave_up = True
                return (math.inf, 0, math.inf)
            self.layers.append((states, costs))
        return best

    def _back(self, num_stages: int) -> float:
        return self.t.times.back if num_stages > 1 else self.t.times.lone_back

    def _next(self, states: Any, costs: Any) -> tuple[Any, Any]:
        """All states with one more node."""
        pieces, targets = [], []
        for c, size in enumerate(self.t.size):
            rows = np.flatnonzero(states // self.strides[c] % (size + 1) < size)
            if len(rows):
                least = self.windows[c].least(costs[rows] - self.prefix[c])
                pieces.append(least + self.after[c])
                targets.append(states[rows] + self.strides[c])
        if not pieces:
            return np.zeros(0, dtype=np.int64), np.zeros((0, self.n + 1))
        after, index = np.unique(np.concatenate(targets), return_inverse=True)
        merged = np.full((len(after), self.n + 1), np.inf)
        at = 0
        for piece in pieces:
            where = index[at : at + len(piece)]
            merged[where] = np.minimum(merged[where], piece)
            at += len(piece)
        return after, merged

    def _keys(self, states: Any, trips: Any) -> Any:
        if not self.priced:
            return trips
        with np.errstate(invalid="ignore"):
            keys = self._sum(states, self.t.price) * trips
        return np.where(np.isfinite(trips), keys, np.inf)

    def _sum(self, states: Any, each: Any) -> Any:
        """[state] sum of a figure of each node in use."""
        digits = [states // stride % (size + 1) for stride, size in zip(self.strides, self.t.size, strict=True)]
        return sum((digit * figure for digit, figure in zip(digits, each, strict=True)), np.zeros(len(states)))

    def _prune(self, states: Any, costs: Any, best: float) -> tuple[Any, Any]:
        """Drop what can lead to no plan as good as the best; the bound is lowered by its rounding, so that ties survive."""
        hopes = self._hopes(states, costs)
        if not self.priced:
            costs = np.where(hopes <= best, costs, np.inf)
        keep = np.isfinite(costs).any(axis=1) if best == math.inf else self._keys(states, hopes.min(axis=1)) <= best
        return states[keep], costs[keep]

    def _hopes(self, states: Any, costs: Any) -> Any:
        """[state, position] a lower bound of every plan that goes on from there."""
        hopes = costs + self.rest
        if self.dual is not None:
            np.maximum(hopes, costs + self.dual.rest + self._sum(states, self.dual.charge)[:, None], out=hopes)
            hopes[:, self.n] = costs[:, self.n]
        return hopes * (1 - 1e-12)

    # ------------------------------------------------------------------------------------------------ back again
    def _trip(self, best: tuple[float, int, float]) -> Trip:
        """Of all chains that attain the best key, one with the least bottleneck."""
        self.traced: dict[tuple[int, int, int], tuple[float, Chain]] = {}
        self.complete = True
        found: Trip | None = None
        for count, (states, costs) in enumerate(self.layers[self.stages[0] :], self.stages[0]):
            equal = (self._keys(states, costs[:, self.n]) == best[0]) & (
                not self.priced or (count == best[1]) & (costs[:, self.n] == best[2])
            )
            for row in np.flatnonzero(equal).tolist():
                trip_s = float(costs[row, self.n])
                bottleneck_s, chain = self._least_bottleneck(count, int(states[row]), self.n, trip_s - self._back(count))
                if found is None or bottleneck_s < found.bottleneck_s:
                    found = Trip(trip_s, bottleneck_s, count, chain, True)
        assert found is not None, "the best key is in a layer"  # noqa: S101  an invariant, not validation
        return replace(found, ties_searched=self.complete)

    def _least_bottleneck(self, count: int, state: int, stop: int, cost_s: float) -> tuple[float, Chain]:
        if count == 0:
            return 0.0, ()
        key = (count, state, stop)
        if key not in self.traced:
            best: tuple[float, Chain] = (math.inf, ())
            for c, start, before, before_s in self._ways(count, state, stop, cost_s):
                if len(self.traced) > self.t.limits.additive_traced and best[0] < math.inf:
                    self.complete = False
                    break
                bottleneck_s, chain = self._least_bottleneck(count - 1, before, start, before_s)
                time_s, held_s = self.t.times.stage_s(c, start, stop), float(self.held[stop])
                stage_s = max(bottleneck_s, time_s + held_s if self.t.times.additive else max(time_s, held_s))
                if stage_s < best[0]:
                    best = (stage_s, (*chain, (c, start, stop)))
            self.traced[key] = best
        return self.traced[key]

    def _ways(self, count: int, state: int, stop: int, cost_s: float) -> Any:
        """(class, start, state before, its cost) of the last stages that attain this cost exactly."""
        states, costs = self.layers[count - 1]
        for c, (size, stride) in enumerate(zip(self.t.size, self.strides, strict=True)):
            if not state // stride % (size + 1):
                continue
            row = int(np.searchsorted(states, state - stride))
            if row == len(states) or states[row] != state - stride:
                continue
            low = stop if self.windows[c].shut[stop] else int(self.windows[c].low[stop])
            starts = np.arange(low, stop)
            total = costs[row, low:stop] - self.prefix[c][low:stop] + self.after[c][stop]
            for start in starts[total == cost_s].tolist():
                yield c, start, state - stride, float(costs[row, start])


def shortest(
    tables: Tables, work: Work, bound_s: float = math.inf, priced: bool = False, stages: tuple[int, int] = ANY_NUMBER
) -> Trip | None:
    """The best chain; where it would take too much memory to find it, `work` is given up."""
    search = Shortest(tables, bound_s, priced, stages=stages)
    best = search.best()
    if search.gave_up:
        work.give_up()
    return best


def shortest_period(tables: Tables, work: Work, in_flight: int, low_s: float, stages: tuple[int, int] = ANY_NUMBER) -> Trip | None:
    """The chain of least max(bottleneck, round trip / in_flight), then of least bottleneck; no bottleneck is below `low_s`.

    The least round trip within a bottleneck T falls as T grows, so the best period lies where the two meet.
    """
    best = shortest(tables, work, stages=stages)
    if best is None:
        return None

    def key(trip: Trip) -> tuple[float, float]:
        return max(trip.bottleneck_s, trip.round_trip_s / in_flight), trip.bottleneck_s

    low, high = (low_s, best.bottleneck_s) if best.bottleneck_s > best.round_trip_s / in_flight else (0.0, 0.0)
    halve = False
    while low < high:  # a better chain has its bottleneck in [low, high)
        bound_s, halve = tables.times.grid.between(low, high) if halve else high - tables.times.grid.tick, not halve
        trip = shortest(tables, work, bound_s, stages=stages)
        if work.is_spent:
            break
        if trip is not None:
            best = min(best, trip, key=key)
        if trip is None or trip.round_trip_s / in_flight >= trip.bottleneck_s:
            low = bound_s + tables.times.grid.tick
        else:
            high = trip.bottleneck_s
    return best
