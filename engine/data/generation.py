"""What a generation is asked for, and what it sends back: sampling, requests, chunks of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from engine.data.errors import InvalidInput, require_range


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the last stage picks a token. `temperature == 0` is greedy; `top_k == 0` and `top_p == 1` are off."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        require_range("temperature", self.temperature, 0.0, 100.0, "0 means greedy")
        require_range("top_k", self.top_k, 0, 2**31 - 1, "0 turns it off")
        require_range("top_p", self.top_p, 1e-6, 1.0, "1 turns it off")
        require_range("repetition_penalty", self.repetition_penalty, 1e-3, 100.0, "1 turns it off")
        require_range("seed", self.seed, 0, 2**63 - 1, "any whole number in that range")


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """One session as a client asks for it: a prompt as text or as token ids, and when to stop."""

    prompt: str | None = None
    prompt_ids: tuple[int, ...] = ()
    max_new_tokens: int = 64
    sampling: Sampling = field(default_factory=Sampling)
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False  # generate exactly max_new_tokens, as a benchmark needs

    def __post_init__(self) -> None:
        if (self.prompt is None) == (not self.prompt_ids):
            raise InvalidInput("give either a prompt text or prompt token ids, not both and not neither")
        require_range("max_new_tokens", self.max_new_tokens, 1, 1_000_000, "how many tokens to generate at most")
        check_stop(self.stop)


def check_stop(stop: Sequence[str]) -> None:
    """Raises InvalidInput for what cannot be a request's stop strings."""
    if len(stop) > 16 or any(not s or len(s) > 256 for s in stop):
        raise InvalidInput("stop: at most 16 strings of 1 to 256 characters each")


class FinishReason(StrEnum):
    STOP = "stop"  # a stop string or an end-of-sequence token
    LENGTH = "length"
    CANCELLED = "cancelled"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Segment:
    """One session's share of a step: its new tokens, which start at `position` of the session."""

    session_id: str
    epoch: int
    position: int
    token_ids: tuple[int, ...]
    sample_index: int | None = None  # index of the generated token to sample after these, None for a prompt chunk
    sampling: Sampling | None = None  # only with the segment at position 0, which opens the session on every stage
    reserve_tokens: int = 0  # with it: how long the session may grow, checked against each stage's KV budget


@dataclass(frozen=True, slots=True)
class StageTiming:
    """Where one step's time went on one stage, in seconds."""

    worker_id: str
    compute_s: float
    queue_s: float  # waiting on this worker for earlier steps to finish
    wire_in_s: float  # decoding and checking the incoming message
    wire_out_s: float  # encoding and handing over the outgoing message


@dataclass(frozen=True, slots=True)
class TokenChunk:
    """What a client receives while a session runs; the last one carries `finish_reason`."""

    session_id: str
    index: int  # index of token_id among the generated tokens; -1 when the chunk carries no token
    token_id: int
    text: str
    timings: tuple[StageTiming, ...] = ()
    finish_reason: FinishReason | None = None
    prompt_ids: tuple[int, ...] = ()  # only in the first chunk
    step_s: float = 0.0  # from sending the step to receiving its token, as the coordinator saw it
    stand_in_tokenizer: str = ""  # only in the first chunk: why the text went through bytes instead of the model's own tokenizer
