"""A grid of numbers on which sums are exact in float64, whatever their order."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Grid:
    """Multiples of `tick`, a power of two; a tick of 0 is no grid: every number stays as it is."""

    tick: float = 0.0
    shift: float = 0.0  # rounds to the grid when it is added and taken away again

    @classmethod
    def of_tick(cls, tick: float) -> Grid:
        """For numbers up to 2^51 ticks."""
        return cls(tick, 1.5 * 2.0**52 * tick)

    @classmethod
    def up_to(cls, total: float, power: int = 1) -> Grid:
        """The finest on which sums up to total^power need no more than 52 bits."""
        tick = math.ldexp(1.0, max(-1000, power * math.frexp(total)[1] - 51))
        return cls.of_tick(tick)

    def rounded(self, value: float) -> float:
        """The nearest number of the grid; inf stays."""
        return value + self.shift - self.shift if value < math.inf else value

    def below(self, value: float) -> float:
        """The last number of the grid that is not above `value`."""
        near = value + self.shift - self.shift
        return near if near <= value else near - self.tick

    def between(self, low: float, high: float) -> float:
        """One about half way, below `high` (which is on the grid), not below the grid at `low`."""
        middle = low + (high - low) / 2 + self.shift - self.shift
        return min(middle, high - self.tick)
