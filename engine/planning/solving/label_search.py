"""The general exact solver: label-setting over (nodes used, next node, position).

A label is a partial chain that covers items [0, start). Two labels at one state are continued in the same ways, so one
that is worse or equal in its value and in every bounded quantity (`extras`) can go. What a value is, a Goal says; a goal's
`extend` must keep the order of values (if v <= w then extend(v, x) <= extend(w, x)), which is Bellman's condition. Maxima,
sums, lexicographic (sum, maximum) pairs and descending tuples (the order of leximin fairness) all keep it; a lexicographic
(maximum, sum) does not, so such objectives are solved in two phases, the second within the first one's optimum.

Layers are numbers of stages, so the count of nodes in use is known at every label. With per-pair links a state names the
node that comes next, so that a stage's hop is known when the stage is added.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from engine.planning.solution import ratio
from engine.planning.solving.tables import Chain, Tables

Value = Any  # a goal's own totally ordered type: a float or a tuple
Lost = Callable[[int, int], bool]  # (nodes used, position)


@dataclass(frozen=True, slots=True)
class StageCost:
    """One stage as a goal sees it; `cost_s` is its share of the bottleneck, `spent_s` of the round trip."""

    compute_s: float
    cost_s: float
    spent_s: float
    ratio: float
    price: float


@dataclass(frozen=True, slots=True)
class Goal:
    """What to minimise: `start`, then `extend(value, step)` per stage; which extras stay bounded or are traded off."""

    start: Value
    extend: Callable[[Value, StageCost], Value]
    trades_round_trip: bool = False
    trades_price: bool = False


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds on a chain, inclusive."""

    cost_s: float = math.inf
    ratio: float = math.inf
    round_trip_s: float = math.inf
    stages: tuple[int, int] = (1, 10**9)  # fewest and most


@dataclass(slots=True)
class Label:
    """`extras`: round trip, price, then units used of each shared pool, exactly; only what the search must keep."""

    value: Value
    extras: tuple[float, ...]
    before: Label | None
    stage: tuple[int, int, int]

    def chain(self) -> Chain:
        stages, label = [], self
        while label.before is not None:
            stages.append(label.stage)
            label = label.before
        return tuple(reversed(stages))


@dataclass(frozen=True, slots=True)
class Found:
    """A complete chain: its value, its number of stages, and the extras the goal asked for (else 0)."""

    value: Value
    num_stages: int
    round_trip_s: float
    price: float
    chain: Chain


class Work:
    """What label searches may still do, in stages and labels made, so that it does not depend on the machine's speed.

    A search that has used it up ends early, and what it found counts for nothing: whoever began it asks `is_spent`.
    `counts_comparisons`: five comparisons of labels are one more; for who must be prompt, not only end.
    """

    def __init__(self, most: int, counts_comparisons: bool = False) -> None:
        self.left: float = most
        self._comparison = 0.2 if counts_comparisons else 0.0

    @property
    def is_spent(self) -> bool:
        return self.left < 0

    def spend(self, amount: float) -> None:
        self.left -= amount

    def compare(self, num_labels: int) -> None:
        self.spend(self._comparison * num_labels)

    def give_up(self) -> None:
        """Some other limit was met."""
        self.left = -1.0


