"""Kernel 1, threshold search: the smallest bottleneck of a regular problem, over all orders, subsets and cuts.

One number describes a set of used nodes within a bottleneck T: the furthest position it can reach,
f(S + c) = furthest stop of class c from f(S). A failed probe also tells the smallest cost above T at which any of its
steps would come out differently; nothing in between can succeed. So the search bisects between that and the cost of the
best chain found, both of them realised costs, and ends when they meet (the exact bisection of Pinar and Aykanat, "Fast
optimal load balancing algorithms for 1D partitioning", JPDC 2004, carried over to subsets of unlike nodes).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.planning.solving.tables import Chain, Tables
from engine.planning.solving.thresholds.node_sets import Space, part, whole_space
from engine.planning.solving.thresholds.regular import Arrays, Regular

LIFTS = 8
CLOSE = 0.02  # of a cost: so near to the bound, the best chain may well be the optimum


@dataclass(frozen=True, slots=True)
class Probe:
    """Either a chain within the bound, or the next bound that is worth trying."""

    chain: Chain | None
    next_cost: float


class Reach:
    """Probes of one regular problem over the states of `space`. A bound is whatever the stages' costs are."""

    def __init__(self, regular: Regular, space: Space) -> None:
        self.r, self.space = regular, space
        self._arrays: Arrays | None = None

    def arrays(self) -> Arrays:
        if self._arrays is None:
            self._arrays = self.r.arrays()
        return self._arrays

    def probe(self, bound: float) -> Probe:
        """Whether any chain keeps within `bound`."""
        if self.r.begin == self.r.n:
            return Probe((), math.inf)
        return self._probe_one(bound) if self.space.small else self._probe_all(bound)

    def needs(self, stage: tuple[int, int, int], bound: float) -> bool:
        """Whether every chain within `bound` contains this stage, which costs that, or a little less, as no chain costs less."""
        c, start, stop = stage
        if start > self.r.begin and self.r.furthest(c, start - 1, bound) >= stop:
            return False  # a longer stage costs the same: there may be another way
        shorter = self._before(stage, bound)
        if self.space.small:
            onward = self._onward({(c, start): self.r.jump[shorter]}, bound)
            return self.space.reach_one(onward, self.r.begin, self.r.n)[-1] < self.r.n
        arrays = self.arrays()
        stops = arrays.furthest(bound)
        if self._is_alone(stage, shorter, stops):
            return True
        there = arrays.onward(stops)
        there[c, start] = self.r.jump[shorter]
        return int(self.space.reach_all(there, self.r.begin, self.r.n).max()) < self.r.n

    def _is_alone(self, stage: tuple[int, int, int], shorter: int, stops: Any) -> bool:
        """Whether nothing else becomes possible at `bound`: without the stage, every step is one below its cost, where no chain is."""
        (c, start, _), cost = stage, self.r.cost(*stage)
        changed = np.argwhere(stops[self.space.live] != self.arrays().furthest(self.r.below(cost))[self.space.live])
        alone = len(changed) == 1 and (self.space.live[changed[0][0]], changed[0][1]) == (c, start)
        return alone and (shorter == start or self.r.cost(c, start, shorter) < cost)

    def smallest(self, low: float, chain: Chain) -> tuple[float, Chain]:
        """The smallest cost of a chain, and a chain that has it; no chain is below `low`, and `chain` is a valid one.

        The first bound is just below the known cost: often that one cannot be bettered, and then one probe proves it. Then
        steps grow while they succeed, up to halving; near the end, where one fails, the next is just below the best cost again.
        """
        high, tight = self.cost(chain), True
        step = high / 64
        while low < high:
            bound = self.r.below(high) if tight else max(self.r.halfway(low, high), self.r.halfway(high - 2 * step, high))
            low, high, chain, succeeded = self._closer(low, high, chain, bound)
            step *= 4 if succeeded and not tight else 1
            tight = not tight and not succeeded and high - low < CLOSE * high
        return high, chain

    def lift(self, low: float, high: float) -> float:
        """A higher bound than `low` that no chain is below: within it, the longest stages of all nodes are too few items."""
        if self.space.num_states < self.space.limits.many:
            return low
        sizes = np.array(self.space.sizes)
        rest = self.r.n - sum(stop - start for _, start, stop in self.r.fixed)
        for _ in range(LIFTS):
            bound = self.r.halfway(low, high)
            if low >= bound:
                break
            stops = self.arrays().furthest(bound)[:, :-1]
            if int((stops - self.arrays().steps).max(axis=1) @ sizes) < rest:
                low = self.r.above(bound)
            else:
                high = bound
        return low

    def near(self, low: float, chain: Chain, factor: float) -> tuple[float, Chain]:
        """(low, chain): no chain is below the low returned, and the chain returned is within `factor` of it, by halving."""
        high = self.cost(chain)
        while low * factor < high:
            low, high, chain, _ = self._closer(low, high, chain, self.r.halfway(low, high))
        return low, chain

    def _closer(self, low: float, high: float, chain: Chain, bound: float) -> tuple[float, float, Chain, bool]:
        probe = self.probe(bound)
        if probe.chain is None:
            return max(probe.next_cost, self.r.above(bound)), high, chain, False
        return low, self.cost(probe.chain), probe.chain, True

    def cost(self, chain: Chain) -> float:
        return max((self.r.cost(*stage) for stage in chain), default=0.0)

    def _onward(self, memo: dict[tuple[int, int], int], bound: float) -> Callable[[int, int], int]:
        furthest, jump = self.r.furthest, self.r.jump

        def onward(c: int, start: int) -> int:
            there = memo.get((c, start))
            if there is None:
                there = memo[c, start] = jump[furthest(c, start, bound)]
            return there

        return onward

    def _probe_one(self, bound: float) -> Probe:
        r = self.r
        memo: dict[tuple[int, int], int] = {}
        onward = self._onward(memo, bound)
        position = self.space.reach_one(onward, r.begin, r.n)
        if position[-1] >= r.n:
            return Probe(self._trace(position, onward, bound), bound)
        return Probe(None, min([r.next_hop(bound), *(r.next_cost(c, start, bound) for c, start in memo)]))

    def _probe_all(self, bound: float) -> Probe:
        r, arrays = self.r, self.arrays()
        stops = arrays.furthest(bound)
        onward = arrays.onward(stops)
        position = self.space.reach_all(onward, r.begin, r.n)
        if position.max() >= r.n:
            reached = position[: int((position >= r.n).argmax()) + 1]
            return Probe(self._trace(reached, lambda c, start: int(onward[c, start]), bound), bound)
        seen = np.flatnonzero(np.bincount(position, minlength=r.n + 1))
        return Probe(None, min(r.next_hop(bound), arrays.next_cost(bound, self.space.live, seen)))

    def _before(self, stage: tuple[int, int, int], bound: float) -> int:
        """The furthest stop within the bound short of the stage's own."""
        _, start, stop = stage
        held = self.r.t.times.held
        while stop - 1 > start and not self.r.t.times.additive and held[stop - 1] > bound:
            stop -= 1
        return stop - 1

    def _trace(self, position: Any, onward: Any, bound: float) -> Chain:
        """The stages behind the last position, on the shortest way back."""
        space, stages, i = self.space, [], len(position) - 1
        here = int(position[i])
        while here > self.r.begin:
            befores = space.before[:, i].tolist()
            starts = [position[before] if before < space.num_states else -1 for before in befores]
            for c, before, start in zip(space.live, befores, starts, strict=True):
                if start >= 0 and onward(c, start) == here:
                    if start < here:
                        stages.append((c, int(start), self.r.furthest(c, int(start), bound)))
                    i, here = before, int(start)
                    break
        return tuple(reversed(stages))


