"""What a cluster wants done: the only outputs of `Cluster.handle`, carried out in order by a shell."""

from __future__ import annotations

from dataclasses import dataclass

from engine.data import FinishReason, NoodleError, Plan, Segment, Severity, Stage, StageTiming


@dataclass(frozen=True, slots=True)
class MeasureWorker:
    worker_id: str
    generation: int


@dataclass(frozen=True, slots=True)
class MeasureLinks:
    """Let a worker measure its links to these others; the answer is `LinksMeasured`, whatever happens."""

    worker_id: str
    generation: int
    peer_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LoadStage:
    worker_id: str
    generation: int
    plan_version: int
    stage: Stage
    next_worker_id: str | None


@dataclass(frozen=True, slots=True)
class AdoptPlan:
    """Record the plan before its stages are loaded."""

    plan: Plan


@dataclass(frozen=True, slots=True)
class SendStep:
    plan_version: int
    step_id: int
    first_worker_id: str
    segments: tuple[Segment, ...]
    reserve_tokens: int
    releases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EmitToken:
    """Journal the token, then give it to the client."""

    session_id: str
    index: int
    token_id: int
    timings: tuple[StageTiming, ...]
    step_s: float


@dataclass(frozen=True, slots=True)
class FinishSession:
    session_id: str
    reason: FinishReason
    error: NoodleError | None = None


@dataclass(frozen=True, slots=True)
class DropWorker:
    """Close every connection to this registration of the worker."""

    worker_id: str
    generation: int


@dataclass(frozen=True, slots=True)
class Record:
    """Something an operator should be able to read later."""

    severity: Severity
    kind: str
    subject: str
    text: str
    cause_id: str = ""


Command = MeasureWorker | MeasureLinks | LoadStage | AdoptPlan | SendStep | EmitToken | FinishSession | DropWorker | Record
