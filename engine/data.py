"""The nouns of NoodleCore and its error tree: frozen values that every room exchanges.

This file knows nothing of torch, gRPC or files; it imports the standard library only. Ranges are half-open,
times are seconds (`_s`), sizes are bytes (`_bytes`), counts start with `num_`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from enum import StrEnum

NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


# --- errors ---------------------------------------------------------------------------------------------------
class NoodleError(Exception):
    """Base of every error a user can cause or must act on; the message says what is wrong and the way out."""

    exit_code = 1


class InvalidInput(NoodleError, ValueError):
    """The caller's input is wrong; sending it again cannot succeed."""

    exit_code = 2


class NotFound(NoodleError):
    """A session, worker or file that was named does not exist."""


class Refused(NoodleError):
    """The request is well-formed, but the cluster's state forbids it (wrong phase, wrong plan, no permission)."""


class NotSupported(Refused):
    """The model or feature cannot be run here; the message names it and why."""

    exit_code = 2


class Stale(NoodleError):
    """The message carries an old plan version or epoch and was dropped."""


class Gap(NoodleError):
    """The message's position lies beyond what this stage has seen."""


class Exhausted(NoodleError):
    """A bounded resource (KV budget, queue, memory) is full."""


class Unavailable(NoodleError):
    """The other side cannot be reached, is draining, or was lost; trying again later may succeed."""


class Corrupt(NoodleError):
    """Data arrived or was read damaged: bad checksum, truncated file, non-finite values."""


class Cancelled(NoodleError):
    """The session was cancelled by its client or an operator."""


class Unauthorized(NoodleError):
    """The token is missing, unknown, or its role does not allow the method."""


class Bug(NoodleError):
    """An unexpected failure on the other side; the message carries only an incident id to look for in its log."""


# --- the model ------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class ModelRef:
    """What the user asked for: a hub id, a local folder, or an architecture name with seeded random weights."""

    model: str
    random_weights: int | None = None
    dtype: str = "float32"

    @property
    def label(self) -> str:
        """The name shown to people; random weights are always labelled as such."""
        return self.model if self.random_weights is None else f"{self.model} (random weights, seed {self.random_weights})"


@dataclass(frozen=True, slots=True)
class Item:
    """One schedulable unit of the model chain: the embedding, one decoder block, or the final norm with the head."""

    name: str
    weight_bytes: int
    kv_bytes_per_token: int
    output_bytes_per_token: int
    tied_to: int | None = None  # index of the item whose tensor this one shares
    tied_bytes: int = 0  # bytes of the shared tensor, already inside weight_bytes


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What the coordinator needs to know of a model without importing torch; written by the model room."""

    ref: ModelRef
    folder: str
    fingerprint: str  # sha-256 over config.json and the safetensors headers: a worker whose folder has another fetches weights instead
    architecture: str
    items: tuple[Item, ...]
    hidden_size: int
    vocab_size: int
    context_tokens: int
    eos_token_ids: tuple[int, ...]
    bos_token_id: int | None
    num_parameters: int
    stand_in_tokenizer: str = ""  # why bytes take the place of the model's own tokenizer, set by who reads it; empty if they do not

    @property
    def num_items(self) -> int:
        return len(self.items)


# --- generation -----------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Sampling:
    """How the last stage picks a token. `temperature == 0` is greedy; `top_k == 0` and `top_p == 1` are off."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        _require_range("temperature", self.temperature, 0.0, 100.0, "0 means greedy")
        _require_range("top_k", self.top_k, 0, 2**31 - 1, "0 turns it off")
        _require_range("top_p", self.top_p, 1e-6, 1.0, "1 turns it off")
        _require_range("repetition_penalty", self.repetition_penalty, 1e-3, 100.0, "1 turns it off")
        _require_range("seed", self.seed, 0, 2**63 - 1, "any whole number in that range")


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
        _require_range("max_new_tokens", self.max_new_tokens, 1, 1_000_000, "how many tokens to generate at most")
        if len(self.stop) > 16 or any(not s or len(s) > 256 for s in self.stop):
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


# --- nodes, stages, plans ---------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class NodeSpec:
    """A machine or device that can host layers, as its worker reports it."""

    node_id: str
    address: str
    host: str
    pid: int
    device: str  # "cpu" or "cuda:0"
    device_name: str
    num_threads: int
    memory_bytes: int  # what this worker may use for weights and KV
    kv_budget_bytes: int
    num_cores: int = 0  # of the host; 0 if the worker did not say
    device_type: str = "cpu"  # a DeviceType of the planning room
    dtypes: tuple[str, ...] = ()  # in which a product ran here and was right; () if the worker did not say
    pool_id: str = ""  # the memory that it draws from: what names the same one shares it; "" if the worker did not say
    pool_bytes: int = 0  # what that memory could give to all who share it, as this worker found it


