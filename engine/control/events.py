"""What can happen to a cluster: the only inputs of `Cluster.handle`."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.control.moves import Transfer
from engine.data.errors import NoodleError
from engine.data.generation import GenerateRequest, Logprobs, StageTiming
from engine.data.measured_link import MeasuredLink
from engine.data.model import ModelCard
from engine.data.plan import NodeSpec, Stage
from engine.data.sampling import GREEDY, Sampling
from engine.data.status import Gauges
from engine.profile.profile import Profile
from engine.profile.row_law import RowLaw


@dataclass(frozen=True, slots=True)
class ModelReady:
    """`shared_prefixes` are beginnings of prompts that an operator lets all callers share.

    `others` are the same model in other dtypes: one of all is chosen once the workers are known.
    """

    card: ModelCard
    shared_prefixes: tuple[tuple[int, ...], ...] = ()
    others: tuple[ModelCard, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelProgress:
    detail: str
    progress: float


@dataclass(frozen=True, slots=True)
class ModelFailed:
    message: str


@dataclass(frozen=True, slots=True)
class WorkerRegistered:
    """A worker announced itself; `ready` once it can measure and load. The same process replaces its former registration."""

    spec: NodeSpec
    generation: int
    ready: bool


@dataclass(frozen=True, slots=True)
class HeartbeatArrived:
    worker_id: str
    generation: int
    detail: str
    progress: float
    gauges: Gauges = field(default_factory=Gauges)


@dataclass(frozen=True, slots=True)
class WorkerMeasured:
    """A decode step of one row takes a stage `base_s` there and the `decode_s` of its items, in seconds; and `rows` says how
    items grow with more of them."""

    worker_id: str
    generation: int
    decode_s: tuple[float, ...]
    base_s: float = 0.0
    rows: RowLaw = field(default_factory=RowLaw)


@dataclass(frozen=True, slots=True)
class WorkerProfiled:
    """A full profile of the model on that node, whose worker plays a machine `slowdown` times as slow."""

    worker_id: str
    generation: int
    profile: Profile
    slowdown: float = 1.0


@dataclass(frozen=True, slots=True)
class LinksMeasured:
    """The end of a `MeasureLinks`; without links if the worker could not answer at all."""

    worker_id: str
    generation: int
    links: tuple[MeasuredLink, ...]


@dataclass(frozen=True, slots=True)
class LinkBroken:
    """A worker's way to the next stage of that plan went silent or was closed, though the worker itself is well."""

    from_id: str
    to_id: str
    plan_version: int
    why: str


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """The connection broke or the worker said goodbye; a lease that runs out is found by `Tick`."""

    worker_id: str
    generation: int
    reason: str


@dataclass(frozen=True, slots=True)
class StageLoaded:
    worker_id: str
    plan_version: int
    weight_bytes: int
    peak_growth_bytes: int  # how far resident memory rose above what it was before loading
    load_s: float


@dataclass(frozen=True, slots=True)
class StagePrepared:
    worker_id: str
    plan_version: int
    read_bytes: int  # weights that were not held before


@dataclass(frozen=True, slots=True)
class KvCopied:
    transfer: Transfer
    plan_version: int
    round: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class StageCommitted:
    """The worker serves the new plan; `missing` are sessions whose keys and values it does not hold completely."""

    worker_id: str
    plan_version: int
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MoveFailed:
    """A worker could not do its part of a move."""

    plan_version: int
    worker_id: str
    message: str


@dataclass(frozen=True, slots=True)
class WorkerFailed:
    """A worker answered that it cannot measure or load: it is left out until it registers again."""

    worker_id: str
    generation: int
    message: str


@dataclass(frozen=True, slots=True)
class SessionSubmitted:
    session_id: str
    prompt_ids: tuple[int, ...]
    request: GenerateRequest
    sampling: Sampling = GREEDY  # what the request and the model make of it
    caller: bytes = b""  # made from who asks: only sessions of one caller share keys and values; empty: it shares none


@dataclass(frozen=True, slots=True)
class SessionRestored:
    """A former coordinator journalled this session and did not finish it: go on behind its last token."""

    session_id: str
    prompt_ids: tuple[int, ...]
    request: GenerateRequest
    generated: tuple[int, ...]
    epoch: int
    stopped: bool = False  # its text had reached a stop string
    age_s: float = 0.0  # since it was submitted
    sampling: Sampling = GREEDY


