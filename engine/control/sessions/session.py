"""One generation as the coordinator knows it, and which of its tokens a stage must be given next. Pure.

The tokens of a session are its prompt followed by what it generated. Keys and values of all but the newest have to be on
the stages before the next one can be sampled: that part is its *prefix*. After a loss the prefix is sent again in a higher
epoch: the prompt in the chunks in which it was first sent, then the generated tokens, which are known and never sampled
again. Random numbers depend on (seed, index) alone, so the answer goes on as if nothing had happened. Generated tokens travel as chunks
and not one by one, which is an order of magnitude faster: their keys and values then differ in the last bits, which moves the logits
of GPT-2 124M by up to 4e-5, as much as sharing a step with seven others does (2e-5), where the two best are 0.08 apart in the median.
A session that began with keys and values of an earlier one (`Reuse`) begins a later epoch with its first token, as any other: all its
tokens are known.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from enum import StrEnum

from engine.data.generation import UNKNOWN, GenerateRequest, Segment, Taken
from engine.data.sampling import GREEDY, Sampling

STEP_WINDOW = 64


class SessionState(StrEnum):
    QUEUED = "queued"
    PREFILL = "prefill"
    DECODE = "decode"


@dataclass(slots=True)
class TokenTimes:
    """When a session's tokens came."""

    num_inherited: int = 0  # of its tokens, those of a former coordinator: nobody knows when they came
    admitted_s: float | None = None  # when it left the queue for the first time
    sampling_s: float | None = None  # when the step that makes its first token was sent
    first_s: float | None = None  # the first that came here
    last_s: float = 0.0
    step_s: deque[float] = field(default_factory=lambda: deque(maxlen=STEP_WINDOW))  # between the last ones

    def add(self, now_s: float) -> None:
        """One more came."""
        if self.first_s is None:
            self.first_s = now_s
        else:
            self.step_s.append(now_s - self.last_s)
        self.last_s = now_s


@dataclass(slots=True)
class Reuse:
    """What a session begins with: keys and values that an earlier one left on the stages."""

    caller: bytes = b""  # for whom it runs; empty: nothing of it is kept, and it takes nothing over
    pending: Taken | None = None  # goes out with its first chunk
    num_taken: int = 0  # of its tokens, in the epoch in which it took them over; a later one computes them
    num_cached: int = 0  # of its prompt's tokens, those that need not be computed before its first token

    def take(self) -> Taken | None:
        """What its first chunk says."""
        taken, self.pending = self.pending, None
        if taken is not None:
            self.num_taken = self.num_cached = taken.num_tokens
        return taken

    def rewind(self, has_answered: bool) -> None:
        """It begins again with its first token."""
        self.pending = None
        if not has_answered:
            self.num_cached = 0


