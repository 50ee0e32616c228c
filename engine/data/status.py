"""What an operator sees of a running cluster: nodes, stages, sessions, events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from engine.data.precision import Identity, Precision

WINDOW_S = 10.0  # what medians of steps are taken over
QUIET_S = 3.0  # after so long without a step they are of the past


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
    again_of: int = 0  # the first event that this one tells again, with a count; 0: it tells nothing again


def without_former(events: Sequence[Event]) -> tuple[Event, ...]:
    """Of what was told several times the last telling only; oldest first, as they come."""
    last = {event.again_of or event.sequence: event.sequence for event in events}
    return tuple(event for event in events if last[event.again_of or event.sequence] == event.sequence)


@dataclass(frozen=True, slots=True)
class WrittenLine:
    """A line of a process's log; `number` grows from line to line."""

    number: int
    wall_s: float
    severity: Severity
    text: str


@dataclass(frozen=True, slots=True)
class MachineGauges:
    """What the whole machine of a worker does, over the last seconds; None where it does not tell."""

    num_cores: int = 0  # 0: not known
    busy: float | None = None  # 0..1 of all cores, by whatever process
    stolen: float | None = None  # 0..1 of all cores that the hypervisor gave to others
    clock: float | None = None  # of the cores, 1 = the highest they can have
    swapped_bytes_per_s: float | None = None  # in and out
    free_bytes: int | None = None  # memory that processes may still have
    total_bytes: int | None = None
    disk_free_bytes: int | None = None  # where the worker keeps weights
    gpu_power_w: float | None = None
    gpu_power_limit_w: float | None = None
    gpu_throttled: str | None = None  # why its clock is held down: heat, power; empty if it is not


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
    machine: MachineGauges = field(default_factory=lambda: MachineGauges())
    core_wait: float | None = None  # threads of the process that could run and had no core, on average


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
    runtime_bytes: int = 0  # of its resident memory, what it took when it had no stage: `memory_bytes` does not count it


@dataclass(frozen=True, slots=True)
class StageStatus:
    """One stage's measurements of the last `WINDOW_S` beside what the plan predicted; all times are decode steps.

    `predicted_*` is what the plan was made with: one row, a short context, a host of its own. `expected_*` is the same for what runs: the
    rows and contexts of the steps, and neighbours that compute on the same cores. 0 where nothing runs.
    """

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
    expected_s: float = 0.0
    expected_hop_s: float = 0.0  # to the next stage, or back to the coordinator
    hop_p95_s: float = 0.0

    @property
    def planned_s(self) -> float:
        """What stands beside a measurement."""
        return self.expected_s or self.predicted_s

    @property
    def planned_hop_s(self) -> float:
        return self.expected_hop_s or self.predicted_hop_s


@dataclass(frozen=True, slots=True)
class Guessed:
    """Tokens that steps carried on a guess, and of them those that came."""

    num_proposed: int = 0
    num_accepted: int = 0


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
    guessed: Guessed = Guessed()
    num_read: int = 0  # tokens of its prompt that went through all stages
    read_tokens_per_s: float = 0.0  # since the first of them was sent; 0: not known
    queue_s: float = 0.0  # of the time to its first token: in the queue, reading the prompt, and the step that made it
    prompt_s: float = 0.0
    first_step_s: float = 0.0


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
    window_s: float = 0.0  # how far back the medians reach; 0: a coordinator that does not say
    newest_s: float = -1.0  # since the last step came back; -1: none did on this plan
    entry_hop_s: float = 0.0  # median, from the coordinator to the first stage
    expected_entry_s: float = 0.0
    expected_step_s: float = 0.0  # once around, for what runs


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
class Work:
    """What the plan has to do, over the last `WINDOW_S`: medians of its decode steps, what prompts take of its time; and what is saved."""

    rows: int = 0  # sessions in a step; 0: no step
    context_tokens: int = 0
    num_lanes: int = 0  # steps that may be under way at once
    prompt_share: float = 0.0  # 0..1 of the stages' time that went into prompts
    prompt_tokens_per_s: float = 0.0
    kv_reserved_tokens: int = 0
    kv_capacity_tokens: int = 0  # 0: no plan
    prefix_cache: PrefixCacheStatus = PrefixCacheStatus()
    speculation: SpeculationState = SpeculationState()


@dataclass(frozen=True, slots=True)
class CoordinatorGauges:
    """What the coordinator reads of itself."""

    lag_s: float = 0.0  # the longest that its loop stood still in the last `WINDOW_S`
    disk_free_bytes: int | None = None  # where its journal is; None without one
    host: str = ""
    cpu_utilisation: float = 0.0  # 1 = one core


@dataclass(frozen=True, slots=True)
class Outlook:
    """The plan that serves beside the best one by the times that are known now; both bottlenecks in seconds, 0: not looked yet."""

    present_s: float = 0.0
    best_s: float = 0.0
    num_moved: int = 0  # items that change their owner on the way there


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that the coordinator says is wrong: who asks it now need not watch for as long as it did."""

    kind: str
    subject: str  # a node, a host, `a>b` for a link; empty for the whole cluster


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
class Alarms:
    """Warnings and errors that an operator has seen, and those that nobody has."""

    acknowledged_sequence: int = 0  # seen up to this event
    num_unacknowledged: int = 0  # since
    troubles: tuple[Trouble, ...] = ()  # what is wrong now, the greatest loss first


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
    work: Work = Work()
    coordinator: CoordinatorGauges = CoordinatorGauges()
    outlook: Outlook = Outlook()
