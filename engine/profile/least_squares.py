"""Non-negative least squares for a handful of unknowns, in plain Python.

C. L. Lawson, R. J. Hanson: Solving Least Squares Problems (1974), chapter 23, on the normal equations with scaled
columns. A cost model has up to a dozen unknowns, for which this takes well under a millisecond and needs no library.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

_RIDGE = 1e-12  # of the scaled diagonal: two columns that tell the same story share it instead of dividing by zero
_TOLERANCE = 1e-11


def non_negative(rows: Sequence[Sequence[float]], targets: Sequence[float]) -> tuple[float, ...]:
    """The x >= 0 that minimises |rows x - targets|. A column of zeros gets 0."""
    num = len(rows[0]) if rows else 0
    scale = [math.sqrt(math.fsum(row[j] ** 2 for row in rows)) or 1.0 for j in range(num)]
    scaled = [[row[j] / scale[j] for j in range(num)] for row in rows]
    gram = [[math.fsum(row[i] * row[j] for row in scaled) + (_RIDGE if i == j else 0.0) for j in range(num)] for i in range(num)]
    right = [math.fsum(row[j] * target for row, target in zip(scaled, targets, strict=True)) for j in range(num)]
    found = _lawson_hanson(gram, right)
    return tuple(value / factor for value, factor in zip(found, scale, strict=True))


def _lawson_hanson(gram: list[list[float]], right: list[float]) -> list[float]:
    num = len(right)
    x, free = [0.0] * num, [False] * num
    limit = _TOLERANCE * max((abs(value) for value in right), default=0.0)
    for _ in range(4 * num + 4):  # the active set changes a few times; the bound only guards against rounding
        slope = [right[j] - math.fsum(gram[j][k] * x[k] for k in range(num)) for j in range(num)]
        entering = max((j for j in range(num) if not free[j]), key=lambda j: slope[j], default=None)
        if entering is None or slope[entering] <= limit:
            break
        free[entering] = True
        x = _walk_inside(gram, right, x, free)
    return x


def _walk_inside(gram: list[list[float]], right: list[float], x: list[float], free: list[bool]) -> list[float]:
    """Towards the solution over the free unknowns, dropping those that reach zero on the way."""
    for _ in range(len(x)):
        wanted = _solve_free(gram, right, free)
        leaving = [j for j in range(len(x)) if free[j] and wanted[j] <= 0.0]
        if not leaving:
            return wanted
        step = min(x[j] / (x[j] - wanted[j]) if x[j] > wanted[j] else 0.0 for j in leaving)
        x = [value + step * (goal - value) for value, goal in zip(x, wanted, strict=True)]
        for j in leaving:
            if x[j] <= 1e-15:
                free[j], x[j] = False, 0.0
    return x


def _solve_free(gram: list[list[float]], right: list[float], free: list[bool]) -> list[float]:
    """Cholesky over the free unknowns; the others are zero."""
    index = [j for j, is_free in enumerate(free) if is_free]
    lower: list[list[float]] = []
    for i, row in enumerate(index):
        lower.append([0.0] * (i + 1))
        for k in range(i):
            rest = math.fsum(lower[i][m] * lower[k][m] for m in range(k))
            lower[i][k] = (gram[row][index[k]] - rest) / lower[k][k]
        lower[i][i] = math.sqrt(max(gram[row][row] - math.fsum(value**2 for value in lower[i][:i]), _RIDGE))
    forward: list[float] = []
    for i, row in enumerate(index):
        forward.append((right[row] - math.fsum(lower[i][k] * forward[k] for k in range(i))) / lower[i][i])
    back = [0.0] * len(index)
    for i in reversed(range(len(index))):
        back[i] = (forward[i] - math.fsum(lower[k][i] * back[k] for k in range(i + 1, len(index)))) / lower[i][i]
    solution = [0.0] * len(free)
    for j, value in zip(index, back, strict=True):
        solution[j] = value
    return solution
