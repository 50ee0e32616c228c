"""How a step grows with its rows, where no cost model says it: as many times one row's time as was measured at some numbers of rows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from engine.data.errors import InvalidInput
from engine.profile.cost_model import work_s


@dataclass(frozen=True, slots=True)
class RowLaw:
    """A step of `rows[k]` rows takes `factors[k]` times the time of one; rows that nobody measured cost nothing.

    Where recorded steps make a staircase, both ends of each stair were measured. Raises InvalidInput for factors that cannot be.
    """

    rows: tuple[int, ...] = (1,)
    factors: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        rising = self.rows[:1] == (1,) and all(a < b for a, b in pairwise(self.rows))
        if not rising or len(self.rows) != len(self.factors) or not all(1.0 <= f < math.inf for f in self.factors):
            raise InvalidInput(f"{self.factors[:8]} times for {self.rows[:8]} rows cannot be: rows rise from 1, factors are 1 or more")

    @classmethod
    def of_share(cls, share: float) -> RowLaw:
        """Each row beyond the first takes the share 0..1 of it."""
        return cls((1, 2), (1.0, 1.0 + share)) if share > 0.0 else cls()

    @classmethod
    def measured(cls, seconds: dict[int, float]) -> RowLaw:
        """From the time of a step by its rows, one among them. More rows never take less, and never more than steps of their own."""
        rows = sorted(seconds)
        factors = [1.0]
        for before, count in pairwise(rows):
            factors.append(min(max(factors[-1], seconds[count] / seconds[rows[0]]), factors[-1] + count - before))
        return cls(tuple(rows), tuple(factors))

    def factor(self, rows: float) -> float:
        """For any number of rows, 1 or more."""
        return work_s(self.factors, self.rows, rows) if len(self.rows) > 1 else self.factors[0]

    @property
    def share(self) -> float:
        """What each row beyond the first takes of it on average over the first few, 0..1: for those who know no more."""
        few = min(4, self.rows[-1])
        return min(1.0, (self.factor(few) - 1.0) / (few - 1)) if few > 1 else 0.0
