"""Keys and values that stay on the stages after their sessions, for sessions whose prompts begin alike. Pure.

A session may begin with the prompt of one that still runs as well, which costs no room but its own. What is kept belongs to one plan:
when the plan changes, nothing is kept any more. It lies in room that no session has reserved, and goes as soon as one needs that room.
Callers do not share: the key of a block holds who it is from, unless an operator declared its tokens shared. See "Kept keys and values"
in the README of `engine/control`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace

from engine.control.sessions.reuse.digests import field_digest, token_bytes, token_digest
from engine.control.sessions.reuse.prefix_index import PrefixIndex
from engine.control.sessions.session import Session
from engine.data.generation import Kept, Taken
from engine.data.model import ModelCard
from engine.data.plan import Plan

BLOCK_TOKENS = 16


@dataclass(frozen=True, slots=True)
class PrefixSettings:
    """A prompt is cut into blocks to be compared. Half a block is computed again on average, and a prompt's token takes milliseconds on a
    CPU, where the hash of a block takes a microsecond: so blocks are small, and divide the pages of accelerators."""

    is_on: bool = False
    block_tokens: int = BLOCK_TOKENS


@dataclass(slots=True)
class PrefixCounts:
    """Since the coordinator began; prompts count with their first token."""

    prompt_tokens: int = 0
    cached_tokens: int = 0  # of them, those that were not computed again
    evictions: int = 0  # what was kept and had to make room


@dataclass(frozen=True, slots=True)
class Running:
    """An admitted session, with the keys of its prompt's whole blocks."""

    session: Session
    keys: tuple[bytes, ...]


