"""One answer as the console sees it: pure transitions from the prompt to its finish reason or error sentence."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from engine.data.generation import FinishReason, StageTiming, Used
from noodle_tui.text.safe_text import clean, safe_text
from noodle_tui.text.step_times import StepTimes, with_step

if TYPE_CHECKING:
    from noodle_tui.core.messages import PromptSent, SessionEnded, TokenArrived

MAX_ANSWER_CHARS = 32_000  # about 8,000 tokens; the beginning of a longer answer is given up, its end is kept
MAX_ERROR_CHARS = 2_000
MAX_PROMPT_CHARS = 100_000
MAX_EXACT_CHARS = 1_000_000


class AnswerState(StrEnum):
    IDLE = "idle"
    WAITING = "waiting"  # sent, no token yet: queued or prefill
    STREAMING = "streaming"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Generation:
    """A prompt and what came back for it; times are readings of the console's own clock."""

    state: AnswerState = AnswerState.IDLE
    number: int = 0  # counts the prompts of this console
    prompt: str = ""
    max_new_tokens: int = 0
    temperature: float = 0.0
    seed: int = 0
    top_p: float = 1.0
    session_id: str = ""
    text: str = ""
    exact: str = ""  # the same as it came, for the next turn: never drawn
    num_tokens: int = 0
    num_prompt_tokens: int = 0
    sent_s: float = 0.0
    first_token_s: float = 0.0
    last_token_s: float = 0.0
    timings: tuple[StageTiming, ...] = ()  # of the newest step
    step_s: float = 0.0
    steps: StepTimes = field(default_factory=StepTimes)
    finish_reason: FinishReason | None = None
    error: str = ""

    @property
    def running(self) -> bool:
        return self.state in (AnswerState.WAITING, AnswerState.STREAMING)

    @property
    def ttft_s(self) -> float:
        return self.first_token_s - self.sent_s if self.num_tokens else 0.0

    @property
    def tokens_per_s(self) -> float:
        """Rate after the first token; 0 until two tokens are there."""
        elapsed = self.last_token_s - self.first_token_s
        return (self.num_tokens - 1) / elapsed if elapsed > 0 else 0.0


def begin(sent: PromptSent, now_s: float) -> Generation:
    """A prompt has been sent."""
    prompt = safe_text(sent.prompt, MAX_PROMPT_CHARS, multiline=True)
    return Generation(AnswerState.WAITING, sent.number, prompt, sent.max_new_tokens, sent.temperature, sent.seed, sent_s=now_s)


def receive(generation: Generation, arrived: TokenArrived, now_s: float, slow_s: float) -> Generation:
    """Add one chunk; chunks that carry no token bring the session's id or its end. A step above `slow_s` is slow."""
    if not generation.running or arrived.number != generation.number:
        return generation  # late chunk of an answer that was stopped here
    chunk = arrived.chunk
    has_token = chunk.index >= 0
    first = has_token and generation.num_tokens == 0
    timings, number = clean(chunk.timings), generation.num_tokens + has_token
    return replace(
        _as_drawn(generation, chunk.used),
        state=AnswerState.STREAMING if has_token else generation.state,
        session_id=safe_text(chunk.session_id, 64) or generation.session_id,
        exact=(generation.exact + chunk.text)[:MAX_EXACT_CHARS],
        text=(generation.text + safe_text(chunk.text, MAX_ANSWER_CHARS, multiline=True))[-MAX_ANSWER_CHARS:],
        num_tokens=number,
        num_prompt_tokens=len(chunk.prompt_ids) or generation.num_prompt_tokens,
        first_token_s=now_s if first else generation.first_token_s,
        last_token_s=now_s if has_token else generation.last_token_s,
        timings=timings or generation.timings,
        step_s=chunk.step_s or generation.step_s,
        steps=with_step(generation.steps, number, timings, chunk.step_s, slow_s) if has_token else generation.steps,
        finish_reason=chunk.finish_reason or generation.finish_reason,
    )


def _as_drawn(generation: Generation, used: Used | None) -> Generation:
    """With the sampling that the coordinator settled on, where it says so."""
    if used is None:
        return generation
    return replace(generation, temperature=used.sampling.temperature, seed=used.sampling.seed, top_p=used.sampling.top_p)


def end(generation: Generation, ended: SessionEnded) -> Generation:
    """The stream closed: by its own last chunk, by an error, or because the user stopped it."""
    if not generation.running or ended.number != generation.number:
        return generation
    reason = generation.finish_reason
    if ended.error:
        reason = FinishReason.ERROR
    elif ended.cancelled:
        reason = FinishReason.CANCELLED
    error = ended.error if ended.error or reason else "the answer ended without a finish reason"
    error = safe_text(error, MAX_ERROR_CHARS)
    return replace(generation, state=AnswerState.ENDED, finish_reason=reason or FinishReason.ERROR, error=error)
