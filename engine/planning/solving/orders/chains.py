"""What each strategy would do in one order of the nodes: chains that are good under it, by arrays.

Exact for the order under bottleneck_first's first figure and under latency_optimized with one session in flight; else bottlenecks
and prices are tried at fixed factors. A shared memory is not known here: its nodes have the parts of it that were dealt out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from engine.planning.solution import Cut
from engine.planning.solving.orders.arrays import ChainGoal, StageFigures, best_chain

FACTORS = (1.0, 1.05, 1.2, 1.5, math.inf)  # bottlenecks tried, over the least one
CHARGES = (0.0, 0.1, 0.3, 0.7, 1.5, 4.0, 30.0)  # round trips that using all nodes is charged with
BISECTIONS = 12
CALL = 10_000  # elements that are read in the time of a few calls of numpy

Order = tuple[int, ...]
Cuts = tuple[Cut, ...]


class Placing:
    """`work` counts the array elements that were read; `most_s` bounds the bottleneck under memory_aware. A step has `rows`."""

    def __init__(self, figures: StageFigures, rows: float = 1.0) -> None:
        self.f, self.in_flight, self.rows = figures, figures.problem.in_flight, rows
        self.work = 0
        self.most_s = math.inf
        self._shares: list[Any] | None = None

    def chains(self, strategy: str, order: Order, thorough: bool) -> Iterator[Cuts]:
        """Chains worth comparing; if `thorough`, also those that are better only in what comes after the objective."""
        if strategy in ("balanced", "bottleneck_first"):
            return self._fast(order, strategy == "balanced", thorough)
        if strategy == "memory_aware":
            return self._empty(order)
        return self._short(order, CHARGES if strategy == "cost" else (0.0,))

    def _best(self, goal: ChainGoal, order: Order) -> tuple[float, Cuts]:
        self.work += len(order) * (self.f.n**2 + CALL)
        found = best_chain(goal, order)
        return found.value, found.cuts

    @staticmethod
    def _free_hops(hops: Any) -> Any:
        """The same ways, for figures that hops do not add to."""
        return np.where(np.isfinite(hops), 0.0, np.inf)

    def _within(self, most_s: float, figures: list[Any]) -> ChainGoal:
        """The figures of the stages whose times and hops are within `most_s`."""
        if most_s == math.inf:
            return ChainGoal(figures, self.f.held)
        kept = [np.where(time <= most_s, figure, np.inf) for time, figure in zip(self.f.time, figures, strict=True)]
        return ChainGoal(kept, np.where(self.f.held <= most_s, self.f.held, np.inf))

    def _trips_within(self, most_s: float) -> ChainGoal:
        """Round trips of the same, without their ends."""
        within = self._within(most_s, self.f.trip)
        return replace(within, hops=np.where(np.isfinite(within.hops), self.f.hop, np.inf), is_sum=True)

    def _fast(self, order: Order, is_balanced: bool, thorough: bool) -> Iterator[Cuts]:
        goal = ChainGoal(self.f.time, self.f.held, uses_all=is_balanced)
        least_s, cuts = self._best(goal, order)
        if is_balanced and not cuts:
            yield from self._most_nodes(order)
            return
        if not cuts:
            return
        yield cuts
        if thorough:
            squares = self._within(least_s, [time**2 for time in self.f.time])
            yield self._best(replace(squares, hops=self._free_hops(squares.hops), is_sum=True, uses_all=is_balanced), order)[1]
            yield self._best(replace(self._trips_within(least_s), uses_all=is_balanced), order)[1]

    def _most_nodes(self, order: Order) -> Iterator[Cuts]:
        """Where not every node can have a stage: as many as can, then the least bottleneck that lets them."""
        counts = [np.where(np.isfinite(time), -1.0, np.inf) for time in self.f.time]

        def most(most_s: float) -> tuple[float, Cuts]:
            within = self._within(most_s, counts)
            return self._best(replace(within, hops=self._free_hops(within.hops), is_sum=True), order)

        fewest, cuts = most(math.inf)
        low_s, high_s = 0.0, max((self.f.time[u][a, b] for u, a, b in cuts), default=0.0)
        for _ in range(BISECTIONS if cuts else 0):
            middle_s = (low_s + high_s) / 2
            count, found = most(middle_s)
            if found and count <= fewest:
                high_s, cuts = middle_s, found
            else:
                low_s = middle_s
        if cuts:
            yield cuts

    def _empty(self, order: Order) -> Iterator[Cuts]:
        if self._shares is None:
            self._shares = self.f.shares()
        within = self._within(self.most_s, self._shares)
        share, cuts = self._best(replace(within, hops=self._free_hops(within.hops)), order)
        if cuts:
            yield cuts
            emptiest = [np.where(shares <= share, time, np.inf) for shares, time in zip(self._shares, self.f.time, strict=True)]
            yield self._best(ChainGoal(emptiest, self.f.held), order)[1]

    def _short(self, order: Order, charges: tuple[float, ...]) -> Iterator[Cuts]:
        least_s, cuts = (0.0, ()) if self.in_flight == 1 else self._best(ChainGoal(self.f.time, self.f.held), order)
        if cuts:
            yield cuts
        for factor in (math.inf,) if self.in_flight == 1 else FACTORS:
            goal = replace(self._trips_within(least_s * factor if least_s else math.inf), ends=self.f.ends)
            trip_s, cuts = self._best(goal, order)
            if not cuts:
                continue
            yield cuts
            for charge in charges[1:]:
                each = charge * trip_s * self.f.price / max(float(self.f.price.sum()), 1e-300)
                yield self._best(replace(goal, charge=each), order)[1]