class LabelSearch:
    """Searches of one problem, as long as `work` lasts."""

    def __init__(self, tables: Tables, work: Work) -> None:
        self.tables, self.work = tables, work
        self._steps: dict[tuple[int, ...], list[tuple[int, StageCost]]] = {}
        self._strides = _strides(tables)
        self._pools = [
            p.pool_id for p in tables.problem.pools if sum(tables.size[c] for c, q in enumerate(tables.rooms.pool) if q == p.pool_id) > 1
        ]

    def best(self, goal: Goal, bounds: Bounds, lost: Lost | None = None) -> Found | None:
        """A chain of smallest value within the bounds; among equals the first found, which is deterministic."""
        return min(self.every(goal, bounds, lost), key=lambda found: (found.value, found.num_stages), default=None)

    def every(self, goal: Goal, bounds: Bounds, lost: Lost | None = None) -> Iterator[Found]:
        """Every undominated complete chain within the bounds; `lost` are states from where the rest cannot be covered."""
        self._goal, self._bounds, self._lost, self._steps = goal, bounds, lost, {}
        self._keeps_trip = goal.trades_round_trip or bounds.round_trip_s < math.inf
        layer = self._first_layer()
        most = min(bounds.stages[1], sum(self.tables.size), self.tables.n)
        for count in range(1, most + 1):
            layer, done = self._advance(layer, last_layer=count == most)
            if count >= bounds.stages[0]:
                for label in done:
                    trip = label.extras[0] if self._keeps_trip else 0.0
                    price = label.extras[int(self._keeps_trip)] if goal.trades_price else 0.0
                    yield Found(label.value, count, trip, price, label.chain())

    def _first_layer(self) -> dict[tuple, list[Label]]:
        t = self.tables
        extras = (0.0,) * (self._keeps_trip + self._goal.trades_price) + (0,) * len(self._pools)
        label = Label(self._goal.start, extras, None, (0, 0, 0))
        if t.times.uniform:
            return {(0, -1, -1, 0): [label]}
        return {(used, c, c, 0): [label] for c, used in self._free(0)}

    def _free(self, used: int) -> Iterator[tuple[int, int]]:
        """(class, used after taking one of it) for every class that may come next."""
        if not self.tables.problem.free_order:
            for c in range(used, len(self.tables.size)):
                yield c, c + 1
            return
        for c, size in enumerate(self.tables.size):
            if used // self._strides[c] % (size + 1) < size:
                yield c, used + self._strides[c]

    def _advance(self, layer: dict[tuple, list[Label]], last_layer: bool) -> tuple[dict[tuple, list[Label]], list[Label]]:
        after: dict[tuple, list[Label]] = {}
        done: list[Label] = []
        n, free, lost = self.tables.n, functools.cache(lambda used: list(self._free(used))), self._lost
        for (used, first, following, start), labels in layer.items():
            if self.work.is_spent:
                break
            if following >= 0:
                self._from_pair((used, first, following, start), labels, after, done, last_layer)
                continue
            for c, used_after in free(used):
                for stop, step in self._uniform_steps(c, start):
                    if stop == n:
                        self._add(done, labels, (c, start, stop), step)
                    elif not last_layer and (lost is None or not lost(used_after, stop)):
                        self._add(after.setdefault((used_after, -1, -1, stop), []), labels, (c, start, stop), step)
        return after, done

    def _from_pair(
        self, state: tuple[int, int, int, int], labels: list[Label], after: dict[tuple, list[Label]], done: list[Label], last_layer: bool
    ) -> None:
        used, first, c, start = state
        for stop, step in self._pair_steps(c, start, first):
            self._add(done, labels, (c, start, stop), step)
        if not last_layer:
            for d, used_after in self._free(used):
                for stop, step in self._pair_steps(c, start, -1 - d):
                    self._add(after.setdefault((used_after, first, d, stop), []), labels, (c, start, stop), step)

    def _uniform_steps(self, c: int, start: int) -> list[tuple[int, StageCost]]:
        """Allowed stages of class c from `start` within the bounds: (stop, step), cached for this search."""
        if (c, start) not in self._steps:
            t, back = self.tables, self.tables.times.back if start else self.tables.times.lone_back
            steps = [
                (stop, self._step(c, start, stop, s, t.times.hop[stop], t.times.held[stop], back if stop == t.n else 0.0))
                for stop, s in t.stages(c, start)
            ]
            self._steps[c, start] = [(stop, step) for stop, step in steps if step is not None]
        return self._steps[c, start]

    def _pair_steps(self, c: int, start: int, end: int) -> list[tuple[int, StageCost]]:
        """The last stage of a chain that began on class `end` >= 0, or stages followed by class -1 - `end`."""
        key = (c, start, end)
        if key not in self._steps:
            t, stages = self.tables, self.tables.stages(c, start)
            self.work.spend(1 if end >= 0 else len(stages))
            if end >= 0:
                back = t.times.pair_back(c, end) if start or t.problem.coordinator else 0.0
                steps = [(stop, self._step(c, start, stop, s, 0.0, 0.0, back)) for stop, s in stages if stop == t.n]
            else:
                steps = [
                    (stop, self._step(c, start, stop, s, t.times.pair_hop(c, -1 - end, stop), t.times.pair_held(c, -1 - end, stop), 0.0))
                    for stop, s in stages
                    if stop < t.n
                ]
            self._steps[key] = [(stop, step) for stop, step in steps if step is not None]
        return self._steps[key]

    def _step(self, c: int, start: int, stop: int, compute_s: float, hop_s: float, held_s: float, back_s: float) -> StageCost | None:
        """None if the stage alone is over a limit."""
        t, bounds = self.tables, self._bounds
        cost_s = compute_s + held_s if t.times.additive else max(compute_s, held_s)
        spent_s = t.times.trip_s(c, start, stop) + hop_s + back_s
        if cost_s > bounds.cost_s or spent_s == math.inf:
            return None
        share = t.rooms.used_ratio(c, start, stop) if bounds.ratio < math.inf or self._goal.extend is extend_ratio else 0.0
        return StageCost(compute_s, cost_s, spent_s, share, t.price[c]) if share <= bounds.ratio else None

    def _add(self, kept: list[Label], labels: list[Label], stage: tuple[int, int, int], step: StageCost) -> None:
        """Extend every label by one stage and keep what is within the bounds and not dominated."""
        self.work.spend(len(labels))
        for label in labels:
            if not label.extras:
                value = self._goal.extend(label.value, step)
                if not kept:
                    kept.append(Label(value, (), label, stage))
                elif value < kept[0].value:
                    kept[0] = Label(value, (), label, stage)
                continue
            extras = self._extras(label.extras, step, stage)
            if extras is not None:
                step_here = step if not self._pools else self._with_pools(step, extras)
                if step_here.ratio <= self._bounds.ratio:
                    self.work.compare(len(kept))
                    _keep(kept, Label(self._goal.extend(label.value, step_here), extras, label, stage))

    def _extras(self, before: tuple[float, ...], step: StageCost, stage: tuple[int, int, int]) -> tuple[float, ...] | None:
        """The bounded quantities after this stage, None if one is over its bound."""
        extras, at = list(before), 0
        if self._keeps_trip:
            extras[0] += step.spent_s
            if extras[0] > self._bounds.round_trip_s:
                return None
            at = 1
        if self._goal.trades_price:
            extras[at] += step.price
            at += 1
        for i, pool in enumerate(self._pools, at):
            if self.tables.rooms.pool[stage[0]] == pool:
                extras[i] += self.tables.rooms.used_units(*stage)
                if extras[i] > self.tables.rooms.pool_units[pool]:
                    return None
        return tuple(extras)

    def _with_pools(self, step: StageCost, extras: tuple[float, ...]) -> StageCost:
        """The step with its ratio raised to that of the fullest pool so far."""
        used = extras[len(extras) - len(self._pools) :]
        each = self.tables.problem.units_per_byte
        fullest = max(ratio(size / each, self.tables.rooms.pool_bytes[pool]) for size, pool in zip(used, self._pools, strict=True))
        return StageCost(step.compute_s, step.cost_s, step.spent_s, max(step.ratio, fullest), step.price)


def extend_ratio(value: float, step: StageCost) -> float:
    return max(value, step.ratio)


def _keep(kept: list[Label], new: Label) -> None:
    """Add `new` unless a kept label is at least as good in everything; drop those that it betters."""
    if any(k.value <= new.value and all(a <= b for a, b in zip(k.extras, new.extras, strict=True)) for k in kept):
        return
    kept[:] = [k for k in kept if not (new.value <= k.value and all(a <= b for a, b in zip(new.extras, k.extras, strict=True)))]
    kept.append(new)


def _strides(tables: Tables) -> list[int]:
    """Mixed-radix weight of each class in the number `used`."""
    strides, stride = [], 1
    for size in tables.size:
        strides.append(stride)
        stride *= size + 1
    return strides
