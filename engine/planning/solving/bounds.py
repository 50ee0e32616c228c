"""Lower bounds that hold for every placement of a problem, whatever its order."""

from __future__ import annotations

import math
from itertools import pairwise

from engine.planning.solving.tables import Tables

ROUNDING = 1 - 1e-12  # a bound computed with rounding is lowered by this


def least_bottleneck(tables: Tables) -> float:
    """No chain has a smaller bottleneck: weigh item i by w_i, then a node moves at most (T - base) * max_i(w_i / t_i) in time T.

    Any weights give a bound; those of the first class make it tight when nodes differ by a factor. 0 with stage tables.
    """
    if any(tables.times.table):
        return 0.0
    weights = _times(tables, 0)
    speeds = []
    for c, size in enumerate(tables.size):
        times = weights if c == 0 else _times(tables, c)
        if any(w > 0 and t <= 0 for w, t in zip(weights, times, strict=True)):
            return 0.0
        speeds.append((tables.times.base[c], size * max((w / t for w, t in zip(weights, times, strict=True) if w > 0), default=0.0)))
    speed, least_s, moved = 0.0, math.inf, sum(weights)
    for base_s, more in sorted(speeds):
        if base_s >= least_s:
            break
        speed, moved = speed + more, moved + more * base_s
        least_s = moved / speed if speed > 0 else math.inf
    return least_s * ROUNDING if speed > 0 else 0.0


def _times(tables: Tables, c: int) -> list[float]:
    row = tables.times.prefix[c]
    return [b - a for a, b in pairwise(row)]
