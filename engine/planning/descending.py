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
        if len(self.states) > RESTRICT:
            self.states = alive(self.t, self.space, self.bottleneck_s)
        fixed: Chain = ()
        free, cost_s = self.chain, self.bottleneck_s
        space = Space(self.space.sizes, self.states)
        reach = Reach(Regular(self.t), space)
        while free:
            slowest = [stage for stage in free if reach.r.cost_s(*stage) == cost_s]
            if not all(reach.needs(stage, cost_s) for stage in slowest):
                return False
            fixed = (*fixed, *slowest)
            for c, _, _ in slowest:
                space = _without(space, c)
            reach = Reach(Regular(self.t, fixed), space)
            cost_s, free = reach.smallest(0.0, tuple(stage for stage in free if stage not in slowest))
            self.chain = tuple(sorted((*fixed, *free), key=lambda stage: stage[1]))
        return True


def _without(space: Space, c: int) -> Space:
    """The sets of the other nodes when one of class c is spoken for: those before its stage lack it, those behind hold it."""
    sizes = tuple(size - (k == c) for k, size in enumerate(space.sizes))
    strides, _ = strides_of(sizes)
    digits = [space.states // stride % (size + 1) for stride, size in zip(space.strides, space.sizes, strict=True)]
    number = np.array(strides) @ np.stack(digits)
    before, behind = number[digits[c] <= sizes[c]], number[digits[c] > 0] - strides[c]
    return Space(sizes, np.concatenate([before, behind]))


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
