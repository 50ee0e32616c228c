"""What a migration costs: the bytes that move, how long that takes, and what serving loses meanwhile, in seconds.

The new owners load while the old plan serves; that costs the running steps a share of the loading time. Then comes a
short pause at a token boundary. Pause and loading speed are learnt from the migrations that were done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.data.model import Item
from engine.data.plan import Stage

_LEARN = 0.5  # weight of the newest migration


@dataclass(frozen=True, slots=True)
class ItemMove:
    """Items [start, stop) change from one node to another."""

    start: int
    stop: int
    source: str
    target: str

    def __str__(self) -> str:
        items = f"item {self.start}" if self.stop == self.start + 1 else f"items {self.start}-{self.stop - 1}"
        return f"{items} from {self.source} to {self.target}"


def item_moves(before: Sequence[Stage], after: Sequence[Stage]) -> tuple[ItemMove, ...]:
    """Which items change hands, as the longest runs, in order of the items."""
    owner = {item: stage.node_id for stage in before for item in range(stage.start, stage.stop)}
    moves: list[ItemMove] = []
    for stage in sorted(after, key=lambda s: s.start):
        for item in range(stage.start, stage.stop):
            source = owner.get(item, "")
            last = moves[-1] if moves else None
            if source == stage.node_id:
                continue
            if last and last.stop == item and (last.source, last.target) == (source, stage.node_id):
                moves[-1] = ItemMove(last.start, item + 1, source, stage.node_id)
            else:
                moves.append(ItemMove(item, item + 1, source, stage.node_id))
    return tuple(moves)


@dataclass(frozen=True, slots=True)
class MigrationCost:
    """`cost_s` is what serving loses, the pause included; `load_s` is how long it takes until the pause."""

    moves: tuple[ItemMove, ...]
    weight_bytes: int
    kv_bytes: int
    load_s: float
    pause_s: float
    cost_s: float
    busiest_bytes: int = 0  # weights of the node that loads for longest
    busiest_s: float = 0.0  # until it has loaded them


@dataclass(slots=True)
class MigrationRates:
    """How fast layers and KV travel here; the defaults hold until the first migration was measured."""

    load_bytes_per_s: float = 5e8
    kv_bytes_per_s: float = 1e8
    pause_s: float = 0.25
    load_share: float = 0.25  # of the loading time that serving loses

    def cost(self, items: Sequence[Item], before: Sequence[Stage], after: Sequence[Stage], kv_tokens: int) -> MigrationCost:
        """Nodes load side by side, so the one that gets most sets the time."""
        moves = item_moves(before, after)
        weight_bytes = sum(i.weight_bytes for move in moves for i in items[move.start : move.stop])
        kv_bytes = sum(i.kv_bytes_per_token * kv_tokens for move in moves for i in items[move.start : move.stop])
        by_target: dict[str, tuple[int, float]] = {}  # bytes of weights, seconds of copying
        for move in moves:
            moved, (held_bytes, held_s) = items[move.start : move.stop], by_target.get(move.target, (0, 0.0))
            copy_s = sum(i.kv_bytes_per_token for i in moved) * kv_tokens / self.kv_bytes_per_s
            by_target[move.target] = held_bytes + sum(i.weight_bytes for i in moved), held_s + copy_s
        loads = [(size / self.load_bytes_per_s, copy_s, size) for size, copy_s in by_target.values()]
        load_s = max((read_s + copy_s for read_s, copy_s, _ in loads), default=0.0)
        busiest_s, _, busiest_bytes = max(loads, default=(0.0, 0.0, 0))
        cost_s = self.pause_s + self.load_share * load_s
        return MigrationCost(moves, weight_bytes, kv_bytes, load_s, self.pause_s, cost_s, busiest_bytes, busiest_s)

    def learn(self, pause_s: float, cost: MigrationCost, load_s: float) -> None:
        """A migration of that cost paused serving for `pause_s`, its weights were loaded in `load_s`; zeros teach nothing.

        Nodes load side by side, so the speed is that of the one that had most to load.
        """
        if pause_s > 0.0:
            self.pause_s += _LEARN * (pause_s - self.pause_s)
        if cost.busiest_bytes > 0 and load_s > 0.0:
            self.load_bytes_per_s += _LEARN * (cost.busiest_bytes / load_s - self.load_bytes_per_s)
