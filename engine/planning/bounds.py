"""Lower bounds that hold for every placement of a problem, whatever its order."""

from __future__ import annotations

from itertools import pairwise

from engine.planning.tables import Tables

ROUNDING = 1 - 1e-12  # a bound computed with rounding is lowered by this


def least_bottleneck(tables: Tables) -> float:
    """No chain has a smaller bottleneck: weigh item i by w_i, then a node moves at most T * max_i(w_i / t_i) in time T.

    Any weights give a bound; those of the first class make it tight when nodes differ by a factor. 0 with stage tables.
    """
    if any(tables.table):
        return 0.0
    weights = _times(tables, 0)
    speed = 0.0
    for c, size in enumerate(tables.size):
        times = weights if c == 0 else _times(tables, c)
        if any(w > 0 and t <= 0 for w, t in zip(weights, times, strict=True)):
            return 0.0
        speed += size * max((w / t for w, t in zip(weights, times, strict=True) if w > 0), default=0.0)
    return sum(weights) / speed * ROUNDING if speed > 0 else 0.0


def _times(tables: Tables, c: int) -> list[float]:
    row = tables.prefix[c]
    return [b - a for a, b in pairwise(row)]
