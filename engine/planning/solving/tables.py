"""The problem as the solvers read it: exact sums, the stages that are allowed, classes of equal nodes.

Every time is rounded to one grid, a power of two fine enough that no sum of times needs more than 52 bits: sums and
differences are then exact in float64 whatever their order, so equal costs compare equal and a search can end on realised
values instead of at a tolerance. The rounding is below 2^-51 of the largest sum; a plan's figures are computed from the
problem's own numbers (solution.evaluate), and rounding.py says what the grid can have hidden. `Reading` says what
counts as less, so that the grid is finer, or that there is no grid: then each sum is rounded by less than 2^-52 of itself, which
suffices for the label search, as it only adds and compares.

A stage [start, stop) on class c is allowed iff  start + least <= stop <= limit[c][start]  and its time is finite; with
given layer counts only those cuts are. Classes are sets of nodes that can be swapped without changing any cost.
"""

from __future__ import annotations

import copy
import math
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any

from engine.planning.problem import ADDITIVE, TOKEN_ID_BYTES, Link, PlanningNode, Problem
from engine.planning.route import DEFAULT, Limits
from engine.planning.solution import Cut, ratio
from engine.planning.solving.structure import has_equal_links, node_classes, nodes_of

Chain = tuple[tuple[int, int, int], ...]  # (class, start, stop) in execution order


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


