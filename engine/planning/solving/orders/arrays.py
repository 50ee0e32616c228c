"""Nodes in one order with a link for every pair: the best chain by arrays, over positions of all nodes at once.

For links that do not add to a stage's cost: a hop then limits it whatever the stage is, so the best stage up to a cut
is found once, not once for every node that may follow. Exact for the order where no memory is shared. A chain's value is the
largest or the sum of its stages' figures, taken with those of its hops.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.planning.problem import STREAMED, Problem
from engine.planning.solution import Cut
from engine.planning.solving.tables import Tables
from engine.planning.solving.thresholds.memory_share import StageBytes


class StageFigures:
    """[node][start, stop] time and share of memory of every stage, inf where it is not allowed, and what it adds to a round trip (`trip`);
    [node][next, cut] hops, and what they hold a link for (`held`).

    `ends` [node] is the way of a token id in and the way out. Constraints beyond memory and support are not looked at.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.tables = t = Tables(problem, [[u] for u in range(len(problem.nodes))])
        self.n = n = len(problem.items)
        stops = np.arange(n + 1)
        lengths = stops - stops[:, None]
        self.time, self.trip = list[Any](), list[Any]()
        for u, node in enumerate(problem.nodes):
            closed = (lengths < 1) | (stops > np.array([*t.limit[u], 0])[:, None])
            self.time.append(np.where(closed, np.inf, self._times(u, lengths, t.times.prefix)))
            has_own = bool(node.trip_time_s)
            self.trip.append(np.where(closed, np.inf, self._times(u, lengths, t.times.trip_prefix)) if has_own else self.time[u])
        self.hop, self.held = self._hops()
        self.ends = np.array([problem.ends_s(u) for u in range(len(problem.nodes))])
        self.price = np.array([node.price_per_s for node in problem.nodes])

    def _times(self, u: int, lengths: Any, prefix: list[list[float]]) -> Any:
        if self.tables.times.table[u]:
            table = np.array([math.inf, *self.tables.times.table[u], *([math.inf] * self.n)])
            return table[np.maximum(lengths, 0)]
        row = np.array(prefix[u])
        return row - row[:, None] + self.tables.times.base[u]

    def _hops(self) -> tuple[Any, Any]:
        problem, num_nodes = self.problem, len(self.problem.nodes)
        sizes = np.array([0.0, *(item.output_bytes_per_token for item in problem.items)])
        hop, held = (np.full((num_nodes, num_nodes, self.n + 1), np.inf) for _ in range(2))
        for u in range(num_nodes):
            for v in range(num_nodes):
                link = problem.link(u, v) if u != v else None
                if link is not None:
                    hop[u, v] = link.latency_s + sizes / link.bandwidth_bytes_per_s
                    held[u, v] = sizes * problem.held_share / link.bandwidth_bytes_per_s
        hop[:, :, self.n] = held[:, :, self.n] = np.inf
        return hop, held if problem.link_cost == STREAMED else hop

    def shares(self) -> list[Any]:
        """[node][start, stop] used / available memory."""
        starts, stops = np.triu_indices(self.n + 1, 1)
        used = np.zeros((self.n + 1, self.n + 1))
        used[starts, stops] = StageBytes(self.problem)(starts, stops)
        found = []
        for u, node in enumerate(self.problem.nodes):
            taken, room = used + node.buffer_bytes, self.problem.room_bytes(u)
            share = taken / room if room > 0 else np.where(taken > 0, np.inf, 0.0)
            found.append(np.where(np.isfinite(self.time[u]), share, np.inf))
        return found


@dataclass(frozen=True, slots=True)
class ChainGoal:
    """What a chain's value is: figures [node][start, stop] and hops [node][next, cut], a charge for each node's use, ends.

    `is_sum`: they are added, else the largest counts. `uses_all`: every node of the order has a stage.
    """

    figures: Sequence[Any]
    hops: Any
    is_sum: bool = False
    charge: Any = None
    ends: Any = None
    uses_all: bool = False


@dataclass(frozen=True, slots=True)
class BestChain:
    """A chain's value and cuts; inf and none where the order has no chain."""

    value: float
    cuts: tuple[Cut, ...] = ()


def best_chain(goal: ChainGoal, order: Sequence[int]) -> BestChain:
    """The chain of least value whose nodes stand in this order."""
    walk = _Walk(goal, order)
    return BestChain(walk.value, walk.trace()) if walk.value < math.inf else BestChain(math.inf)


class _Walk:
    """`begun` [place, position]: least value of a chain in front whose next stage stands there; `ended` the same with that stage."""

    def __init__(self, goal: ChainGoal, order: Sequence[int]) -> None:
        self.goal, self.order, self.join = goal, list(order), np.add if goal.is_sum else np.maximum
        n, places = len(goal.figures[0]) - 1, np.array(self.order)
        begun = np.full((len(places), n + 1), np.inf)
        first = places[:1] if goal.uses_all else places
        begun[: len(first), 0] = goal.ends[first, 0] if goal.ends is not None else 0.0
        self.begun, self.ended = begun, np.full_like(begun, np.inf)
        totals = []
        for k, u in enumerate(self.order):
            ended = self.join(begun[k][:, None], goal.figures[u]).min(axis=0)
            if goal.charge is not None:
                ended = ended + goal.charge[u]
            self.ended[k] = ended
            totals.append(float(ended[n]) + (float(goal.ends[u, 1]) if goal.ends is not None else 0.0))
            behind = slice(k + 1, k + 2) if goal.uses_all else slice(k + 1, None)
            begun[behind] = np.minimum(begun[behind], self.join(ended, goal.hops[u][places[behind]]))
        if goal.uses_all:
            totals[:-1] = [math.inf] * (len(totals) - 1)
        self.last = int(np.argmin(totals))
        self.value = totals[self.last]

    def trace(self) -> tuple[Cut, ...]:
        """The stages, from the last one back."""
        goal, k, stages = self.goal, self.last, []
        stop = len(goal.figures[0]) - 1
        while True:
            u = self.order[k]
            start = int(np.argmin(self.join(self.begun[k], goal.figures[u][:, stop])))
            stages.append((u, start, stop))
            if start == 0:
                return tuple(reversed(stages))
            before = slice(k - 1, k) if goal.uses_all else slice(0, k)
            ways = self.join(self.ended[before, start], goal.hops[self.order[before], u, start])
            k, stop = before.start + int(np.argmin(ways)), start