@dataclass(frozen=True, slots=True)
class Stage:
    """A half-open item range on a node."""

    node_id: str
    start: int
    stop: int

    @property
    def num_items(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Plan:
    """All stages in execution order, with what was predicted for them."""

    plan_version: int
    strategy: str
    stages: tuple[Stage, ...]
    stage_s: tuple[float, ...] = ()  # predicted decode time of each stage
    bottleneck_s: float = 0.0
    round_trip_s: float = 0.0
    lower_bound: float = 0.0
    optimal: bool = False
    gap: float = 0.0  # the most that the objective can be above the best, as a share; 0 if optimal or without a bound

    def stage_of(self, node_id: str) -> Stage | None:
        return next((s for s in self.stages if s.node_id == node_id), None)


# --- what an operator sees -------------------------------------------------------------------------------------
class Phase(StrEnum):
    GATHERING = "gathering"
    LOADING = "loading"
    SERVING = "serving"


class NodeState(StrEnum):
    STARTING = "starting"  # registered, still importing its libraries or fetching the model
    MEASURING = "measuring"
    LOADING = "loading"
    OK = "ok"
    WARN = "WARN"
    SUSPECT = "suspect"  # heartbeats are late
    LOST = "lost"
    DRAINING = "drain"


class Severity(StrEnum):
    INFO = "info"
    OK = "ok"
    WARN = "WARN"
    ERROR = "ERROR"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, with its numbers in the text and the id of what caused it."""

    sequence: int
    wall_s: float
    severity: Severity
    kind: str  # node, plan, session, model, cluster
    subject: str
    text: str
    cause_id: str = ""


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """One worker as the coordinator sees it now."""

    worker_id: str
    pid: int
    host: str
    address: str
    device: str
    state: NodeState
    detail: str  # a sentence: what it is doing, or why it is not ok
    progress: float  # 0..1 of what `detail` says, -1 when unknown
    start: int  # its stage's item range; start == stop when it holds none
    stop: int
    resident_bytes: int
    memory_bytes: int
    kv_used_bytes: int
    kv_budget_bytes: int
    cpu_utilisation: float  # 0..1 of one core times the number of threads it may use
    heartbeat_age_s: float
    queue_depth: int = 0  # steps waiting at its compute thread
    gpu_utilisation: float | None = None  # 0..1; None where the machine does not tell
    gpu_temperature_c: float | None = None
    cpu_temperature_c: float | None = None


@dataclass(frozen=True, slots=True)
class StageStatus:
    """One stage's recent measurements beside what the plan predicted; all times are decode steps."""

    worker_id: str
    start: int
    stop: int
    predicted_s: float
    compute_p50_s: float
    compute_p95_s: float
    queue_p50_s: float
    hop_p50_s: float  # wire time from this stage to the next one, or to the coordinator
    num_steps: int  # steps in the window that these figures describe
    history_s: tuple[float, ...] = ()  # median compute time of recent sampling intervals, oldest first; 0 = no step


@dataclass(frozen=True, slots=True)
class SessionStatus:
    session_id: str
    state: str  # queued, prefill, decode; of one that ended: done, cancelled, failed
    num_prompt_tokens: int
    num_generated: int
    max_new_tokens: int
    ttft_s: float
    tokens_per_s: float
    age_s: float
    step_p95_s: float = 0.0  # between its last tokens; 0: not known
    queue_place: int = 0  # the next to be admitted is 1
    waiting_s: float = 0.0
    why: str = ""  # what it waits for, or its error
    finish_reason: str = ""


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """Everything a console or a script needs for one look at the cluster."""

    cluster_id: str
    phase: Phase
    detail: str
    model: str
    random_weights: bool
    has_tokenizer: bool
    num_items: int
    context_tokens: int
    plan_version: int
    strategy: str  # of the plan that serves; before there is one, of the next
    num_workers_expected: int
    nodes: tuple[NodeStatus, ...]
    stages: tuple[StageStatus, ...]
    sessions: tuple[SessionStatus, ...]
    tokens_per_s: float
    step_p50_s: float
    step_p95_s: float
    num_sessions_done: int
    num_sessions_failed: int
    uptime_s: float
    failure: str = ""  # why the cluster cannot serve and what to do; empty while it can or still may
    adaptation_mode: str = ""  # off, suggest or auto; empty if the coordinator does not say
    suggestion_id: int = 0  # of adaptation, waiting to be confirmed; 0 is none
    finished: tuple[SessionStatus, ...] = ()  # newest first, bounded
    stand_in_tokenizer: str = ""  # why there is no tokenizer, and bytes take its place


def check_name(what: str, name: str) -> str:
    """Return `name` if it may be shown, logged and used as an id; else raise InvalidInput."""
    if not NAME_PATTERN.fullmatch(name):
        raise InvalidInput(f"{what} {name[:80]!r} is not allowed: use 1 to 64 letters, digits, '.', '_' or '-', first a letter or digit")
    return name


def _require_range(what: str, value: float, low: float, high: float, hint: str) -> None:
    if not (math.isfinite(value) and low <= value <= high):
        raise InvalidInput(f"{what} {value} is not allowed: it must lie in [{low:g}, {high:g}] ({hint})")
