"""What a program gets of a session: its tokens as they come, and the whole when it has ended."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from engine.data.generation import FinishReason, Logprobs, TokenChunk, Used


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of the answer. `token_id` is None for text alone: what was held back until it was clear that nothing completes it."""

    index: int  # among the generated tokens; for text alone, how many there are
    token_id: int | None
    text: str  # may be empty: some characters take several tokens
    logprobs: Logprobs | None = None
    step_s: float = 0.0  # from sending the step to receiving this token, as the coordinator saw it


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer."""

    session_id: str
    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    text: str
    finish_reason: FinishReason
    used: Used | None  # what the coordinator made of the request
    logprobs: tuple[Logprobs, ...] = ()  # of each token, if they were asked for
    stand_in_tokenizer: str = ""  # why the text went through bytes instead of the model's own tokenizer
    ttft_s: float = 0.0  # time to the first token
    tokens_per_s: float = 0.0  # of the tokens after the first
    cached_tokens: int = 0  # of the prompt's, those that were not computed again


@dataclass(slots=True)
class Transcript:
    """Takes a session's chunks in; knows the answer so far."""

    session_id: str = ""
    prompt_ids: tuple[int, ...] = ()
    tokens: list[Token] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    used: Used | None = None
    stand_in_tokenizer: str = ""
    cached_tokens: int = 0
    _begun_s: float = field(default_factory=time.monotonic)
    _arrived_s: list[float] = field(default_factory=list)

    def take(self, chunk: TokenChunk) -> Token | None:
        """The chunk's piece of the answer; None where it carries none."""
        self.session_id = chunk.session_id or self.session_id
        self.prompt_ids = chunk.prompt_ids or self.prompt_ids
        self.used = chunk.used or self.used
        self.stand_in_tokenizer = chunk.stand_in_tokenizer or self.stand_in_tokenizer
        self.finish_reason = chunk.finish_reason or self.finish_reason
        self.cached_tokens = chunk.cached_tokens or self.cached_tokens
        is_token = chunk.index >= 0
        if not is_token and not chunk.text:
            return None
        if is_token:
            self._arrived_s.append(time.monotonic())
        index = chunk.index if is_token else len(self._arrived_s)
        token = Token(index, chunk.token_id if is_token else None, chunk.text, chunk.logprobs, chunk.step_s)
        self.tokens.append(token)
        return token

    def completion(self) -> Completion:
        """The answer; raises ValueError before its end."""
        if self.finish_reason is None:
            raise ValueError("the answer has not ended yet: read the stream to its end first")
        times_s = self._arrived_s
        spent_s = times_s[-1] - times_s[0] if len(times_s) > 1 else 0.0
        return Completion(
            session_id=self.session_id,
            prompt_ids=self.prompt_ids,
            token_ids=tuple(t.token_id for t in self.tokens if t.token_id is not None),
            text="".join(t.text for t in self.tokens),
            finish_reason=self.finish_reason,
            used=self.used,
            logprobs=tuple(t.logprobs for t in self.tokens if t.logprobs is not None),
            stand_in_tokenizer=self.stand_in_tokenizer,
            ttft_s=times_s[0] - self._begun_s if times_s else 0.0,
            tokens_per_s=(len(times_s) - 1) / spent_s if spent_s > 0 else 0.0,
            cached_tokens=self.cached_tokens,
        )