class Tables:
    """Costs of one problem. Read-only after construction; indices are classes unless a name says node."""

    def __init__(
        self, problem: Problem, classes: list[list[int]] | None = None, reading: Reading = PLAIN, limits: Limits = DEFAULT
    ) -> None:
        self.problem, self.reading, self.limits = problem, reading, limits
        self.n = len(problem.items)
        self.additive = problem.link_cost == ADDITIVE
        self.uniform = has_equal_links(problem)
        self.least = problem.constraints.min_items_per_stage
        self.nodes = nodes_of(problem)
        self._pinned = dict(problem.constraints.pins)
        self.classes = node_classes(problem) if classes is None else classes
        self.size = tuple(len(members) for members in self.classes)
        self.first = [members[0] for members in self.classes]
        self.room = [problem.room_bytes(u) for u in self.first]
        self.price = self._prices()
        self.pool = [problem.nodes[u].pool_id for u in self.first]
        self.pool_room = {p.pool_id: p.memory_bytes for p in problem.pools}
        self.pool_units = {p.pool_id: problem.units(p.memory_bytes) for p in problem.pools}
        self._set_times()
        self.limit = [self._limits(c) for c in range(len(self.classes))]
        self.given_stop = self._given_stops()
        self._costs: dict[tuple[int, int, int], float] = {}
        self._stages: dict[tuple[int, int], list[tuple[int, float]]] = {}
        self._limit_array: Any = None

    # ------------------------------------------------------------------------------------------------ times
    def _set_times(self) -> None:
        nodes = [self.problem.nodes[u] for u in self.first]
        most_s = [self.reading.most_on(node) for node in nodes]
        plain = [[min(t, most) if t < math.inf else 0.0 for t in n.time_s] for n, most in zip(nodes, most_s, strict=True)]
        tables = [[min(t, most) if t < math.inf else t for t in n.stage_time_s] for n, most in zip(nodes, most_s, strict=True)]
        bases = [min(node.base_s, most) for node, most in zip(nodes, most_s, strict=True)]
        hops, back = self._hop_times()
        back = min(back, self.reading.most_back_s)
        longest = [max((t for t in table if t < math.inf), default=0.0) for table in tables]
        total = sum(map(sum, plain)) + sum(t * k for t, k in zip(longest, self.size, strict=True))
        total += (max(hops) + back + max(bases, default=0.0)) * sum(self.size)
        self.tick_s, self._shift = self._grid(total, 1)
        self._square_shift = self._grid(total, 2)[1]
        self.prefix = [list(accumulate(map(self._rounded, times), initial=0.0)) for times in plain]
        self.base, self.hop = [self._rounded(b) for b in bases], [self._rounded(h) for h in hops]
        self.table = [[self._rounded(t) for t in times] for times in tables]
        self.back = self._rounded(back)
        self.lone_back = self.back if self.uniform and self.problem.coordinator else 0.0  # of a chain of one stage

    def _grid(self, total: float, power: int) -> tuple[float, float]:
        """The grid's step for sums up to total^power, and what rounds to it when it is added and taken away again."""
        if not self.reading.has_grid:
            return 0.0, 0.0
        tick = math.ldexp(1.0, max(-1000, power * math.frexp(total)[1] - 51))
        return tick, 1.5 * 2.0**52 * tick

    def _rounded(self, time_s: float) -> float:
        return time_s + self._shift - self._shift if time_s < math.inf else time_s

    def _hop_times(self) -> tuple[list[float], float]:
        if not self.uniform:
            return self._pair_times()
        link = self.problem.links
        assert isinstance(link, Link)  # noqa: S101  for the type checker
        sizes = [item.output_bytes_per_token for item in self.problem.items]
        sent = [self._hop_s(link, sizes[b - 1]) for b in range(1, self.n)]
        return [0.0, *sent, 0.0], self.problem.return_s(-1, 0)

    def _hop_s(self, link: Link, num_bytes: float) -> float:
        return min(link.transfer_s(num_bytes), self.reading.most_hop_s)

    def _pair_times(self) -> tuple[list[float], float]:
        problem = self.problem
        largest = max(TOKEN_ID_BYTES, *(item.output_bytes_per_token for item in problem.items))
        self._link = {(u, v): problem.link(u, v) for u in self.nodes for v in self.nodes if u != v}
        ends = [problem.ends_s(u) for u in self.nodes]
        back = max((end[1] for end in ends), default=0.0) + max((end[0] for end in ends), default=0.0)
        return [max((self._hop_s(x, largest) for x in self._link.values() if x), default=0.0)], back

    def between(self, low_s: float, high_s: float) -> float:
        """A time on the grid about half way, below `high_s` (which is on the grid), not below the grid at `low_s`."""
        middle = low_s + (high_s - low_s) / 2 + self._shift - self._shift
        return min(middle, high_s - self.tick_s)

    def on_grid(self, time_s: float) -> float:
        """The last time of the grid that is not above `time_s`."""
        near = time_s + self._shift - self._shift
        return near if near <= time_s else near - self.tick_s

    def square(self, time_s: float) -> float:
        """time_s squared, on a grid of its own so that sums of squares are exact."""
        return time_s * time_s + self._square_shift - self._square_shift

    def stage_s(self, c: int, start: int, stop: int) -> float:
        if self.table[c]:
            return self.table[c][stop - start - 1] if stop - start <= len(self.table[c]) else math.inf
        if not self.reading.has_grid:
            return self.problem.stage_s(self.first[c], start, stop)
        return self.prefix[c][stop] - self.prefix[c][start] + self.base[c]

    def stage_cost_s(self, stage: tuple[int, int, int]) -> float:
        """A stage's share of the bottleneck, with uniform links."""
        if stage not in self._costs:
            c, start, stop = stage
            time_s, hop_s = self.stage_s(c, start, stop), self.hop[stop]
            self._costs[stage] = time_s + hop_s if self.additive else max(time_s, hop_s)
        return self._costs[stage]

    def pair_hop(self, c: int, d: int, cut: int) -> float:
        """Hop from a node of class c to one of class d after item cut - 1; inf if not connected."""
        if self.uniform:
            return self.hop[cut]
        link = self._link[self._ends(c, d)]
        return math.inf if link is None else self._rounded(self._hop_s(link, self.problem.items[cut - 1].output_bytes_per_token))

    def pair_back(self, last: int, first: int) -> float:
        """Return hop of a chain of two or more stages; with coordinator links, of any."""
        if self.uniform or not self.problem.return_hop:
            return self.back if self.problem.return_hop else 0.0
        ends = (self.first[last], self.first[first]) if self.problem.coordinator else self._ends(last, first)
        seconds = self.problem.return_s(*ends)
        return self._rounded(min(seconds, self.reading.most_back_s)) if seconds < math.inf else seconds

    def _ends(self, c: int, d: int) -> tuple[int, int]:
        return (self.classes[c][0], self.classes[d][0]) if c != d else (self.classes[c][0], self.classes[c][1])

    def _prices(self) -> list[float]:
        prices = [self.problem.nodes[u].price_per_s for u in self.first]
        self.price_tick, shift = self._grid(sum(p * k for p, k in zip(prices, self.size, strict=True)), 1)
        return [p + shift - shift for p in prices]

    # ------------------------------------------------------------------------------------------------ what is allowed
    def _limits(self, c: int) -> list[int]:
        """limit[start]: the furthest stop that memory, support, pins and max items allow; start itself if none."""
        node, n = self.first[c], self.n
        limit = self._memory_limits(c)
        most = self.problem.constraints.max_items_per_stage or n
        if self.table[c]:
            most = min(most, len(self.table[c]))
        if most < n:
            limit = [min(b, a + most) for a, b in enumerate(limit)]
        bad = [i for i, t in enumerate(self.problem.nodes[node].time_s) if t == math.inf] if not self.table[c] else []
        node_id = self.problem.nodes[node].node_id
        bad = sorted({*bad, *(i for i, wanted in self._pinned.items() if wanted != node_id)})
        if bad:
            bad.append(n)
            limit = [min(b, bad[bisect_right(bad, a - 1)]) for a, b in enumerate(limit)]
        return limit

    def _memory_limits(self, c: int) -> list[int]:
        problem, n, u = self.problem, self.n, self.first[c]
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

    @cached_property
    def prefix_array(self) -> Any:
        """A row of `prefix` per class."""
        import numpy as np

        return [np.array(row) for row in self.prefix]

    @cached_property
    def hop_array(self) -> Any:
        import numpy as np

        return np.array(self.hop)

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
        timed = [(stop, self.stage_s(c, start, stop)) for stop in range(low, high + 1)]
        return [pair for pair in reversed(timed) if pair[1] < math.inf]

    def used_units(self, c: int, start: int, stop: int) -> int:
        return self.problem.memory_units(self.first[c], start, stop)

    def used_ratio(self, c: int, start: int, stop: int) -> float:
        used, pool = self.problem.memory_bytes(self.first[c], start, stop), self.pool[c]
        alone = ratio(used, self.room[c])
        return alone if pool is None else max(alone, ratio(used, self.pool_room[pool]))

    def cuts(self, chain: Chain) -> tuple[Cut, ...]:
        """The chain on real nodes: those of a class in the order given."""
        left = [list(members) for members in self.classes]
        return tuple((left[c].pop(0), start, stop) for c, start, stop in chain)