@dataclass(frozen=True, slots=True)
class SessionCancelled:
    session_id: str
    reason: str
    expected_plan_version: int | None = None  # None: whatever the plan is


@dataclass(frozen=True, slots=True)
class SessionFailed:
    """Its output could not be handled: a bug, or a disk that is full. It ends, the others go on.

    `submitted` is there for one that could not even be written down when it came: it has failed before it began.
    """

    session_id: str
    error: NoodleError
    submitted: SessionSubmitted | None = None


@dataclass(frozen=True, slots=True)
class SegmentOutcome:
    """One session's part of a step report; `stopped` says that the text reached a stop string."""

    session_id: str
    epoch: int
    sample_index: int | None
    token_id: int
    error: NoodleError | None = None
    stopped: bool = False
    logprobs: Logprobs | None = None


@dataclass(frozen=True, slots=True)
class StepReported:
    worker_id: str
    plan_version: int
    step_id: int
    outcomes: tuple[SegmentOutcome, ...]
    timings: tuple[StageTiming, ...]


@dataclass(frozen=True, slots=True)
class StepUndelivered:
    """The first stage could not be reached with this step."""

    plan_version: int
    step_id: int
    message: str


@dataclass(frozen=True, slots=True)
class ReplanRequested:
    """An operator asks for a plan; refused unless the plan version is still the one they saw."""

    expected_plan_version: int
    strategy: str
    stages: tuple[Stage, ...] = ()  # empty: let the planner decide


@dataclass(frozen=True, slots=True)
class DrainRequested:
    """An operator leaves nodes out of plans, until they end it; one plan does it for all of them."""

    worker_ids: tuple[str, ...]
    expected_plan_version: int | None = None  # None: whatever the plan is


@dataclass(frozen=True, slots=True)
class LeaveRequested:
    """A worker is to end: plans leave it out for as long as that `generation` lives."""

    worker_id: str
    generation: int


@dataclass(frozen=True, slots=True)
class UndrainRequested:
    """An operator lets plans use nodes again; one plan does it for all of them."""

    worker_ids: tuple[str, ...]
    expected_plan_version: int | None = None  # None: whatever the plan is


@dataclass(frozen=True, slots=True)
class ForgetRequested:
    """An operator strikes a lost node off the list: it is waited for no longer."""

    worker_id: str


@dataclass(frozen=True, slots=True)
class AdaptationModeSet:
    """An operator lets the cluster move layers by itself (auto), with their consent (suggest) or not (off)."""

    mode: str
    expected_mode: str = ""  # empty: whatever the mode is


@dataclass(frozen=True, slots=True)
class SuggestionConfirmed:
    """An operator agrees to a migration that adaptation suggested."""

    decision_id: int


@dataclass(frozen=True, slots=True)
class CoordinatorLagged:
    """The coordinator itself stood still for `lag_s`: every lease is widened by it, nobody is accused."""

    lag_s: float


@dataclass(frozen=True, slots=True)
class Tick:
    pass


ClusterEvent = (
    ModelReady
    | ModelProgress
    | ModelFailed
    | WorkerRegistered
    | HeartbeatArrived
    | WorkerMeasured
    | WorkerProfiled
    | LinksMeasured
    | LinkBroken
    | WorkerLost
    | StageLoaded
    | StagePrepared
    | KvCopied
    | StageCommitted
    | MoveFailed
    | WorkerFailed
    | SessionSubmitted
    | SessionRestored
    | SessionCancelled
    | SessionFailed
    | StepReported
    | StepUndelivered
    | ReplanRequested
    | DrainRequested
    | LeaveRequested
    | UndrainRequested
    | ForgetRequested
    | AdaptationModeSet
    | SuggestionConfirmed
    | CoordinatorLagged
    | Tick
)
# Somebody waits for the answer to these: they are refused by raising, and whoever asked hears of a bug.
Request = (
    WorkerRegistered
    | SessionSubmitted
    | SessionCancelled
    | ReplanRequested
    | DrainRequested
    | LeaveRequested
    | UndrainRequested
    | ForgetRequested
    | AdaptationModeSet
    | SuggestionConfirmed
)
