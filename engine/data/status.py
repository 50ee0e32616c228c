"""What an operator sees of a running cluster: nodes, stages, sessions, events."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from engine.data.precision import Identity, Precision


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
class Gauges:
    """What a worker reads of itself with every heartbeat; None where the machine does not tell."""

    resident_bytes: int = 0
    kv_used_bytes: int = 0
    cpu_utilisation: float = 0.0  # 1 = one core
    queue_depth: int = 0  # steps waiting at its compute thread
    gpu_utilisation: float | None = None  # 0..1
    gpu_temperature_c: float | None = None
    cpu_temperature_c: float | None = None


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
    memory_bytes: int
    kv_budget_bytes: int
    heartbeat_age_s: float
    gauges: Gauges = Gauges()
    is_drained: bool = False  # left out of plans until an operator ends it, lost or not


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
    predicted_hop_s: float = 0.0  # from this stage to the next one; 0 after the last


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
    num_cached: int = 0  # of its prompt's tokens, those that an earlier session had left on the stages
    num_proposed: int = 0  # tokens that steps of it carried on a guess
    num_accepted: int = 0  # of them, those that came


@dataclass(frozen=True, slots=True)
class PrefixCacheStatus:
    """What the stages keep of sessions that ended, for prompts that begin alike; the counts are since the coordinator began."""

    is_on: bool = False
    num_kept: int = 0
    kept_tokens: int = 0
    kept_bytes: int = 0  # on all stages together
    prompt_tokens: int = 0
    cached_tokens: int = 0  # of them, those that were not computed again
    num_evictions: int = 0  # what was kept and had to make room for sessions

    @property
    def hit_rate(self) -> float:
        """0..1 of the prompts' tokens."""
        return self.cached_tokens / self.prompt_tokens if self.prompt_tokens else 0.0


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """The model that is served; all empty while it is not known."""

    name: str = ""
    random_weights: bool = False
    has_tokenizer: bool = False
    num_items: int = 0
    context_tokens: int = 0
    precision: Precision = field(default_factory=Precision)
    stand_in_tokenizer: str = ""  # why there is no tokenizer, and bytes take its place
    tokenizer_source: str = ""  # else the files that it was read from


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast the cluster is, and how fast the plan that serves was to be when it was made."""

    tokens_per_s: float = 0.0
    step_p50_s: float = 0.0
    step_p95_s: float = 0.0
    predicted_bottleneck_s: float = 0.0
    predicted_step_s: float = 0.0  # once around the plan, hops and the way back included


@dataclass(frozen=True, slots=True)
class EndedSessions:
    """Sessions since the coordinator began; `latest` are the newest, newest first."""

    num_done: int = 0
    num_failed: int = 0
    latest: tuple[SessionStatus, ...] = ()


@dataclass(frozen=True, slots=True)
class AdaptationState:
    """What adaptation may do, and what it offers."""

    mode: str = ""  # off, suggest or auto; empty if the coordinator does not say
    suggestion_id: int = 0  # waiting to be confirmed; 0 is none


@dataclass(frozen=True, slots=True)
class SpeculationState:
    """What steps may carry on a guess, and what became of it since the coordinator began."""

    mode: str = ""  # off, auto or always; empty if the coordinator does not say
    why_not: str = ""  # why nothing is proposed on the plan that serves
    num_proposed: int = 0
    num_accepted: int = 0

    @property
    def sentence(self) -> str:
        """Such as "auto, 31 of 40 guessed tokens came"."""
        if self.why_not:
            return f"{self.mode}, rests: {self.why_not}"
        return f"{self.mode}, {self.num_accepted} of {self.num_proposed} guessed tokens came"


@dataclass(frozen=True, slots=True)
class Alarms:
    """Warnings and errors that an operator has seen, and those that nobody has."""

    acknowledged_sequence: int = 0  # seen up to this event
    num_unacknowledged: int = 0  # since


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """Everything a console or a script needs for one look at the cluster."""

    cluster_id: str
    phase: Phase
    detail: str
    model: ModelStatus
    plan_version: int
    strategy: str  # of the plan that serves; before there is one, of the next
    num_workers_expected: int
    nodes: tuple[NodeStatus, ...]
    stages: tuple[StageStatus, ...]
    sessions: tuple[SessionStatus, ...]
    speed: Speed
    ended: EndedSessions
    uptime_s: float
    failure: str = ""  # why the cluster cannot serve and what to do; empty while it can or still may
    adaptation: AdaptationState = AdaptationState()
    identity: Identity = Identity.UNKNOWN  # of answers on the plan that serves, or on the workers that have joined
    alarms: Alarms = Alarms()
    prefix_cache: PrefixCacheStatus = PrefixCacheStatus()
    speculation: SpeculationState = SpeculationState()
