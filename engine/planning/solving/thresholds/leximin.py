"""bottleneck_first on regular problems: fix the slowest stage, then make the next-slowest one fast, and so on.

A stage that every plan within the optimal bottleneck contains is fixed, and the search goes on with the other nodes around
it, over those sets of nodes only that lie on some plan within the optimum: often few. Where a slowest stage can be
avoided by another one of the same cost, but for rounding, the label search decides between them.
"""

from __future__ import annotations

import math

from engine.planning.solving.bounds import least_bottleneck
from engine.planning.solving.rounding import TOLD_APART_BITS
from engine.planning.solving.tables import Chain, Tables
from engine.planning.solving.thresholds.node_sets import MANY, Space, at_most, part, whole_space
from engine.planning.solving.thresholds.regular import Regular
from engine.planning.solving.thresholds.threshold_search import Reach, alive

GROWN = 1.5  # sets without a fixed stage's node can be more than those with it
NEAR = 1.01  # of the bound: close enough to drop the states that lie on no chain within the best cost so far


class Descent:
    """The search for one problem, of chains of `most` stages at most; `chain` and `bottleneck_s` hold the best plan so far.

    Every plan of so many stages is looked at, and once stages are fixed some of more: a chain that is found counts if it is allowed.
    """

    def __init__(self, tables: Tables, most: int = MANY) -> None:
        self.t, self.most = tables, most
        self.space = at_most(whole_space(tables.size, tables.limits.threshold), most)
        self.chain: Chain = ()
        self.bottleneck_s = 0.0

    def bottleneck(self) -> bool:
        """Find the smallest bottleneck; False if nothing is feasible."""
        reach = Reach(Regular(self.t), self.space)
        opened = first_chain(reach, least_bottleneck(self.t))
        if opened is not None:
            self.bottleneck_s, self.chain = self._smallest(reach, *opened)
        return opened is not None

    def between(self, low_s: float, chain: Chain) -> None:
        """Find the smallest bottleneck; no chain is below `low_s`, and `chain` is one."""
        self.bottleneck_s, self.chain = self._smallest(Reach(Regular(self.t), self.space), low_s, chain)

    def _smallest(self, reach: Reach, low_s: float, chain: Chain) -> tuple[float, Chain]:
        if self.space.small:
            return reach.smallest(low_s, chain)
        low_s, chain = reach.near(low_s, chain, NEAR)
        self.space = _within(reach.r, self.space, reach.cost(chain))
        return Reach(reach.r, self.space).smallest(low_s, chain)

    def decide_rest(self) -> bool:
        """Make the next-slowest stages fast, level by level; False if several stages of one cost leave it open."""
        limits = self.t.limits.threshold
        fixed: Chain = ()
        free, cost_s = self.chain, self.bottleneck_s
        reach = Reach(Regular(self.t), self.space)
        # The bound for which the states were cut down, and how many it left; where NEAR the bottleneck most were left, not again at once.
        within_s, left = (cost_s, self.space.num_states) if self.space.whole and self.space.num_states > limits.many else (math.inf, 0)
        while free:
            if cost_s < limits.worth * within_s or reach.space.num_states > max(limits.many, GROWN * left):
                reach = Reach(reach.r, _within(reach.r, reach.space, cost_s))
                within_s, left = cost_s, reach.space.num_states
            space = reach.space
            slowest = [stage for stage in free if reach.r.cost(*stage) == cost_s]
            equal_s = cost_s * (1 + math.ldexp(1.0, -TOLD_APART_BITS))
            if not all(reach.needs(stage, equal_s) for stage in slowest):
                return False
            fixed = (*fixed, *slowest)
            for c, _, _ in slowest:
                space = space.without(c)
            space = at_most(space, self.most - len(fixed))
            reach = Reach(Regular(self.t, fixed), space)
            free = tuple(stage for stage in free if stage not in slowest)
            cost_s, free = reach.smallest(reach.lift(0.0, reach.cost(free)), free)
            self.chain = tuple(sorted((*fixed, *free), key=lambda stage: stage[1]))
        return True


def _within(regular: Regular, space: Space, bound_s: float) -> Space:
    """The states that lie on a chain within the bound; all of them where most do, which spares finding their places."""
    if space.num_states <= space.limits.restrict:
        return space
    states = alive(regular, space, bound_s)
    return space if 2 * len(states) > space.num_states else part(space.sizes, states, space.limits)


def first_chain(reach: Reach, bound_s: float) -> tuple[float, Chain] | None:
    """(a bound that no chain is below, a chain): try bounds from `bound_s` upwards, in growing steps."""
    low_s, factor = reach.lift(bound_s, 3 * bound_s), 1.02
    bound_s = low_s
    for _ in range(6 if bound_s > 0 else 0):
        probe = reach.probe(bound_s * factor)
        if probe.chain is not None:
            return low_s, probe.chain
        low_s, factor = max(probe.next_cost, bound_s * factor), 1 + (factor - 1) * 4
    chain = reach.probe(reach.r.everything_s).chain
    return None if chain is None else (low_s, chain)
