"""The memory of nodes and of the pools that nodes share, in the exact units in which stages are added up."""

from __future__ import annotations

import math
from collections.abc import Sequence

from engine.planning.problem import Problem
from engine.planning.solution import ratio


class Rooms:
    """Read-only; indices are classes of equal nodes, whose first members are `first`."""

    def __init__(self, problem: Problem, first: Sequence[int]) -> None:
        self.problem, self.first = problem, first
        self.of_class = [problem.room_bytes(u) for u in first]
        self.pool = [problem.nodes[u].pool_id for u in first]
        self.pool_bytes = {p.pool_id: p.memory_bytes for p in problem.pools}
        self.pool_units = {p.pool_id: problem.units(p.memory_bytes) for p in problem.pools}

    def used_units(self, c: int, start: int, stop: int) -> int:
        return self.problem.memory_units(self.first[c], start, stop)

    def used_ratio(self, c: int, start: int, stop: int) -> float:
        used, pool = self.problem.memory_bytes(self.first[c], start, stop), self.pool[c]
        alone = ratio(used, self.of_class[c])
        return alone if pool is None else max(alone, ratio(used, self.pool_bytes[pool]))

    def furthest_stops(self, c: int) -> list[int]:
        """[start] -> the furthest stop that memory allows; the start itself if none."""
        problem, n, u = self.problem, len(self.problem.items), self.first[c]
        room = problem.room_units(u)
        pool = next((p for p in problem.pools if p.pool_id == self.pool[c]), None)
        if pool is not None:
            room = min(room, problem.units(pool.memory_bytes))
        if room == math.inf or problem.memory_units(u, 0, n) <= room:
            return [n] * n
        limit, stop = [], 0
        sums = problem.prefix_units if problem.sums_are_stages else ()
        room -= problem.memory_units(u, 0, 0)
        for start in range(n):
            stop = max(stop, start)
            if sums:
                while stop < n and sums[stop + 1] - sums[start] <= room:
                    stop += 1
            else:
                while stop < n and problem.stage_units(start, stop + 1) <= room:
                    stop += 1
            limit.append(stop)
        return limit