@dataclass(slots=True)
class Session:
    """`num_sent` tokens were handed to the first stage in this epoch; `num_landed` of them came back from the last one. A proposal is
    one of them once it held. One more than are known were sent while a step runs ahead: its token is chosen by the one before it."""

    session_id: str
    prompt_ids: tuple[int, ...]
    request: GenerateRequest
    submitted_s: float
    max_new_tokens: int
    sampling: Sampling = GREEDY
    state: SessionState = SessionState.QUEUED
    epoch: int = 1
    generated: list[int] = field(default_factory=list)
    num_sent: int = 0
    num_landed: int = 0
    chunk_stops: list[int] = field(default_factory=list)  # where the prompt was cut when it was first sent
    turn: int = 0  # when it was last served; the lowest goes first
    waiting_since_s: float = 0.0
    not_before_s: float = 0.0  # after a failed step: when to try again
    num_recoveries: int = 0  # since its newest token
    was_admitted: bool = False
    is_careful: bool = False  # after a failed step: one chunk at a time, so that none can overtake another
    times: TokenTimes = field(default_factory=TokenTimes)
    reuse: Reuse = field(default_factory=Reuse)

    @property
    def reserve_tokens(self) -> int:
        return len(self.prompt_ids) + self.max_new_tokens

    @property
    def num_tokens(self) -> int:
        return len(self.prompt_ids) + len(self.generated)

    @property
    def prefix_tokens(self) -> int:
        """How many tokens are sent as prefix: all of the prompt at first, later all but the newest token."""
        return self.num_tokens - 1 if self.generated else len(self.prompt_ids)

    @property
    def wants_prefix(self) -> bool:
        if self.state is SessionState.QUEUED or (self.is_careful and self.num_landed < self.num_sent):
            return False
        return self.num_sent < self.prefix_tokens

    @property
    def wants_decode(self) -> bool:
        """Its newest token waits to be fed back: never true while a step that samples for it is in flight."""
        if self.state is SessionState.QUEUED or (self.is_careful and self.num_landed < self.num_sent):
            return False
        return bool(self.generated) and self.num_sent == self.num_tokens - 1

    @property
    def is_awaited(self) -> bool:
        """A step that samples its next token is in flight, and none behind that."""
        return self.state is not SessionState.QUEUED and self.num_sent == self.num_tokens

    @property
    def ends_next(self) -> bool:
        """Its next token is the last that it may have."""
        return len(self.generated) + 1 >= self.max_new_tokens

    @property
    def may_follow(self) -> bool:
        """The step behind the one that samples its next token needs nothing from here. A grammar's mask does: it depends on that token."""
        return not self.is_careful and self.request.grammar is None

    @property
    def is_decoding(self) -> bool:
        return self.state is not SessionState.QUEUED and bool(self.generated) and self.num_sent >= self.num_tokens - 1

    def ttft_s(self) -> float:
        """0 while it is not known."""
        times = self.times
        return 0.0 if times.first_s is None or times.num_inherited else times.first_s - self.submitted_s

    def tokens_per_s(self) -> float:
        times, num_timed = self.times, len(self.generated) - self.times.num_inherited
        if times.first_s is None or num_timed < 2 or times.last_s <= times.first_s:
            return 0.0
        return (num_timed - 1) / (times.last_s - times.first_s)

    @property
    def next_start(self) -> int:
        """Where the next chunk of the prefix begins."""
        pending = self.reuse.pending
        return self.num_sent if pending is None or self.num_sent else pending.num_tokens

    def next_cut(self) -> int:
        """Where the next chunk of the prefix must end at the latest: at an old cut, at the end of the prompt, or of the prefix."""
        for stop in (self.reuse.num_taken, *self.chunk_stops, len(self.prompt_ids)):
            if stop > self.next_start:
                return stop
        return self.prefix_tokens

    def takes_whole_chunk(self) -> bool:
        """The next chunk was sent before: it travels again as it was, whatever the present budget says."""
        start = self.next_start
        return start >= self.reuse.num_taken and any(stop > start for stop in self.chunk_stops)

    def cut_chunk(self, num_tokens: int) -> Segment:
        """Send the next `num_tokens` of the prefix; the end of a prompt that has no answer yet samples the first token."""
        start = self.next_start
        stop, taken = start + num_tokens, None if self.num_sent else self.reuse.take()
        if stop <= len(self.prompt_ids) and (not self.chunk_stops or stop > self.chunk_stops[-1]):
            self.chunk_stops.append(stop)
        self.num_sent = stop
        samples = not self.generated and stop == len(self.prompt_ids)
        return self._segment(start, self._tokens(start, stop), 0 if samples else None, taken)

    def next_token(self, proposed: tuple[int, ...] = ()) -> Segment:
        """Feed the newest token back to sample the one after it, and those after that while they are the `proposed` ones."""
        start, self.num_sent = self.num_sent, self.num_sent + 1
        segment = self._segment(start, (self.generated[-1], *proposed), len(self.generated))
        return replace(segment, num_proposed=len(proposed)) if proposed else segment

    def follow(self) -> Segment:
        """Feed back the token that the step in flight samples, to sample the one after it."""
        start, self.num_sent = self.num_sent, self.num_sent + 1
        return Segment(self.session_id, self.epoch, start, (UNKNOWN,), len(self.generated) + 1, follows=True)

    def awaits(self, segment: Segment) -> bool:
        """Whether what a segment samples is its next token: nothing counts before the one that it was computed from."""
        return segment.sample_index is None or segment.sample_index == len(self.generated)

    def landed(self, segment: Segment, num_sampled: int) -> None:
        """A segment came back from the last stage: what is on the stages are its known tokens, and the proposals that held."""
        num_held = segment.num_known + max(0, num_sampled - 1)
        self.num_landed = max(self.num_landed, segment.position + num_held)
        self.num_sent = max(self.num_sent, self.num_landed)

    def rewind(self) -> None:
        """Nothing of it is on the stages any more: a higher epoch begins with its first token."""
        self.epoch += 1
        self.num_sent = self.num_landed = 0
        self.reuse.rewind(bool(self.generated))

    def landed_tokens(self) -> tuple[int, ...]:
        """Those whose keys and values are on every stage."""
        return self._tokens(0, self.num_landed)

    def _tokens(self, start: int, stop: int) -> tuple[int, ...]:
        num_prompt = len(self.prompt_ids)
        return (*self.prompt_ids[start:stop], *self.generated[max(0, start - num_prompt) : max(0, stop - num_prompt)])

    def _segment(self, position: int, token_ids: tuple[int, ...], sample_index: int | None, taken: Taken | None = None) -> Segment:
        opens = position == 0 or taken is not None
        sampling, reserve = (self.sampling, self.reserve_tokens) if opens else (None, 0)
        return Segment(self.session_id, self.epoch, position, token_ids, sample_index, sampling, reserve, taken=taken)
