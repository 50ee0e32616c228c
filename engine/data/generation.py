"""What a generation is asked for, and what it sends back: sampling, requests, chunks of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from engine.data.errors import InvalidInput, require_range
from engine.data.sampling import Sampling, SamplingRequest

MAX_GRAMMAR_CHARACTERS = 256 * 1024
UNKNOWN = -1  # in place of a token id


class PromptMode(StrEnum):
    """What becomes of the text of a prompt."""

    RAW = "raw"  # it is what the model reads
    AUTO = "auto"  # it is what a user says, if the model has a chat template, else as above
    CHAT = "chat"  # it is what a user says; refused if the model has no chat template


class GrammarKind(StrEnum):
    """In what form it is said which answers are allowed."""

    JSON_SCHEMA = "json_schema"
    REGEX = "regex"
    LARK = "lark"  # a context-free grammar in Lark's notation, as llguidance takes it


@dataclass(frozen=True, slots=True)
class Grammar:
    """What the text of an answer must be: the tokens that it rules out are not chosen."""

    kind: GrammarKind
    text: str

    def __post_init__(self) -> None:
        if not 0 < len(self.text) <= MAX_GRAMMAR_CHARACTERS:
            size = f"a grammar of {len(self.text)} characters is not allowed"
            raise InvalidInput(f"{size}: it must have 1 to {MAX_GRAMMAR_CHARACTERS}")


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """One session as a client asks for it: a text, token ids or a conversation, how tokens are picked, and when to stop.

    `messages`, `tools` and `chat_template_kwargs` are JSON texts, as OpenAI's chat completions have them: a list of messages, a list of
    tools, and an object of further names for the template; empty: none. The coordinator checks them.
    """

    prompt: str | None = None
    prompt_ids: tuple[int, ...] = ()
    max_new_tokens: int = 64
    sampling: SamplingRequest = field(default_factory=SamplingRequest)
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False  # generate exactly max_new_tokens, as a benchmark needs
    messages: str = ""
    tools: str = ""
    chat_template_kwargs: str = ""
    add_generation_prompt: bool = True
    mode: PromptMode = PromptMode.RAW  # of `prompt`
    grammar: Grammar | None = None

    def __post_init__(self) -> None:
        if [self.prompt is not None, bool(self.prompt_ids), bool(self.messages)].count(True) != 1:
            raise InvalidInput("give either a prompt text, prompt token ids or messages: one of them, and only one")
        if (self.tools or self.chat_template_kwargs) and not self.is_chat:
            raise InvalidInput(
                "tools and chat_template_kwargs are for the chat template: send messages, or the prompt in mode auto or chat"
            )
        require_range("max_new_tokens", self.max_new_tokens, 1, 1_000_000, "how many tokens to generate at most")
        require_range("min_tokens", self.sampling.min_tokens or 0, 0, self.max_new_tokens, "max_new_tokens is the most")
        check_stop(self.stop)
        if self.grammar is not None and (self.ignore_eos or self.sampling.min_tokens):
            raise InvalidInput("a grammar says where an answer ends: leave out ignore_eos and min_tokens, or the grammar")

    @property
    def is_chat(self) -> bool:
        """The model's chat template writes the prompt, if there is one."""
        return bool(self.messages) or (self.prompt is not None and self.mode is not PromptMode.RAW)


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
class Kept:
    """A session ended in `epoch`: its first `num_tokens` tokens stay, under an id of their own."""

    kept_id: int  # unique under one plan version
    session_id: str
    epoch: int
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Taken:
    """A session begins with the first `num_tokens` tokens of keys and values that are there: kept ones, or those of a session that runs.

    They have this `digest` on every stage.
    """

    kept_id: int  # 0: they are a running session's
    num_tokens: int
    digest: bytes
    moves: bool = False  # what was kept ends with it
    session_id: str = ""  # the running session, which goes on
    epoch: int = 0  # its epoch, the same on every stage


@dataclass(frozen=True, slots=True)
class Segment:
    """One session's share of a step: its new tokens, which start at `position` of the session."""

    session_id: str
    epoch: int
    position: int
    token_ids: tuple[int, ...]
    sample_index: int | None = None  # index of the generated token to sample after these, None for a prompt chunk
    sampling: Sampling | None = None  # only with the segment that opens the session on every stage: at position 0, or behind what it takes
    reserve_tokens: int = 0  # with it: how long the session may grow, checked against each stage's KV budget
    mask: bytes = b""  # bit i of byte j, from the low end: token 8 * j + i may be sampled; empty: any may
    taken: Taken | None = None  # only with the segment that opens the session: kept keys and values that it begins with
    num_proposed: int = 0  # of its last tokens, those that nobody knows to come: sampled at each place, the answer says how far they hold
    follows: bool = False  # its one token is `UNKNOWN`: the one that the step before chooses where this one runs

    def __post_init__(self) -> None:
        if self.follows and (self.sample_index is None or self.token_ids != (UNKNOWN,) or self.sampling is not None):
            raise InvalidInput(f"session {self.session_id[:64]}: a part that follows has one unknown token, and is sampled for")
        if self.num_proposed and (self.sample_index is None or not 0 < self.num_proposed < len(self.token_ids)):
            raise InvalidInput(
                f"session {self.session_id[:64]}: {self.num_proposed} of {len(self.token_ids)} tokens cannot be proposals: "
                f"only those behind a known token that is sampled for can"
            )

    @property
    def num_known(self) -> int:
        """Its tokens without the proposals."""
        return len(self.token_ids) - self.num_proposed


@dataclass(frozen=True, slots=True)
class StageTiming:
    """Where one step's time went on one stage, in seconds."""

    worker_id: str
    compute_s: float
    queue_s: float  # waiting on this worker for earlier steps to finish
    wire_in_s: float  # decoding and checking the incoming message
    wire_out_s: float  # encoding and handing over the outgoing message
    arrived_s: float = 0.0  # by the clock of the worker's host: when the message was there, and when its computing was done;
    done_s: float = 0.0  # 0: it does not say


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """The natural logarithm of a token's probability by the model's own logits, before anything that sampling does to them."""

    token_id: int
    logprob: float
    spelling: bytes = b""  # what the token stands for; filled in where the tokenizer is


@dataclass(frozen=True, slots=True)
class Logprobs:
    """Of one generated token: its own, and those of the likeliest in its place, best first."""

    chosen: TokenLogprob
    top: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Used:
    """What the coordinator made of a request."""

    sampling: Sampling
    template: str = ""  # the name of the chat template that wrote the prompt; empty if none did
    from_model: tuple[str, ...] = ()  # settings of `sampling` that the model's generation_config.json recommends and nobody else set


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
    used: Used | None = None  # only in the first chunk
    logprobs: Logprobs | None = None  # with a token, if the request asks for it
    cached_tokens: int = 0  # only in the last chunk: of the prompt's tokens, those that were not computed again
    num_proposed: int = 0  # only in the last chunk: tokens that steps carried on a guess
    num_accepted: int = 0  # of them, those that came


@dataclass(frozen=True, slots=True)
class SessionText:
    """What a session was asked and has answered so far; of long texts the end, and how many tokens come before it."""

    session_id: str
    prompt: str
    answer: str
    num_prompt_left_out: int = 0
    num_answer_left_out: int = 0
