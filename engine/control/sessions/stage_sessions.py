"""Which session segments a stage may append: epochs, positions, at-most-once. Pure; it holds no tensors.

The worker calls `admit` and, once the keys and values are appended, `commit`, in one critical section with the append.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from engine.control.moves import Carried
from engine.control.sessions.reuse.digests import token_digest
from engine.data.errors import Corrupt, Gap, NotFound, Stale, Unavailable
from engine.data.generation import Kept, Segment, Taken
from engine.data.sampling import Sampling


@dataclass(slots=True)
class StageSession:
    """One session on one stage: `token_ids` are all tokens appended so far, prompt included; the last `num_proposed` may not hold."""

    epoch: int
    sampling: Sampling
    token_ids: list[int] = field(default_factory=list)
    reserve_tokens: int = 0
    last_position: int = -1
    last_reply: Any = None
    num_proposed: int = 0
    next_token: int | None = None  # chosen behind them on this stage, and not appended yet

    def may_end_at(self, num_tokens: int) -> bool:
        """Whether it has so many tokens, or will once proposals that did not hold are cut off."""
        return len(self.token_ids) - self.num_proposed <= num_tokens <= len(self.token_ids)

    def cut(self, num_tokens: int) -> None:
        """Only the first `num_tokens` hold. What was appended last cannot be repeated any more."""
        del self.token_ids[num_tokens:]
        self.num_proposed, self.last_position, self.last_reply, self.next_token = 0, -1, None, None


@dataclass(frozen=True, slots=True)
class Append:
    """Append the segment; one that `cuts` begins before the end of what the stage holds, and the rest is forgotten first."""

    session: StageSession
    opens: bool
    cuts: bool = False


@dataclass(frozen=True, slots=True)
class Replay:
    """The segment was appended before: send the same reply again, append nothing."""

    reply: Any


class StageSessions:
    """All sessions of a stage under one plan version."""

    def __init__(self, plan_version: int) -> None:
        self.plan_version = plan_version
        self._sessions: dict[str, StageSession] = {}
        self._kept: dict[int, list[int]] = {}  # by id: the tokens whose keys and values stay

    def __len__(self) -> int:
        return len(self._sessions)

    def ids(self) -> tuple[str, ...]:
        return tuple(self._sessions)

    def get(self, session_id: str, epoch: int) -> StageSession:
        """The open session in that epoch; raises NotFound or Stale."""
        session = self._sessions.get(session_id)
        if session is None:
            raise NotFound(f"session {session_id} is not open on this stage: it ended, or it never began here")
        if session.epoch != epoch:
            raise Stale(f"session {session_id} is in epoch {session.epoch}, the request names {epoch}")
        return session

    def find(self, session_id: str) -> StageSession | None:
        return self._sessions.get(session_id)

    def replace(self, session_id: str, session: StageSession) -> None:
        """What is known of a session from now on."""
        self._sessions[session_id] = session

    def check_plan(self, plan_version: int) -> None:
        """Raises Unavailable for a step of another plan: sending it again mends nothing, loading the stages again does."""
        if plan_version != self.plan_version:
            raise Unavailable(f"step of plan {plan_version} arrived at a stage of plan {self.plan_version}: fetch the current plan")

    def check_newer(self, plan_version: int) -> None:
        """A stage of that plan may take this one's place: a request that was long on its way must not bring an old plan back."""
        if plan_version < self.plan_version:
            raise Stale(f"a stage of plan {plan_version} was asked for after one of plan {self.plan_version}: the request came too late")

    def known(self, segment: Segment) -> Segment | None:
        """A segment that follows, with its token: the one that the step before it chose here in the same epoch.

        None if that step did not run here, or chose none: then nobody waits for this one, for who sent both hears of the first.
        """
        session = self._sessions.get(segment.session_id)
        if session is None or session.epoch != segment.epoch:
            return None
        token_ids = session.token_ids[segment.position :] if segment.position == session.last_position else [session.next_token]
        if segment.position not in (session.last_position, len(session.token_ids)) or len(token_ids) != 1 or token_ids[0] is None:
            return None
        return replace(segment, token_ids=(token_ids[0],), follows=False)

    def admit(self, segment: Segment) -> Append | Replay:
        """Decide what to do with a segment; raises Stale, Gap, NotFound or Corrupt and then changes nothing."""
        session = self._sessions.get(segment.session_id)
        if session is None or segment.epoch > session.epoch:
            return self._admit_opening(segment, known=session is not None)
        if segment.epoch < session.epoch:
            raise Stale(f"session {segment.session_id} is in epoch {session.epoch}, the step carries {segment.epoch}: it was moved")
        length = len(session.token_ids)
        if session.may_end_at(segment.position):
            return Append(session, opens=False, cuts=segment.position < length)
        if segment.position == session.last_position:
            if (tuple(session.token_ids[segment.position :]), session.num_proposed) != (segment.token_ids, segment.num_proposed):
                raise Corrupt(f"session {segment.session_id} position {segment.position} arrived twice with different tokens")
            return Replay(session.last_reply)
        if segment.position > length:
            raise Gap(f"session {segment.session_id} holds {length} tokens here, the step starts at {segment.position}: send from {length}")
        raise Stale(f"session {segment.session_id} position {segment.position} was appended long ago: this stage holds {length} tokens")

    def _admit_opening(self, segment: Segment, known: bool) -> Append:
        if segment.taken is not None and segment.sampling is not None:
            token_ids = self._taken(segment, segment.taken)
            return Append(StageSession(segment.epoch, segment.sampling, token_ids, segment.reserve_tokens), opens=True)
        if segment.position != 0 or segment.sampling is None:
            what = f"epoch {segment.epoch} of session" if known else "session"
            raise NotFound(f"{what} {segment.session_id} is not open on this stage: it ended, or its first step was lost")
        return Append(StageSession(segment.epoch, segment.sampling, reserve_tokens=segment.reserve_tokens), opens=True)

    def commit(self, segment: Segment, session: StageSession, reply: Any, chosen: Sequence[int] = ()) -> None:
        """The append of an admitted segment succeeded; `reply` is what a repeat of it will get, `chosen` the tokens in it."""
        session.token_ids.extend(segment.token_ids)
        session.num_proposed = segment.num_proposed
        session.next_token = chosen[0] if len(chosen) == 1 and not segment.num_proposed else None
        session.last_position, session.last_reply = segment.position, reply
        self._sessions[segment.session_id] = session
        if segment.taken is not None and segment.taken.moves:
            self.drop(segment.taken.kept_id)

    def carry(self, plan_version: int, carried: Iterable[Carried], imported: StageSessions) -> tuple[StageSessions, tuple[str, ...]]:
        """The table under the next plan: these sessions in their new epochs, and the ids of those that are not as they must be.

        A session is known from its steps here, or from its copy in `imported`; it must be in the old epoch with exactly as
        many tokens as every other stage has, but for proposals that did not hold, or it may not go on.
        """
        following, missing = StageSessions(plan_version), []
        for one in carried:
            candidates = (self.find(one.session_id), imported.find(one.session_id))
            fit = [s for s in candidates if s is not None and s.epoch == one.epoch and s.may_end_at(one.num_tokens)]
            if fit:
                token_ids = fit[0].token_ids[: one.num_tokens]
                following.replace(one.session_id, StageSession(one.new_epoch, fit[0].sampling, token_ids, fit[0].reserve_tokens))
            else:
                missing.append(one.session_id)
        return following, tuple(missing)

    def release(self, session_id: str) -> bool:
        """Forget a session; True if it was known."""
        return self._sessions.pop(session_id, None) is not None

    # ------------------------------------------------------------------------------------------ what stays of sessions that ended
    def keep(self, kept: Kept) -> bool:
        """A session ended. Whether its first tokens stay: they do if it is here as it is on every other stage."""
        session = self._sessions.pop(kept.session_id, None)
        if session is None or session.epoch != kept.epoch or len(session.token_ids) < kept.num_tokens:
            return False
        self._kept[kept.kept_id] = session.token_ids[: kept.num_tokens]
        return True

    def drop(self, kept_id: int) -> None:
        """Keep it no longer; an unknown id is fine."""
        self._kept.pop(kept_id, None)

    def kept_ids(self) -> tuple[int, ...]:
        return tuple(self._kept)

    def _taken(self, segment: Segment, taken: Taken) -> list[int]:
        """The tokens that a session begins with; raises NotFound or Corrupt if they are not here as they must be on every stage."""
        where, held = f"was kept as {taken.kept_id}", self._kept.get(taken.kept_id, [])
        if taken.session_id:
            running = self._sessions.get(taken.session_id)
            where = f"session {taken.session_id} has in epoch {taken.epoch}"
            held = running.token_ids if running is not None and running.epoch == taken.epoch else []
        token_ids = held[: taken.num_tokens]
        if not 0 < len(token_ids) == taken.num_tokens == segment.position:
            what = f"{len(token_ids)} of its {taken.num_tokens} tokens"
            raise NotFound(f"session {segment.session_id} begins with what {where}, of which this stage has {what}")
        if token_digest(token_ids) != taken.digest:
            raise Corrupt(f"session {segment.session_id} begins with other tokens than {where} here")
        return token_ids