def alive(regular: Regular, space: Space, bound_s: float) -> Any:
    """The states that lie on a chain within `bound_s`: what their nodes reach, the other nodes can go on from."""
    arrays = regular.arrays()
    forward = _positions(space, arrays.onward(arrays.furthest(bound_s)), regular.begin)
    return space.states[forward >= _needed(arrays, space, bound_s)]


def earliest(tables: Tables, bound_s: float) -> list[int]:
    """[state] -> how far its nodes must have come, so that the others can cover the rest within `bound_s`."""
    space = whole_space(tables.size, tables.limits.threshold)
    needed = np.empty(space.total, dtype=np.int32)
    needed[space.states] = _needed(Regular(tables).arrays(), space, bound_s)
    return needed.tolist()


def _needed(arrays: Arrays, space: Space, bound_s: float) -> Any:
    """The same in the order of the space's states: the furthest that the other nodes reach from the end backwards."""
    n, others = arrays.n, space.total - 1 - space.states
    back = np.arange(n + 1)  # [position] -> where a chain that ends there was before a fixed stage
    for _, start, stop in arrays.r.fixed:
        back[stop] = back[start]
    mirrored = np.zeros((len(space.sizes), n + 2), dtype=np.int32)
    mirrored[:, :-1] = n - back[arrays.nearest(bound_s)][:, ::-1]
    behind = space if space.whole else part(space.sizes, others, space.limits)
    return n - _positions(behind, mirrored, int(n - back[n]))[behind.where[others]]


def _positions(space: Space, onward: Any, begin: int) -> Any:
    if not space.small:
        return space.reach_all(onward, begin, onward.shape[1])
    rows = onward.tolist()
    return np.array(space.reach_one(lambda c, start: rows[c][start], begin, onward.shape[1]))
