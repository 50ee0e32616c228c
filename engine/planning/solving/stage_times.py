"""The times of a problem as the solvers read them: of stages and of hops, on one grid.

Every time is rounded to one grid, a power of two fine enough that no sum of times needs more than 52 bits: sums and
differences are then exact in float64 whatever their order, so equal costs compare equal and a search can end on realised
values instead of at a tolerance. The rounding is below 2^-51 of the largest sum; a plan's figures are computed from the
problem's own numbers (solution.evaluate), and rounding.py says what the grid can have hidden. `Reading` says what
counts as less, so that the grid is finer, or that there is no grid: then each sum is rounded by less than 2^-52 of itself, which
suffices for the label search, as it only adds and compares.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

from engine.planning.problem import ADDITIVE, STREAMED, TOKEN_ID_BYTES, Link, PlanningNode, Problem
from engine.planning.solving.grid import Grid
from engine.planning.solving.structure import has_equal_links, nodes_of


@dataclass(frozen=True, slots=True)
class Reading:
    """How the numbers of a problem are read. What is above a ceiling counts as the ceiling: no plan as good as a known one has it.

    `most_s` bounds what a stage is made of, and is no less than `least_s`; where `price_floor` is given it is a price instead, to be
    divided by that of the node, which counts as no less than the floor.
    """

    most_s: float = math.inf
    most_hop_s: float = math.inf
    most_back_s: float = math.inf
    least_s: float = 0.0
    price_floor: float | None = None
    has_grid: bool = True

    def most_on(self, node: PlanningNode) -> float:
        """The ceiling of times on a node."""
        price = 1.0 if self.price_floor is None else max(node.price_per_s, self.price_floor)
        return max(self.most_s / price, self.least_s)


PLAIN = Reading()


class StageTimes:
    """Read-only after construction; indices are classes of equal nodes unless a name says node."""

    def __init__(self, problem: Problem, classes: Sequence[Sequence[int]], reading: Reading) -> None:
        self.problem, self.reading, self.classes = problem, reading, classes
        self.n = len(problem.items)
        self.additive, self.streamed = problem.link_cost == ADDITIVE, problem.link_cost == STREAMED
        self.uniform = has_equal_links(problem)
        nodes = [problem.nodes[members[0]] for members in classes]
        most_s = [reading.most_on(node) for node in nodes]
        plain = [[min(t, most) if t < math.inf else 0.0 for t in n.time_s] for n, most in zip(nodes, most_s, strict=True)]
        most_trip_s = [max(most, reading.most_back_s) for most in most_s]
        trips = [[min(t, most) if t < math.inf else 0.0 for t in n.trip_time_s] for n, most in zip(nodes, most_trip_s, strict=True)]
        tables = [[min(t, most) if t < math.inf else t for t in n.stage_time_s] for n, most in zip(nodes, most_s, strict=True)]
        bases = [min(node.base_s, most) for node, most in zip(nodes, most_s, strict=True)]
        hops, back = self._hop_times()
        back = min(back, reading.most_back_s)
        sizes = [len(members) for members in classes]
        longest = [max((t for t in table if t < math.inf), default=0.0) for table in tables]
        total = sum(max(sum(times), sum(trip)) for times, trip in zip(plain, trips, strict=True)) + sum(
            t * k for t, k in zip(longest, sizes, strict=True)
        )
        total += (max(hops) + back + max(bases, default=0.0)) * sum(sizes)
        self.grid = Grid.up_to(total) if reading.has_grid else Grid()
        self.squares = Grid.up_to(total, 2) if reading.has_grid else Grid()
        rounded = self.grid.rounded
        self.prefix = [list(accumulate(map(rounded, times), initial=0.0)) for times in plain]  # [class][item] up to it
        # The same of round trips, in which items can take longer: those of the largest step.
        self.trip_prefix = [
            list(accumulate(map(rounded, trip), initial=0.0)) if trip else row for trip, row in zip(trips, self.prefix, strict=True)
        ]
        self.base, self.hop = [rounded(b) for b in bases], [rounded(h) for h in hops]
        self.held = [rounded(h) for h in self._held_times()] if self.streamed and self.uniform else self.hop  # of a hop, in a stage's cost
        self.table = [[rounded(t) for t in times] for times in tables]  # [class][items - 1] of whole stages; else empty
        self.back = rounded(back)
        self.lone_back = self.back if self.uniform and problem.coordinator else 0.0  # of a chain of one stage
        self._costs: dict[tuple[int, int, int], float] = {}

    def _hop_times(self) -> tuple[list[float], float]:
        if not self.uniform:
            return self._pair_times()
        link = self.problem.links
        assert isinstance(link, Link)  # noqa: S101  for the type checker
        sizes = [item.output_bytes_per_token for item in self.problem.items]
        sent = [self._hop_s(link, sizes[b - 1]) for b in range(1, self.n)]
        return [0.0, *sent, 0.0], self.problem.return_s(-1, 0)

    def _held_times(self) -> list[float]:
        link = self.problem.links
        assert isinstance(link, Link)  # noqa: S101  for the type checker
        share = self.problem.held_share
        held = [min(link.held_s(item.output_bytes_per_token * share), self.reading.most_hop_s) for item in self.problem.items[:-1]]
        return [0.0, *held, 0.0]

    def _hop_s(self, link: Link, num_bytes: float) -> float:
        return min(link.transfer_s(num_bytes), self.reading.most_hop_s)

    def _pair_times(self) -> tuple[list[float], float]:
        problem = self.problem
        largest = max(TOKEN_ID_BYTES, *(item.output_bytes_per_token for item in problem.items))
        self._link = {(u, v): problem.link(u, v) for u in nodes_of(problem) for v in nodes_of(problem) if u != v}
        ends = [problem.ends_s(u) for u in nodes_of(problem)]
        back = max((end[1] for end in ends), default=0.0) + max((end[0] for end in ends), default=0.0)
        return [max((self._hop_s(x, largest) for x in self._link.values() if x), default=0.0)], back

    def square(self, time_s: float) -> float:
        """time_s squared, on a grid of its own so that sums of squares are exact."""
        return self.squares.rounded(time_s * time_s)

    def stage_s(self, c: int, start: int, stop: int) -> float:
        if self.table[c]:
            return self.table[c][stop - start - 1] if stop - start <= len(self.table[c]) else math.inf
        if not self.reading.has_grid:
            return self.problem.stage_s(self.classes[c][0], start, stop)
        return self.prefix[c][stop] - self.prefix[c][start] + self.base[c]

    def trip_s(self, c: int, start: int, stop: int) -> float:
        """What a stage that is allowed adds to a round trip, beside its hop."""
        if self.table[c]:
            return self.stage_s(c, start, stop)
        if not self.reading.has_grid:
            return self.problem.trip_s(self.classes[c][0], start, stop)
        return self.trip_prefix[c][stop] - self.trip_prefix[c][start] + self.base[c]

    def stage_cost_s(self, stage: tuple[int, int, int]) -> float:
        """A stage's share of the bottleneck, with uniform links."""
        if stage not in self._costs:
            c, start, stop = stage
            time_s, held_s = self.stage_s(c, start, stop), self.held[stop]
            self._costs[stage] = time_s + held_s if self.additive else max(time_s, held_s)
        return self._costs[stage]

    def pair_hop(self, c: int, d: int, cut: int) -> float:
        """Hop from a node of class c to one of class d after item cut - 1; inf if not connected."""
        if self.uniform:
            return self.hop[cut]
        link = self._link[self._ends(c, d)]
        return math.inf if link is None else self.grid.rounded(self._hop_s(link, self.problem.items[cut - 1].output_bytes_per_token))

    def pair_held(self, c: int, d: int, cut: int) -> float:
        """What that hop adds to the cost of the stage before it."""
        if self.uniform:
            return self.held[cut]
        link = self._link[self._ends(c, d)]
        if not self.streamed or link is None:
            return self.pair_hop(c, d, cut)
        num_bytes = self.problem.items[cut - 1].output_bytes_per_token * self.problem.held_share
        return self.grid.rounded(min(link.held_s(num_bytes), self.reading.most_hop_s))

    def pair_back(self, last: int, first: int) -> float:
        """Return hop of a chain of two or more stages; with coordinator links, of any."""
        if self.uniform or not self.problem.return_hop:
            return self.back if self.problem.return_hop else 0.0
        ends = (self.classes[last][0], self.classes[first][0]) if self.problem.coordinator else self._ends(last, first)
        seconds = self.problem.return_s(*ends)
        return self.grid.rounded(min(seconds, self.reading.most_back_s)) if seconds < math.inf else seconds

    def _ends(self, c: int, d: int) -> tuple[int, int]:
        return (self.classes[c][0], self.classes[d][0]) if c != d else (self.classes[c][0], self.classes[c][1])

    @cached_property
    def prefix_array(self) -> Any:
        """A row of `prefix` per class."""
        import numpy as np

        return [np.array(row) for row in self.prefix]

    @cached_property
    def hop_array(self) -> Any:
        import numpy as np

        return np.array(self.hop)

    @cached_property
    def held_array(self) -> Any:
        import numpy as np

        return np.array(self.held)
