"""The problem as the solvers read it: exact sums, the stages that are allowed, classes of equal nodes.

A stage [start, stop) on class c is allowed iff  start + least <= stop <= limit[c][start]  and its time is finite; with
given layer counts only those cuts are. Classes are sets of nodes that can be swapped without changing any cost.
"""

from __future__ import annotations

import copy
import math
from bisect import bisect_right
from itertools import accumulate, pairwise
from typing import Any

from engine.planning.problem import Problem
from engine.planning.route import DEFAULT, Limits
from engine.planning.solution import Cut
from engine.planning.solving.grid import Grid
from engine.planning.solving.rooms import Rooms
from engine.planning.solving.stage_times import PLAIN, Reading, StageTimes
from engine.planning.solving.structure import node_classes, nodes_of

Chain = tuple[tuple[int, int, int], ...]  # (class, start, stop) in execution order


class Tables:
    """Costs of one problem. Read-only after construction; indices are classes unless a name says node."""

    def __init__(
        self, problem: Problem, classes: list[list[int]] | None = None, reading: Reading = PLAIN, limits: Limits = DEFAULT
    ) -> None:
        self.problem, self.reading, self.limits = problem, reading, limits
        self.n = len(problem.items)
        self.least = problem.constraints.min_items_per_stage
        self.nodes = nodes_of(problem)
        self.classes = node_classes(problem) if classes is None else classes
        self.size = tuple(len(members) for members in self.classes)
        self.first = [members[0] for members in self.classes]
        self.rooms = Rooms(problem, self.first)
        self.times = StageTimes(problem, self.classes, reading)
        prices = [problem.nodes[u].price_per_s for u in self.first]
        total = sum(p * k for p, k in zip(prices, self.size, strict=True))
        self.price_grid = Grid.up_to(total) if reading.has_grid else Grid()
        self.price = [self.price_grid.rounded(p) for p in prices]
        self.limit = [self._limits(c) for c in range(len(self.classes))]
        self.given_stop = self._given_stops()
        self._stages: dict[tuple[int, int], list[tuple[int, float]]] = {}
        self._limit_array: Any = None

    def _limits(self, c: int) -> list[int]:
        """limit[start]: the furthest stop that memory, support, pins and max items allow; start itself if none."""
        node, n = self.first[c], self.n
        limit = self.rooms.furthest_stops(c)
        most = self.problem.constraints.max_items_per_stage or n
        if self.times.table[c]:
            most = min(most, len(self.times.table[c]))
        if most < n:
            limit = [min(b, a + most) for a, b in enumerate(limit)]
        bad = [i for i, t in enumerate(self.problem.nodes[node].time_s) if t == math.inf] if not self.times.table[c] else []
        node_id = self.problem.nodes[node].node_id
        bad = sorted({*bad, *(i for i, wanted in self.problem.constraints.pins if wanted != node_id)})
        if bad:
            bad.append(n)
            limit = [min(b, bad[bisect_right(bad, a - 1)]) for a, b in enumerate(limit)]
        return limit

    @property
    def limit_array(self) -> Any:
        """[class, start], with a last column for the end."""
        import numpy as np

        if self._limit_array is None:
            self._limit_array = np.array([[*row, self.n] for row in self.limit], dtype=np.int32)
        return self._limit_array

    def narrowed(self, limit: list[list[int]]) -> Tables:
        """The same with nearer furthest stops."""
        narrow = copy.copy(self)
        narrow.limit, narrow._limit_array, narrow._stages = limit, None, {}
        return narrow

    def _given_stops(self) -> dict[int, int] | None:
        counts = self.problem.constraints.stage_items
        if not counts:
            return None
        bounds = list(accumulate(counts, initial=0))
        return dict(pairwise(bounds))

    def stages(self, c: int, start: int) -> list[tuple[int, float]]:
        """(stop, time) of every allowed stage of class c that begins at `start`, longest first: among equals, early stages are long."""
        key = (c, start)
        if key not in self._stages:
            self._stages[key] = self._find_stages(c, start)
        return self._stages[key]

    def _find_stages(self, c: int, start: int) -> list[tuple[int, float]]:
        low, high = start + self.least, self.limit[c][start]
        if self.given_stop is not None:
            stop = self.given_stop.get(start, self.n + 1)
            low, high = max(low, stop), min(high, stop)
        timed = [(stop, self.times.stage_s(c, start, stop)) for stop in range(low, high + 1)]
        return [pair for pair in reversed(timed) if pair[1] < math.inf]

    def cuts(self, chain: Chain) -> tuple[Cut, ...]:
        """The chain on real nodes: those of a class in the order given."""
        left = [list(members) for members in self.classes]
        return tuple((left[c].pop(0), start, stop) for c, start, stop in chain)
