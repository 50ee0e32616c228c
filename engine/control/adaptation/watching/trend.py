"""Is a stage getting slower, or faster, all the time? A detector sees that it changed, this sees where it is going.

The slope is the median of the slopes between all pairs of medians (Theil 1950, Sen 1968), which a third of wild ones does not bend.
It counts only if it is beyond doubt, five standard errors of a line's slope, and if each quarter of the window lies beyond the one before
it: noise that wanders turns back within the window, and a single step leaves quarters that are level.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from engine.control.adaptation.watching.change_point import middle

BLOCK_STEPS = 16  # of a median
WINDOWS = (64, 32, 16)  # blocks; the longest that shows a trend tells it best
_STANDARD_ERRORS = 5.0
_LEAST_QUARTER = 0.15  # of the whole rise, that each quarter must bring
_AHEAD = 0.25  # of the window


@dataclass(frozen=True, slots=True)
class Trend:
    """Logarithms of observed / predicted time: `level` now, `per_block` of 16 steps, over the last `num_blocks`."""

    level: float
    per_block: float
    num_blocks: int

    @property
    def weight(self) -> float:
        """How many blocks without a trend would tell the level as well: at its end a line is known half as well as a mean."""
        return self.num_blocks / 4.0

    @property
    def per_step(self) -> float:
        return self.per_block / BLOCK_STEPS

    @property
    def ahead(self) -> float:
        """The level a quarter of the window from now: what went on for so long is expected to go on for a part of it."""
        return self.level + _AHEAD * self.num_blocks * self.per_block


def trend_of(medians: Sequence[float], deviation: float) -> Trend | None:
    """The trend of the last medians, one for each block, whose long-run `deviation` is known; None while there is none beyond doubt."""
    for size in WINDOWS:
        if len(medians) >= size:
            trend = _trend(medians[-size:], deviation)
            if trend is not None:
                return trend
    return None


def _trend(values: Sequence[float], deviation: float) -> Trend | None:
    size = len(values)
    quarters = [middle(values[k * size // 4 : (k + 1) * size // 4]) for k in range(4)]
    rises = [b - a for a, b in pairwise(quarters)]
    least = _LEAST_QUARTER * abs(quarters[3] - quarters[0])
    if not (min(rises) > least or max(rises) < -least):
        return None
    slope = middle((values[j] - values[i]) / (j - i) for i in range(size) for j in range(i + 1, size))
    if abs(slope) <= _STANDARD_ERRORS * deviation * math.sqrt(12.0 / size**3):
        return None
    last = range(3 * size // 4, size)
    return Trend(middle(values[i] + slope * (size - 1 - i) for i in last), slope, size)
