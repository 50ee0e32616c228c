"""What an operator may demand of a plan beyond the problem itself. Pure data; the tables apply it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from engine.data.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class PlanningConstraints:
    """Every field's default demands nothing.

    `pins`: (item index, node id): the stage that holds the item must be on that node. `stage_items`: the number of items
    of each stage in execution order, e.g. (4, 4, 5); only the nodes are then chosen. `memory_reserve_bytes` stays free on
    every node. `latency_limit_s` bounds the round trip of one token, `bottleneck_limit_s` every stage's cost.
    """

    pins: tuple[tuple[int, str], ...] = ()
    forbidden_nodes: tuple[str, ...] = ()
    max_stages: int | None = None
    min_items_per_stage: int = 1
    max_items_per_stage: int | None = None
    memory_reserve_bytes: float = 0.0
    latency_limit_s: float = math.inf
    stage_items: tuple[int, ...] = ()
    min_stages: int = 1
    bottleneck_limit_s: float = math.inf

    def __post_init__(self) -> None:
        for name, value in (("max_stages", self.max_stages), ("max_items_per_stage", self.max_items_per_stage)):
            if value is not None and value < 1:
                raise InvalidInput(f"constraint {name} is {value}: it must be at least 1")
        if self.min_stages < 1:
            raise InvalidInput(f"constraint min_stages is {self.min_stages}: it must be at least 1")
        if not self.bottleneck_limit_s >= 0:
            raise InvalidInput(f"constraint bottleneck_limit_s is {self.bottleneck_limit_s}: it must be 0 or more seconds")
        if self.min_items_per_stage < 1:
            raise InvalidInput(f"constraint min_items_per_stage is {self.min_items_per_stage}: it must be at least 1")
        if not 0 <= self.memory_reserve_bytes < math.inf:
            raise InvalidInput(f"constraint memory_reserve_bytes is {self.memory_reserve_bytes}: it must be 0 or more bytes")
        if not self.latency_limit_s > 0:
            raise InvalidInput(f"constraint latency_limit_s is {self.latency_limit_s}: it must be more than 0 seconds")
        if any(count < 1 for count in self.stage_items):
            raise InvalidInput(f"constraint stage_items is {list(self.stage_items)}: every stage needs at least 1 item")

    def check_against(self, num_items: int, node_ids: tuple[str, ...]) -> None:
        """Refuse what names items or nodes that do not exist, or contradicts itself whatever the nodes are."""
        for index, node_id in self.pins:
            if not 0 <= index < num_items:
                raise InvalidInput(f"constraint pins item {index}, the problem has items 0 to {num_items - 1}")
            if node_id not in node_ids:
                raise InvalidInput(f"constraint pins item {index} to node {node_id!r}: the nodes are {_some(node_ids)}")
        wanted = dict(self.pins)
        for index, node_id in self.pins:
            if wanted[index] != node_id:
                raise InvalidInput(f"constraints pin item {index} to {node_id!r} and to {wanted[index]!r}: keep one of the pins")
        for node_id in self.forbidden_nodes:
            if node_id not in node_ids:
                raise InvalidInput(f"constraint forbids node {node_id!r}: the nodes are {_some(node_ids)}")
        if self.stage_items and sum(self.stage_items) != num_items:
            raise InvalidInput(
                f"constraint stage_items {list(self.stage_items)} adds up to {sum(self.stage_items)} items, the problem has {num_items}"
            )
        if self.max_items_per_stage is not None and self.min_items_per_stage > self.max_items_per_stage:
            raise InvalidInput(
                f"constraints contradict each other: min_items_per_stage {self.min_items_per_stage} is more than "
                f"max_items_per_stage {self.max_items_per_stage}"
            )


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
