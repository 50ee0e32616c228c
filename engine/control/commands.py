"""What a cluster wants done: the only outputs of `Cluster.handle`, carried out in order by a shell."""

from __future__ import annotations

from dataclasses import dataclass

from engine.control.moves import Carried, KvRange, Transfer
from engine.data.errors import NoodleError
from engine.data.generation import FinishReason, Kept, Logprobs, Segment, StageTiming
from engine.data.plan import Plan, Stage
from engine.data.status import SessionStatus, Severity


@dataclass(frozen=True, slots=True)
class MeasureWorker:
    worker_id: str
    generation: int


@dataclass(frozen=True, slots=True)
class MeasureLinks:
    """Have the links between a worker and these others measured, the coordinator perhaps among them; the answer is
    `LinksMeasured`, whatever happens."""

    worker_id: str
    generation: int
    peer_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LoadStage:
    """Own the stage from now on and drop every session of another plan."""

    worker_id: str
    generation: int
    plan_version: int
    stage: Stage
    next_worker_id: str | None


@dataclass(frozen=True, slots=True)
class PrepareStage:
    """Load the stage beside the one that serves; nothing runs on it before `CommitStage`."""

    worker_id: str
    generation: int
    plan_version: int
    stage: Stage
    next_worker_id: str | None


@dataclass(frozen=True, slots=True)
class CopyKv:
    """Let the target of `transfer` fetch keys and values of its items from the source, into its prepared stage."""

    transfer: Transfer
    generation: int  # of the target
    plan_version: int
    round: int
    ranges: tuple[KvRange, ...]


@dataclass(frozen=True, slots=True)
class CommitStage:
    """Switch to the prepared stage and go on with these sessions."""

    worker_id: str
    generation: int
    plan_version: int
    sessions: tuple[Carried, ...]


@dataclass(frozen=True, slots=True)
class ReleaseStage:
    """Drop everything that belongs to this plan version: a prepared stage that is not wanted, or one that was left."""

    worker_id: str
    generation: int
    plan_version: int


@dataclass(frozen=True, slots=True)
class AdoptPlan:
    """Journal the plan: before its stages are loaded, or as the commit of a move."""

    plan: Plan


@dataclass(frozen=True, slots=True)
class KeepDrained:
    """Journal which nodes an operator left out: the next coordinator leaves them out too."""

    worker_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SendStep:
    plan_version: int
    step_id: int
    first_worker_id: str
    segments: tuple[Segment, ...]
    releases: tuple[str, ...] = ()
    kept: tuple[Kept, ...] = ()  # sessions that ended and leave something behind
    dropped: tuple[int, ...] = ()  # what is kept no longer


@dataclass(frozen=True, slots=True)
class EmitToken:
    """Journal the token, then give it to the client."""

    session_id: str
    index: int
    token_id: int
    timings: tuple[StageTiming, ...]
    step_s: float
    logprobs: Logprobs | None = None


@dataclass(frozen=True, slots=True)
class FinishSession:
    session_id: str
    reason: FinishReason
    error: NoodleError | None
    status: SessionStatus  # what is remembered of it


@dataclass(frozen=True, slots=True)
class KeepDtype:
    """What `--dtype auto` stands for here from now on: a restarted coordinator goes on with it."""

    dtype: str


@dataclass(frozen=True, slots=True)
class DropWorker:
    """Close every connection to this registration of the worker."""

    worker_id: str
    generation: int


@dataclass(frozen=True, slots=True)
class Fault:
    """A bug in the cluster itself, which went on: end the session it is about, if it is about one, and tell an operator."""

    error: Exception
    session_id: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """Something an operator should be able to read later."""

    severity: Severity
    kind: str
    subject: str
    text: str
    cause_id: str = ""
    is_again: bool = False  # what the last one of this kind and subject said, once more and with a count: it takes its place


Command = (
    MeasureWorker
    | MeasureLinks
    | LoadStage
    | PrepareStage
    | CopyKv
    | CommitStage
    | ReleaseStage
    | AdoptPlan
    | KeepDrained
    | KeepDtype
    | SendStep
    | EmitToken
    | FinishSession
    | DropWorker
    | Fault
    | Record
)
