"""A plan as engines count it: so many decoder blocks on each node, the embedding before them and the head behind them.

This engine's items are the embedding, every block, and the final norm with the head. Other engines number the blocks alone and
give the embedding to the first stage and the head to the last one, whatever these have besides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.data.model import Item
from engine.planning.documents.partition_plan import PartitionPlan

_EMBED, _HEAD = "embed", "head"  # what this engine calls the two ends


@dataclass(frozen=True, slots=True)
class Share:
    """What one stage holds: blocks [start, stop), numbered from 0 without the embedding."""

    node_id: str
    start: int
    stop: int
    has_embedding: bool
    has_head: bool

    @property
    def num_blocks(self) -> int:
        return self.stop - self.start


def block_range(items: Sequence[Item]) -> tuple[int, int]:
    """The items that are blocks, as a half-open range.

    Blocks are what keeps keys and values; where nothing does (an encoder, a document without sizes), all but an `embed` in front and
    a `head` at the end.
    """
    keeping = [index for index, item in enumerate(items) if item.kv_bytes_per_token > 0]
    if keeping:
        return keeping[0], keeping[-1] + 1
    start, stop = int(items[0].name == _EMBED), len(items) - int(items[-1].name == _HEAD)
    return (start, stop) if start < stop else (0, len(items))


def shares_of(plan: PartitionPlan) -> tuple[Share, ...]:
    """One share for every stage, in execution order; a stage without a block has an empty range."""
    first, last = block_range(plan.items)

    def block(item: int) -> int:
        return min(max(item, first), last) - first

    return tuple(
        Share(stage.node_id, block(stage.start), block(stage.stop), stage.start == 0 and first > 0, stage.stop == len(plan.items) > last)
        for stage in plan.stages
    )
