"""bottleneck_first on regular problems: fix the slowest stage, then make the next-slowest one fast, and so on.

A stage that every plan within the optimal bottleneck contains is fixed, and the search goes on with the other nodes around
it, over those sets of nodes only that lie on some plan within the optimum: usually few. Where a slowest stage can be
avoided by another one of the same cost, the label search decides between them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.planning.bounds import least_bottleneck
from engine.planning.reach import Reach, alive
from engine.planning.regular import Regular
from engine.planning.states import Space, strides_of, whole_space
from engine.planning.tables import Chain, Tables

RESTRICT = 64  # states; fewer are not worth choosing from


class Descent:
    """The search for one problem; `chain` and `bottleneck_s` hold the best plan so far."""

    def __init__(self, tables: Tables) -> None:
        self.t = tables
        self.space = whole_space(tables.size)
        self.states: Any = self.space.states
        self.chain: Chain = ()
        self.bottleneck_s = 0.0

    def bottleneck(self) -> bool:
        """Find the smallest bottleneck; False if nothing is feasible."""
        reach = Reach(Regular(self.t), self.space)
        opened = first_chain(reach, least_bottleneck(self.t))
        if opened is None:
            return False
        low_s, chain = opened
        if len(self.states) > RESTRICT:
            self.states = alive(self.t, self.space, reach.cost_s(chain))
            reach = Reach(reach.r, Space(self.space.sizes, self.states))
        self.bottleneck_s, self.chain = reach.smallest(low_s, chain)
        return True

    def decide_rest(self) -> bool:
        """Make the next-slowest stages fast, level by level; False if several stages of one cost leave it open."""
        fixed: Chain = ()
        free, cost_s = self.chain, self.bottleneck_s
        if len(self.states) > RESTRICT:
            self.states = alive(self.t, self.space, cost_s)
        reach = Reach(Regular(self.t), Space(self.space.sizes, self.states))
        while free:
            slowest = [stage for stage in free if reach.r.cost_s(*stage) == cost_s]
            if not all(reach.needs(stage, cost_s) for stage in slowest):
                return False
            fixed = (*fixed, *slowest)
            free = tuple(stage for stage in free if stage not in slowest)
            reach = self._around(fixed)
            cost_s, free = reach.smallest(0.0, free)
            self.chain = tuple(sorted((*fixed, *free), key=lambda stage: stage[1]))
        return True

    def _around(self, fixed: Chain) -> Reach:
        """The search over the nodes that are left, beside the fixed stages.

        A set of free nodes may stand before, between or after fixed stages; it is kept if it is alive in one of these places.
        """
        sizes = list(self.t.size)
        taken = np.zeros(len(sizes), dtype=np.int32)
        kept = []
        for stage in (None, *sorted(fixed, key=lambda stage: stage[1])):
            if stage is not None:
                taken[stage[0]] += 1
                sizes[stage[0]] -= 1
            kept.append(self._without(taken))
        small, _ = strides_of(tuple(sizes))
        numbers = []
        for digits in kept:
            usable = digits[:, (digits <= np.array(sizes)[:, None]).all(axis=0)]
            numbers.append(np.array(small) @ usable)
        return Reach(Regular(self.t, fixed), Space(tuple(sizes), np.unique(np.concatenate(numbers))))

    def _without(self, taken: Any) -> Any:
        """[class, state] counts of the alive states that hold the taken nodes, less these."""
        strides, _ = strides_of(self.t.size)
        digits = np.stack([self.states // stride % (size + 1) for stride, size in zip(strides, self.t.size, strict=True)])
        left = digits - taken[:, None]
        return left[:, (left >= 0).all(axis=0)]


def first_chain(reach: Reach, bound_s: float) -> tuple[float, Chain] | None:
    """(a bound that no chain is below, a chain): try bounds from `bound_s` upwards, in growing steps."""
    low_s, factor = bound_s, 1.02
    for _ in range(12 if bound_s > 0 else 0):
        probe = reach.probe(bound_s * factor)
        if probe.chain is not None:
            return low_s, probe.chain
        low_s, factor = max(probe.next_s, bound_s * factor), 1 + (factor - 1) * 2
    t = reach.r.t
    everything_s = max([row[-1] for row in t.prefix] + [x for row in t.table for x in row if x < float("inf")]) + reach.r.largest_hop_s
    chain = reach.probe(everything_s).chain
    return None if chain is None else (low_s, chain)
