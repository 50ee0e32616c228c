"""What changes from one plan to another: items that move, and the bytes of weights that their new nodes must read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.data.errors import InvalidInput
from engine.data.model import Item
from engine.data.plan import Stage
from engine.planning.documents.partition_plan import PartitionPlan
from engine.planning.ties import tie_groups


@dataclass(frozen=True, slots=True)
class Move:
    """One item from node to node. A tensor that the new node holds already, through a tied item, is not read again."""

    item: int
    name: str
    from_node: str
    to_node: str
    num_bytes: int


@dataclass(frozen=True, slots=True)
class PlanDiff:
    """Moves in the order of the items; nodes that hold a stage in one of the plans only."""

    moves: tuple[Move, ...]
    joining: tuple[str, ...]
    leaving: tuple[str, ...]

    @property
    def num_bytes(self) -> int:
        return sum(move.num_bytes for move in self.moves)


def diff(before: PartitionPlan, after: PartitionPlan) -> PlanDiff:
    """Raises InvalidInput unless both divide the same items."""
    if [item.name for item in before.items] != [item.name for item in after.items]:
        raise InvalidInput(
            f"the plans divide different items ({len(before.items)} and {len(after.items)} of them): compare plans of one model"
        )
    return diff_ranges(after.items, before.ranges, after.ranges)


def diff_ranges(items: Sequence[Item], before: Sequence[Stage], after: Sequence[Stage]) -> PlanDiff:
    """The same for bare stages that cover `items`."""
    old, new = _owners(before, len(items)), _owners(after, len(items))
    ties = {item: (members[0], size) for members, size in tie_groups(tuple(items)) for item in members}
    held = {(node, ties[item][0]) for item, node in enumerate(old) if item in ties}
    moves = []
    for item, (from_node, to_node) in enumerate(zip(old, new, strict=True)):
        if from_node == to_node:
            continue
        num_bytes = items[item].weight_bytes
        if item in ties:
            tie, size = ties[item]
            num_bytes -= round(size) if (to_node, tie) in held else 0
            held.add((to_node, tie))
        moves.append(Move(item, items[item].name, from_node, to_node, num_bytes))
    old_nodes, new_nodes = dict.fromkeys(old), dict.fromkeys(new)
    return PlanDiff(tuple(moves), tuple(n for n in new_nodes if n not in old_nodes), tuple(n for n in old_nodes if n not in new_nodes))


def _owners(stages: Sequence[Stage], num_items: int) -> list[str]:
    owners = [stage.node_id for stage in stages for _ in range(stage.start, stage.stop)]
    if len(owners) != num_items:
        raise InvalidInput(f"the stages cover {len(owners)} items, there are {num_items}: compare plans of one model")
    return owners
