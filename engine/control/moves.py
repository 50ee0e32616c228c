"""One live change of plan: who must prepare what, which keys and values travel, when the old plan ends. Pure.

A move never stops the old plan before everything it needs is in place:
  prepare   every node of the new plan loads the items it lacks, beside the stage it serves
  pre-copy  keys and values of the moving items are copied while tokens keep coming
  barrier   no step is sent; those in flight come back
  delta     the tokens since the pre-copy are copied
  commit    the new plan is journalled, every node switches, epochs rise, steps go on
Up to the commit the old plan holds and the move can be dropped at any point; from the commit on the new one holds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from engine.data.model import ModelCard
from engine.data.moves import MoveReport
from engine.data.plan import Plan, Stage

BARRIER_LIMIT_S = 5.0
RETRY_S = 2.0


@dataclass(frozen=True, slots=True)
class Transfer:
    """Items [start, stop) go from one node to another."""

    source_id: str
    target_id: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class KvRange:
    """Tokens [start_token, stop_token) of one session, to be copied."""

    session_id: str
    epoch: int
    start_token: int
    stop_token: int


@dataclass(frozen=True, slots=True)
class Carried:
    """A session that goes on under the new plan: the stage must hold `num_tokens` of it in `epoch`, and raises it."""

    session_id: str
    epoch: int
    new_epoch: int
    num_tokens: int


def transfers(old: Plan, new: Plan, card: ModelCard) -> tuple[Transfer, ...]:
    """What changes hands, one entry per pair of owners. Ranges without keys and values count only for a node new to the plan,
    which learns its sessions from them."""
    found = []
    for target in new.stages:
        for source in old.stages:
            start, stop = max(target.start, source.start), min(target.stop, source.stop)
            if start >= stop or source.node_id == target.node_id:
                continue
            has_kv = any(i.kv_bytes_per_token for i in card.items[start:stop])
            if has_kv or old.stage_of(target.node_id) is None:
                found.append(Transfer(source.node_id, target.node_id, start, stop))
    return tuple(found)


def num_moved(old: Plan, new: Plan) -> int:
    """Items whose owner changes."""
    return sum(s.num_items - _overlap(s, old.stage_of(s.node_id)) for s in new.stages)


def _overlap(a: Stage, b: Stage | None) -> int:
    return max(0, min(a.stop, b.stop) - max(a.start, b.start)) if b else 0


@dataclass(frozen=True, slots=True)
class Wish:
    """A change of plan that is due: why, and what was seen in a preview and asked for; without `stages` the planner chooses."""

    cause: str
    stages: tuple[Stage, ...] = ()
    strategy: str = ""  # what found those stages, if a planner did
    is_retried: bool = True  # by the cluster, where it did not come to its end; adaptation decides for itself


@dataclass(slots=True)
class Move:
    """Progress of one move; what it waits for is in the sets, so that any order of answers leads to the same end."""

    old: Plan
    new: Plan
    card: ModelCard
    wish: Wish
    started_s: float
    transfers: tuple[Transfer, ...]
    unprepared: set[str]
    uncopied: set[Transfer] = field(default_factory=set)
    uncommitted: set[str] = field(default_factory=set)
    copied: dict[tuple[str, int], int] = field(default_factory=dict)  # (session id, epoch): tokens that every target holds
    round: int = 0  # of copies; 0 before the pre-copy, 2 is the delta
    prepared_s: float = 0.0
    barrier_s: float | None = None
    committed: bool = False
    weight_bytes: int = 0
    kv_bytes: int = 0

    @property
    def holds_steps(self) -> bool:
        """No step may be sent: the barrier is down."""
        return self.barrier_s is not None

    def next_round(self, landed: Iterable[tuple[str, int, int]]) -> tuple[KvRange, ...]:
        """Begin a round of copies: what each session (its id, its epoch, its tokens on all stages) has beyond the last round."""
        self.round += 1
        ranges = []
        for session_id, epoch, num_tokens in landed:
            start = self.copied.get((session_id, epoch), 0)
            if num_tokens > start:
                ranges.append(KvRange(session_id, epoch, start, num_tokens))
                self.copied[session_id, epoch] = num_tokens
        self.uncopied = set(self.transfers) if ranges else set()
        return tuple(ranges)

    def report(self, now_s: float, outcome: str) -> MoveReport:
        pause_s = now_s - self.barrier_s if self.barrier_s is not None else 0.0
        prepare_s = (self.prepared_s or now_s) - self.started_s
        moved = num_moved(self.old, self.new)
        return MoveReport(self.new.plan_version, self.wish.cause, moved, self.weight_bytes, self.kv_bytes, prepare_s, pause_s, outcome)