class PrefixCache:
    """What the stages of the present plan keep, and what they still have to be told of it (`take_orders`)."""

    def __init__(self, settings: PrefixSettings) -> None:
        self.settings = settings
        self.shared: tuple[tuple[int, ...], ...] = ()  # beginnings of prompts that callers share
        self.counts = PrefixCounts()
        self._index = PrefixIndex()
        self._root = b""
        self._next_id = 1
        self._running: dict[str, Running] = {}  # admitted under the present plan
        self._takers: list[Session] = []  # admitted, and their first chunk is not sent
        self._kept: list[Kept] = []
        self._dropped: list[int] = []

    def __len__(self) -> int:
        return len(self._index)

    @property
    def num_tokens(self) -> int:
        """Tokens whose keys and values are kept."""
        return self._index.num_blocks * self.settings.block_tokens

    # ------------------------------------------------------------------------------------------ plans
    def start_plan(self, plan: Plan, card: ModelCard) -> None:
        """Other stages from now on: what was kept is gone."""
        self.forget()
        dtypes = (card.ref.dtype.encode(), card.ref.kept_dtype.encode())
        fields = [b"noodle kept 1", card.fingerprint.encode(), *dtypes, str(plan.plan_version).encode()]
        stages = [field for s in plan.stages for field in (s.node_id.encode(), str(s.start).encode(), str(s.stop).encode())]
        self._root = field_digest([*fields, *stages])

    def forget(self) -> None:
        """The plan no longer runs, and its stages keep nothing."""
        self._index.clear()
        self._running.clear()
        self._kept.clear()
        self._dropped.clear()
        for session in self._takers:
            session.reuse.pending = None
        self._takers.clear()

    # ------------------------------------------------------------------------------------------ sessions begin
    def admitted(self, session: Session, room_tokens: int) -> None:
        """Let a session begin with what is kept or with what another one has; sessions leave `room_tokens`, its own reservation counted.

        One whose prompt was sent before travels again as it did.
        """
        if self.settings.is_on and session.reuse.caller:
            keys = self._keys(session.reuse.caller, session.prompt_ids[:-1])  # the last token is always computed
            if not session.chunk_stops and not session.generated:
                self._let_begin(session, keys, room_tokens)
            self._running[session.session_id] = Running(session, keys)
        self.fit(room_tokens)

    def _let_begin(self, session: Session, keys: tuple[bytes, ...], room_tokens: int) -> None:
        kept = self._index.longest(keys)
        num_kept = kept[1] if kept is not None else 0
        source, num_running = self._longest_running(keys, num_kept)
        num_tokens = max(num_kept, num_running) * self.settings.block_tokens
        digest = token_digest(session.prompt_ids[:num_tokens])
        if source is not None:
            session.reuse.pending = Taken(0, num_tokens, digest, session_id=source.session_id, epoch=source.epoch)
        elif kept is not None:
            entry = kept[0]
            self._index.touch(entry.kept_id)
            moves = self._must_move(entry.kept_id, num_kept == len(entry.keys), room_tokens)
            session.reuse.pending = Taken(entry.kept_id, num_tokens, digest, moves)
            if moves:
                self._index.remove(entry.kept_id)
        else:
            return
        self._takers = [s for s in self._takers if s.reuse.pending is not None] + [session]

    def _longest_running(self, keys: tuple[bytes, ...], num_blocks: int) -> tuple[Session | None, int]:
        """The session that has the most of these blocks on every stage, and how many, if they are more than `num_blocks`."""
        source = None
        for one in self._running.values():
            most = min(len(keys), len(one.keys), one.session.num_landed // self.settings.block_tokens)
            if most > num_blocks and one.keys[num_blocks] == keys[num_blocks]:  # equal keys: all blocks before are equal too
                source, num_blocks = one.session, _num_equal(one.keys, keys, most)
        return source, num_blocks

    def _must_move(self, kept_id: int, is_whole: bool, room_tokens: int) -> bool:
        """Whether the session takes it over for itself: a copy would cost something else that is kept, or there is no room for one.

        What the session takes as a whole is kept again when it ends.
        """
        if kept_id in self._pinned():
            return False
        if is_whole:
            return self.num_tokens > room_tokens
        return self._index.num_blocks_of((kept_id, *self._pinned())) * self.settings.block_tokens > room_tokens

    def _pinned(self) -> set[int]:
        """What a session will begin with whose first chunk is not sent."""
        return {p.kept_id for s in self._takers if (p := s.reuse.pending) is not None and p.kept_id and not p.moves}

    def fit(self, room_tokens: int) -> None:
        """Make room: sessions leave so many tokens."""
        most_blocks = room_tokens // self.settings.block_tokens
        if not self._index.is_above(most_blocks):
            return
        evicted = self._index.evict(most_blocks, self._pinned())
        if last := self._index.evict(most_blocks):
            for session in self._takers:
                if session.reuse.pending is not None and session.reuse.pending.kept_id in last:
                    session.reuse.pending = None
        self.counts.evictions += len(evicted) + len(last)
        self._dropped += [*evicted, *last]

    def answered(self, session: Session) -> None:
        """Its first token came."""
        self.counts.prompt_tokens += len(session.prompt_ids)
        self.counts.cached_tokens += session.reuse.num_cached

    def refused(self, taken: Taken) -> None:
        """A session could not begin with it: not every stage has it."""
        if taken.kept_id:
            self._index.remove(taken.kept_id)
            self._dropped.append(taken.kept_id)

    # ------------------------------------------------------------------------------------------ sessions end
    def ended(self, session: Session, is_sound: bool) -> bool:
        """Whether the stages keep something of a session that ran; if not, they only release it. Nothing is kept of one that failed."""
        is_kept = self._keep(session, is_sound)
        for taker in self._takers:
            pending = taker.reuse.pending
            if pending is not None and pending.session_id == session.session_id:
                taker.reuse.pending = self._from_kept(taker, pending)
        self._running.pop(session.session_id, None)
        return is_kept

    def _from_kept(self, taker: Session, pending: Taken) -> Taken | None:
        """The same tokens, of what is kept; the session that had them has ended."""
        num_blocks = pending.num_tokens // self.settings.block_tokens
        found = self._index.longest(self._running[taker.session_id].keys[:num_blocks])
        if found is None or found[1] < num_blocks:
            return None
        return Taken(found[0].kept_id, pending.num_tokens, pending.digest)

    def _keep(self, session: Session, is_sound: bool) -> bool:
        pending, session.reuse.pending = session.reuse.pending, None
        if pending is not None and pending.moves:
            self._dropped.append(pending.kept_id)
        if not self.settings.is_on or not session.reuse.caller or not is_sound:
            return False
        running = self._running.get(session.session_id)
        keys = self._keys(session.reuse.caller, session.landed_tokens(), running.keys if running is not None else ())
        kept_id = self._next_id
        was_added, shorter = self._index.add(kept_id, keys)
        if not was_added:
            return False
        self._next_id += 1
        self._kept.append(Kept(kept_id, session.session_id, session.epoch, len(keys) * self.settings.block_tokens))
        self._dropped += shorter
        for taker in self._takers:
            if taker.reuse.pending is not None and taker.reuse.pending.kept_id in shorter:
                taker.reuse.pending = replace(taker.reuse.pending, kept_id=kept_id)
        return True

    def take_orders(self) -> tuple[tuple[Kept, ...], tuple[int, ...]]:
        """What the stages have to be told: what is kept, then what is kept no longer."""
        orders = tuple(self._kept), tuple(self._dropped)
        self._kept.clear()
        self._dropped.clear()
        return orders

    # ------------------------------------------------------------------------------------------ keys
    def _keys(self, caller: bytes, token_ids: Sequence[int], known: Sequence[bytes] = ()) -> tuple[bytes, ...]:
        """One key for each whole block, made from the key before it, who it is from, and its tokens; `known` are those of the first blocks,
        made under the same plan."""
        size = self.settings.block_tokens
        keys = [*known[: len(token_ids) // size]]
        key = keys[-1] if keys else self._root
        num_shared = max((_num_common(token_ids, one) for one in self.shared), default=0)
        for stop in range(size * (len(keys) + 1), len(token_ids) + 1, size):
            owner = b"" if stop <= num_shared else caller
            key = field_digest((key, owner, token_bytes(token_ids[stop - size : stop])))
            keys.append(key)
        return tuple(keys)

    def check(self) -> None:
        """Raise AssertionError unless the books agree."""
        self._index.check()
        for session in self._takers:
            pending = session.reuse.pending
            if pending is not None and pending.kept_id and not pending.moves and pending.kept_id not in self._index:
                raise AssertionError(f"{session.session_id} is to begin with what is kept no longer")
            if pending is not None and pending.session_id not in ("", *self._running):
                raise AssertionError(f"{session.session_id} is to begin with what {pending.session_id} has, which ended")


def _num_equal(one: Sequence[bytes], other: Sequence[bytes], most: int) -> int:
    """How many of the first `most` keys are equal; behind the first that differs, all do."""
    return bisect_left(range(most), True, key=lambda i: one[i] != other[i])


def _num_common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
