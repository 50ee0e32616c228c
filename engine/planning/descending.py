"""bottleneck_first on regular problems: fix the slowest stage, then make the next-slowest one fast, and so on.

When exactly one allowed stage has the optimal bottleneck as its cost, every optimal plan contains it; it is fixed, and the
search goes on with the other nodes around it. Each level halves the number of node sets, so all levels together cost
about twice the first. Where several stages share the cost, those that no plan within the bound can contain are dropped;
if more than one is left, the label search decides between them.
"""

from __future__ import annotations

from engine.planning.bounds import least_bottleneck
from engine.planning.reach import Reach, Regular
from engine.planning.tables import Chain


def descending(regular: Regular) -> tuple[float, Chain, bool] | None:
    """(bottleneck, chain, whether every level was decided), None if nothing is feasible."""
    reach = Reach(regular)
    opened = first_chain(reach, least_bottleneck(regular))
    if opened is None:
        return None
    low_s, chain = opened
    bottleneck_s, chain = reach.smallest(low_s, chain)
    fixed: Chain = ()
    cost_s = bottleneck_s
    while True:
        stage = _only_one(regular, reach, cost_s)
        if stage is None:
            return bottleneck_s, _whole(fixed, chain), False
        fixed = (*fixed, stage)
        reach = Reach(regular, fixed)
        if reach.covered():
            return bottleneck_s, _whole(fixed, ()), True
        rest = reach.chain(cost_s)
        assert rest is not None, "the stage was in every optimal plan"  # noqa: S101  an invariant, not validation
        cost_s, chain = reach.smallest(0.0, rest)


def first_chain(reach: Reach, bound_s: float) -> tuple[float, Chain] | None:
    """(a cost that is too small or 0, a chain): try bounds from `bound_s` upwards, in growing steps."""
    low_s, factor = 0.0, 1.02
    for _ in range(12):
        chain = reach.chain(bound_s * factor)
        if chain is not None:
            return low_s, chain
        low_s, factor = bound_s * factor, 1 + (factor - 1) * 2
    chain = reach.chain(reach.r.everything_s)
    return None if chain is None else (low_s, chain)


def _only_one(regular: Regular, reach: Reach, cost_s: float) -> tuple[int, int, int] | None:
    stages = regular.equal(cost_s, reach.ends)
    stages = stages and tuple(stage for stage in stages if reach.states.sizes[stage[0]])
    if stages and len(stages) > 1:
        stages = tuple(stage for stage in stages if Reach(regular, (*reach.fixed, stage)).chain(cost_s) is not None)
    return stages[0] if stages and len(stages) == 1 else None


def _whole(fixed: Chain, free: Chain) -> Chain:
    return tuple(sorted((*fixed, *free), key=lambda stage: stage[1]))
