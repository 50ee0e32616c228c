"""Lower bounds that hold for every placement of a problem, whatever its order."""

from __future__ import annotations

import numpy as np

from engine.planning.reach import Regular


def least_bottleneck(regular: Regular) -> float:
    """No chain has a smaller bottleneck: weigh item i by w_i, then node u moves at most T * max_i(w_i / t[u, i]) in time T.

    Any weights give a bound; the mean time over nodes makes it tight when nodes differ by a factor only. 0 with stage tables.
    """
    t = regular.t
    if any(t.table):
        return 0.0
    times = np.diff(regular.prefix, axis=1)
    weights = times.mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        speeds = np.where(weights > 0, weights / times, 0.0).max(axis=1)
    total = float((speeds * np.array(t.size)).sum())
    return float(weights.sum()) / total if np.isfinite(total) and total > 0 else 0.0
