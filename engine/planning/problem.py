"""The planning problem: a chain of items, nodes with per-item times, links between them.

Pure data with the quantities that every solver needs; it does not choose anything.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import accumulate

from engine.data import InvalidInput, Item, Refused


class Infeasible(Refused):
    """No placement satisfies the limits; the message names the limit that binds."""


@dataclass(frozen=True, slots=True)
class PlanningNode:
    """A node as the planner sees it: `time_s[i]` is one decode step of item i there, inf if it cannot run it."""

    node_id: str
    memory_bytes: float
    time_s: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """Place `items` (a chain) on `nodes`, which stand in execution order.

    `kv_tokens` is how many tokens of KV every stage must be able to hold (contexts x sessions).
    """

    items: tuple[Item, ...]
    nodes: tuple[PlanningNode, ...]
    hop_s: float = 0.0
    kv_tokens: int = 0
    _prefix_s: tuple[tuple[float, ...], ...] = field(init=False, repr=False)
    _prefix_bytes: tuple[float, ...] = field(init=False, repr=False)
    _ties: frozenset[tuple[int, int, int]] = field(init=False, repr=False)  # (first item, second item, shared bytes)

    def __post_init__(self) -> None:
        if not self.items:
            raise InvalidInput("the problem has no items: give at least one")
        if not self.nodes:
            raise Infeasible("no node can hold layers: start at least one worker")
        for node in self.nodes:
            _check_times(node, len(self.items))
        object.__setattr__(self, "_prefix_s", tuple(tuple(accumulate(n.time_s, initial=0.0)) for n in self.nodes))
        sizes = (i.weight_bytes + i.kv_bytes_per_token * self.kv_tokens for i in self.items)
        ties = (
            (min(i, item.tied_to), max(i, item.tied_to), item.tied_bytes) for i, item in enumerate(self.items) if item.tied_to is not None
        )
        object.__setattr__(self, "_ties", frozenset(ties))
        object.__setattr__(self, "_prefix_bytes", tuple(accumulate(sizes, initial=0.0)))

    def stage_s(self, node: int, start: int, stop: int) -> float:
        """Decode time of items [start, stop) on `nodes[node]`, in seconds."""
        times = self._prefix_s[node]
        return times[stop] - times[start] if math.isfinite(times[stop]) else math.fsum(self.nodes[node].time_s[start:stop])

    def stage_bytes(self, start: int, stop: int) -> float:
        """Weights and KV of items [start, stop); a tensor tied inside the range is counted once."""
        shared = sum(size for first, second, size in self._ties if start <= first and second < stop)
        return self._prefix_bytes[stop] - self._prefix_bytes[start] - shared

    def fits(self, node: int, start: int, stop: int) -> bool:
        return self.stage_bytes(start, stop) <= self.nodes[node].memory_bytes and math.isfinite(self.stage_s(node, start, stop))


def _check_times(node: PlanningNode, num_items: int) -> None:
    if len(node.time_s) != num_items:
        raise InvalidInput(f"node {node.node_id} has {len(node.time_s)} item times, the model has {num_items} items")
    if any(math.isnan(t) or t < 0 for t in node.time_s):
        raise InvalidInput(f"node {node.node_id} has a negative or undefined item time: measure it again")


def describe_shortage(problem: Problem) -> str:
    """Why nothing fits, as one sentence with the numbers."""
    need = problem.stage_bytes(0, len(problem.items))
    have = math.fsum(n.memory_bytes for n in problem.nodes)
    largest = max(range(len(problem.items)), key=lambda i: problem.stage_bytes(i, i + 1))
    return (
        f"the model needs {need / 1e6:.0f} MB for weights and KV (largest item {problem.items[largest].name} "
        f"{problem.stage_bytes(largest, largest + 1) / 1e6:.0f} MB), the {len(problem.nodes)} nodes together offer {have / 1e6:.0f} MB: "
        "add a worker, give one more --memory, or choose a smaller model"
    )
