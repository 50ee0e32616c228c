"""Which sessions run: a bounded queue, admission by KV room in order of arrival, and what ends them. Pure.

The scheduler knows tokens and room counted in tokens; it does not know nodes, plans, bytes or steps.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from engine.control.events import SessionRestored, SessionSubmitted
from engine.control.sessions.session import Session, SessionState
from engine.data.errors import Exhausted, InvalidInput
from engine.data.generation import FinishReason, Segment
from engine.planning.load import MOST_ROWS

MAX_RECOVERIES = 8
FIRST_RETRY_S = 0.05


@dataclass(frozen=True, slots=True)
class SchedulerLimits:
    """Bounds of the queue and of a step. `chunk_s` is what a step may add to the others' tokens for the sake of a prompt."""

    max_queued: int = 256
    queue_timeout_s: float = 120.0
    prompt_chunk_tokens: int = 512  # bounds the size of one message
    unknown_chunk_tokens: int = 128  # until the cost of a prompt token has been measured
    chunk_s: float = 0.15
    max_rows: int = MOST_ROWS
    step_timeout_s: float = 10.0  # a step that is out longer is lost, though every worker still beats


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

    @property
    def free_tokens(self) -> int:
        """Room that no session has reserved."""
        return max(0, self.capacity_tokens - self.reserved_tokens)

    def get(self, session_id: str) -> Session | None:
        return self._sessions.get(session_id)

    def running(self) -> list[Session]:
        return [s for s in self._sessions.values() if s.state is not SessionState.QUEUED]

    def submit(self, event: SessionSubmitted | SessionRestored, context_tokens: int, now_s: float) -> Session:
        """Queue a session; raises InvalidInput if it cannot fit the model, Exhausted if the queue is full."""
        session_id, prompt_ids, request = event.session_id, event.prompt_ids, event.request
        if session_id in self._sessions:
            raise InvalidInput(f"session {session_id} runs already: choose another id, or resume it")
        check_length(len(prompt_ids), context_tokens)
        if len(self._queue) >= self.limits.max_queued:
            raise Exhausted(f"{len(self._queue)} sessions are waiting already (limit {self.limits.max_queued}): try again later")
        max_new_tokens = min(request.max_new_tokens, context_tokens - len(prompt_ids))
        session = Session(session_id, prompt_ids, request, now_s, max_new_tokens, event.sampling, waiting_since_s=now_s)
        self._sessions[session_id] = session
        self._queue.append(session_id)
        self._largest_queued = max(self._largest_queued, session.reserve_tokens)
        return session

    def admit_next(self, now_s: float) -> Session | None:
        """Start the session at the head of the queue if its reservation fits; never lets a later one overtake it."""
        if not self._queue:
            return None
        session = self._sessions[self._queue[0]]
        if self.reserved_tokens + session.reserve_tokens > self.capacity_tokens or now_s < session.not_before_s:
            return None
        self._queue.popleft()
        if not self._queue:
            self._largest_queued = 0
        self.reserved_tokens += session.reserve_tokens
        session.state, session.was_admitted = SessionState.PREFILL, True
        session.times.admitted_s = now_s if session.times.admitted_s is None else session.times.admitted_s
        return session

    def interrupt_all(self, now_s: float) -> list[Session]:
        """Every running session goes back to the head of the queue, oldest first; returns those interrupted too often."""
        running = self.running()
        for session in reversed(running):
            session.rewind()
            session.num_recoveries += 1
            self.reserved_tokens -= session.reserve_tokens
            session.state, session.waiting_since_s = SessionState.QUEUED, now_s
            self._queue.appendleft(session.session_id)
        return [s for s in running if s.num_recoveries > MAX_RECOVERIES]

    def retry(self, session: Session, now_s: float) -> bool:
        """Send a session that still holds its reservation again from its first token, a little later; False if that failed too often."""
        session.rewind()
        session.is_careful = True
        session.not_before_s = now_s + FIRST_RETRY_S * 2**session.num_recoveries
        session.num_recoveries += 1
        return session.num_recoveries <= MAX_RECOVERIES

    def note_sampling(self, segments: Iterable[Segment], now_s: float) -> None:
        """A step was sent: from here on the first tokens that it makes wait for nothing but the stages."""
        for segment in segments:
            session = self._sessions.get(segment.session_id) if segment.sample_index == 0 else None
            if session is not None and session.times.sampling_s is None:
                session.times.sampling_s = now_s

    def hopeless(self) -> list[Session]:
        """Queued sessions whose reservation can never fit. One that ran before waits for a node to join instead."""
        if self._largest_queued <= self.capacity_tokens:
            return []
        queued = (self._sessions[i] for i in self._queue)
        return [s for s in queued if s.reserve_tokens > self.capacity_tokens and not s.was_admitted]

    def queued(self) -> list[Session]:
        """In the order in which they will be admitted."""
        return [self._sessions[i] for i in self._queue]

    def waits_for(self, place: int, session: Session) -> str:
        """Why the session at that place of the queue (1 is next) is not admitted while the plan serves."""
        if place > 1:
            return f"{place - 1} before it in the queue"
        return f"KV budget: needs {session.reserve_tokens} tokens, {self.free_tokens} of {self.capacity_tokens} are free"

    def overdue(self, now_s: float) -> list[Session]:
        queued = (self._sessions[i] for i in self._queue)
        return [s for s in queued if now_s - s.waiting_since_s > self.limits.queue_timeout_s]

    def accept_token(self, session: Session, token_id: int, now_s: float) -> None:
        session.state = SessionState.DECODE
        session.num_recoveries, session.is_careful = 0, False
        session.generated.append(token_id)
        session.times.add(now_s)

    def finish_reason(self, session: Session, eos_token_ids: tuple[int, ...], stopped: bool) -> FinishReason | None:
        """Why the session is complete after its newest token, or None if it goes on."""
        newest = session.generated[-1]
        if stopped or newest in session.sampling.stop_token_ids or (newest in eos_token_ids and not session.request.ignore_eos):
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
        """Raise AssertionError unless queue and table agree, reservations add up and no token is sent before its predecessor."""
        for what in self._broken():
            raise AssertionError(what)

    def _broken(self) -> Iterator[str]:
        queued = {s.session_id for s in self if s.state is SessionState.QUEUED}
        if queued != set(self._queue) or len(queued) != len(self._queue):
            yield "queue and table differ"
        if self.reserved_tokens != sum(s.reserve_tokens for s in self.running()):
            yield "reservations do not add up"
        for session in self:
            name = session.session_id
            if session.state is SessionState.QUEUED and session.num_sent:
                yield f"{name} is queued, but tokens of it were sent"
            if not session.num_landed <= min(session.num_sent, session.num_tokens) or session.num_sent > session.num_tokens + 1:
                yield f"{name} sent {session.num_sent} tokens"
            if len(session.generated) > session.max_new_tokens:
                yield f"{name} generated too much"
            if session.chunk_stops != sorted(set(session.chunk_stops)):
                yield f"{name} was cut at {session.chunk_stops}"


def check_length(num_prompt_tokens: int, context_tokens: int) -> None:
    """Raise InvalidInput for a prompt that leaves no room for a token of the answer."""
    if num_prompt_tokens >= context_tokens:
        raise InvalidInput(
            f"the prompt has {num_prompt_tokens} tokens, the model's context holds {context_tokens} with at least one for the answer: "
            f"shorten the prompt to {context_tokens - 1} tokens or fewer"
        )
