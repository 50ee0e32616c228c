"""One generation as the coordinator knows it, and which of its tokens a stage must be given next. Pure.

The tokens of a session are its prompt followed by what it generated. Keys and values of all but the newest have to be on
the stages before the next one can be sampled: that part is its *prefix*. After a loss the prefix is sent again in a higher
epoch: the prompt in the chunks in which it was first sent, then the generated tokens, which are known and never sampled
again. Random numbers depend on (seed, index) alone, so the answer goes on as if nothing had happened. Generated tokens travel as chunks
and not one by one, which is an order of magnitude faster: their keys and values then differ in the last bits, which moves the logits
of GPT-2 124M by up to 4e-5, as much as sharing a step with seven others does (2e-5), where the two best are 0.08 apart in the median.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum

from engine.data.generation import GenerateRequest, Segment
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
class Session:
    """`num_sent` tokens were handed to the first stage in this epoch; `num_landed` of them came back from the last one."""

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

    def next_cut(self) -> int:
        """Where the next chunk of the prefix must end at the latest: at an old cut, at the end of the prompt, or of the prefix."""
        for stop in (*self.chunk_stops, len(self.prompt_ids)):
            if stop > self.num_sent:
                return stop
        return self.prefix_tokens

    def takes_whole_chunk(self) -> bool:
        """The next chunk was sent before: it travels again as it was, whatever the present budget says."""
        return any(stop > self.num_sent for stop in self.chunk_stops)

    def cut_chunk(self, num_tokens: int) -> Segment:
        """Send the next `num_tokens` of the prefix; the end of a prompt that has no answer yet samples the first token."""
        start, stop = self.num_sent, self.num_sent + num_tokens
        if stop <= len(self.prompt_ids) and (not self.chunk_stops or stop > self.chunk_stops[-1]):
            self.chunk_stops.append(stop)
        self.num_sent = stop
        samples = not self.generated and stop == len(self.prompt_ids)
        return self._segment(start, self._tokens(start, stop), 0 if samples else None)

    def next_token(self) -> Segment:
        """Feed the newest token back to sample the one after it."""
        start, self.num_sent = self.num_sent, self.num_sent + 1
        return self._segment(start, (self.generated[-1],), len(self.generated))

    def rewind(self) -> None:
        """Nothing of it is on the stages any more: a higher epoch begins with its first token."""
        self.epoch += 1
        self.num_sent = self.num_landed = 0

    def _tokens(self, start: int, stop: int) -> tuple[int, ...]:
        num_prompt = len(self.prompt_ids)
        return (*self.prompt_ids[start:stop], *self.generated[max(0, start - num_prompt) : max(0, stop - num_prompt)])

    def _segment(self, position: int, token_ids: tuple[int, ...], sample_index: int | None) -> Segment:
        opens = position == 0
        sampling, reserve = (self.sampling, self.reserve_tokens) if opens else (None, 0)
        return Segment(self.session_id, self.epoch, position, token_ids, sample_index, sampling, reserve)
