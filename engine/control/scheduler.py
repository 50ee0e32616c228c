"""Which session runs next: a bounded queue, admission by KV room, one step at a time per session. Pure.

The scheduler knows tokens and room counted in tokens; it does not know nodes, plans or bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from engine.data import Exhausted, FinishReason, GenerateRequest, InvalidInput, Segment


@dataclass(frozen=True, slots=True)
class SchedulerLimits:
    max_queued: int = 256
    queue_timeout_s: float = 120.0
    prompt_chunk_tokens: int = 512  # bounds the size of one message


class SessionState(StrEnum):
    QUEUED = "queued"
    PREFILL = "prefill"
    DECODE = "decode"


@dataclass(slots=True)
class Session:
    """One generation. `num_sent` tokens of prompt and answer have been handed to the first stage."""

    session_id: str
    prompt_ids: tuple[int, ...]
    request: GenerateRequest
    submitted_s: float
    max_new_tokens: int
    state: SessionState = SessionState.QUEUED
    epoch: int = 1
    generated: list[int] = field(default_factory=list)
    num_sent: int = 0
    first_token_s: float | None = None
    last_token_s: float = 0.0

    @property
    def reserve_tokens(self) -> int:
        return len(self.prompt_ids) + self.max_new_tokens

    def tokens_per_s(self) -> float:
        if self.first_token_s is None or len(self.generated) < 2 or self.last_token_s <= self.first_token_s:
            return 0.0
        return (len(self.generated) - 1) / (self.last_token_s - self.first_token_s)


@dataclass(frozen=True, slots=True)
class Flight:
    """A step that was sent and not yet reported."""

    session_id: str
    sent_s: float
    is_decode: bool


class Scheduler:
    """Sessions in order of arrival; the sum of their reservations never exceeds `capacity_tokens`."""

    def __init__(self, limits: SchedulerLimits) -> None:
        self.limits = limits
        self.capacity_tokens = 0
        self._sessions: dict[str, Session] = {}
        self._queue: deque[str] = deque()
        self.reserved_tokens = 0
        self._largest_queued = 0  # reservation of any session since the queue was last empty: `hopeless` is asked at every event

    def __iter__(self) -> Iterator[Session]:
        return iter(self._sessions.values())

    def get(self, session_id: str) -> Session | None:
        return self._sessions.get(session_id)

    @property
    def num_queued(self) -> int:
        return len(self._queue)

    def running(self) -> list[Session]:
        return [s for s in self._sessions.values() if s.state is not SessionState.QUEUED]

    def submit(self, session_id: str, prompt_ids: tuple[int, ...], request: GenerateRequest, context_tokens: int, now_s: float) -> Session:
        """Queue a session; raises InvalidInput if it cannot fit the model, Exhausted if the queue is full."""
        if len(prompt_ids) >= context_tokens:
            raise InvalidInput(
                f"the prompt has {len(prompt_ids)} tokens, the model's context holds {context_tokens} with at least one for the answer: "
                f"shorten the prompt to {context_tokens - 1} tokens or fewer"
            )
        if len(self._queue) >= self.limits.max_queued:
            raise Exhausted(f"{len(self._queue)} sessions are waiting already (limit {self.limits.max_queued}): try again later")
        max_new_tokens = min(request.max_new_tokens, context_tokens - len(prompt_ids))
        session = Session(session_id, prompt_ids, request, now_s, max_new_tokens)
        self._sessions[session_id] = session
        self._queue.append(session_id)
        self._largest_queued = max(self._largest_queued, session.reserve_tokens)
        return session

    def admit_next(self) -> Session | None:
        """Start the session at the head of the queue if its reservation fits; never lets a later one overtake it."""
        if not self._queue:
            return None
        session = self._sessions[self._queue[0]]
        if self.reserved_tokens + session.reserve_tokens > self.capacity_tokens:
            return None
        self._queue.popleft()
        if not self._queue:
            self._largest_queued = 0
        self.reserved_tokens += session.reserve_tokens
        session.state = SessionState.PREFILL
        return session

    def hopeless(self) -> list[Session]:
        """Queued sessions whose reservation can never fit."""
        if self._largest_queued <= self.capacity_tokens:
            return []
        return [s for s in (self._sessions[i] for i in self._queue) if s.reserve_tokens > self.capacity_tokens]

    def overdue(self, now_s: float) -> list[Session]:
        return [s for s in (self._sessions[i] for i in self._queue) if now_s - s.submitted_s > self.limits.queue_timeout_s]

    def prompt_segments(self, session: Session) -> list[Segment]:
        """The whole prompt in chunks; the last one samples the first token."""
        size, prompt = self.limits.prompt_chunk_tokens, session.prompt_ids
        session.num_sent = len(prompt)
        return [
            Segment(
                session.session_id,
                session.epoch,
                position,
                prompt[position : position + size],
                sample_index=0 if position + size >= len(prompt) else None,
                sampling=session.request.sampling if position == 0 else None,
            )
            for position in range(0, len(prompt), size)
        ]

    def next_segment(self, session: Session) -> Segment:
        """The step that feeds the newest token back."""
        position, session.num_sent = session.num_sent, session.num_sent + 1
        return Segment(session.session_id, session.epoch, position, (session.generated[-1],), sample_index=len(session.generated))

    def accept_token(self, session: Session, token_id: int, now_s: float) -> None:
        session.state = SessionState.DECODE
        session.generated.append(token_id)
        session.last_token_s = now_s
        if session.first_token_s is None:
            session.first_token_s = now_s

    def finish_reason(self, session: Session, eos_token_ids: tuple[int, ...], stopped: bool) -> FinishReason | None:
        """Why the session is complete after its newest token, or None if it goes on."""
        if stopped or (session.generated[-1] in eos_token_ids and not session.request.ignore_eos):
            return FinishReason.STOP
        return FinishReason.LENGTH if len(session.generated) >= session.max_new_tokens else None

    def too_large(self, session: Session) -> Exhausted:
        """What to tell a session whose reservation can never fit."""
        return Exhausted(
            f"the session needs KV for {session.reserve_tokens} tokens ({len(session.prompt_ids)} prompt + {session.max_new_tokens} new), "
            f"the budget holds {self.capacity_tokens}: ask for fewer tokens or start the workers with a larger --kv-memory"
        )

    def remove(self, session: Session) -> None:
        """Forget a session and give its reservation back."""
        if session.state is SessionState.QUEUED:
            self._queue.remove(session.session_id)
        else:
            self.reserved_tokens -= session.reserve_tokens
        del self._sessions[session.session_id]

    def check(self) -> None:
        """The invariants: queue and table agree, reservations add up and fit."""
        queued = {s.session_id for s in self if s.state is SessionState.QUEUED}
        _invariant(queued == set(self._queue) and len(queued) == len(self._queue), "queue and table differ")
        _invariant(self.reserved_tokens == sum(s.reserve_tokens for s in self.running()), "reservations do not add up")
        for session in self.running():
            expected = len(session.prompt_ids) + max(0, len(session.generated) - 1)
            _invariant(session.num_sent in (expected, expected + 1), f"{session.session_id} sent {session.num_sent}, expected {expected}")
            _invariant(len(session.generated) <= session.max_new_tokens, f"{session.session_id} generated too much")


def _invariant(holds: bool, what: str) -> None:
    if not holds:
        raise AssertionError(what)
