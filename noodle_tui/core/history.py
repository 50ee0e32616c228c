"""What the console remembers of the frames it saw: samples for graphs, the plans that served, what was missed while away.

Pure and bounded. The coordinator keeps no such history, so it begins when this console connected (or its recording did).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from engine.data.status import ClusterStatus, Event, NodeState, Severity, StageStatus
from engine.diagnosis.standing import Standing
from noodle_tui.core.looks import Looks

MAX_SAMPLES = 3600  # an hour at one a second
SAMPLE_EVERY_S = 0.9
MAX_PLANS = 20


@dataclass(frozen=True, slots=True)
class Sample:
    wall_s: float
    tokens_per_s: float
    step_p50_s: float
    step_p95_s: float
    num_sessions: int = 0  # that run or wait
    kv_share: float = 0.0  # 0..1 of the tokens of KV that are reserved


@dataclass(frozen=True, slots=True)
class PlanSeen:
    """A plan that served while this console looked, with its newest measurements."""

    plan_version: int
    strategy: str
    stages: tuple[StageStatus, ...]
    first_wall_s: float
    last_wall_s: float


@dataclass(frozen=True, slots=True)
class History:
    """What earlier frames said."""

    samples: tuple[Sample, ...] = ()
    plans: tuple[PlanSeen, ...] = ()  # oldest first
    standing: Standing = field(default_factory=Standing)  # what is wrong
    looks: Looks = field(default_factory=Looks)  # at every node and session

    def with_frame(self, status: ClusterStatus, wall_s: float) -> History:
        """One frame more."""
        samples, plans = sampled(self.samples, status, wall_s), planned(self.plans, status, wall_s)
        return History(samples, plans, self.standing.after(status, wall_s), self.looks.with_frame(status, wall_s))


def sampled(samples: tuple[Sample, ...], status: ClusterStatus, wall_s: float) -> tuple[Sample, ...]:
    """One more sample, unless the last one is too fresh; a clock that went back (a replay that jumped) starts anew."""
    if samples and wall_s < samples[-1].wall_s:
        samples = tuple(sample for sample in samples if sample.wall_s < wall_s)
    if samples and wall_s - samples[-1].wall_s < SAMPLE_EVERY_S:
        return samples
    speed, work = status.speed, status.work
    kv = work.kv_reserved_tokens / work.kv_capacity_tokens if work.kv_capacity_tokens else 0.0
    sample = Sample(wall_s, speed.tokens_per_s, speed.step_p50_s, speed.step_p95_s, len(status.sessions), kv)
    return (*samples[-MAX_SAMPLES + 1 :], sample)


def planned(plans: tuple[PlanSeen, ...], status: ClusterStatus, wall_s: float) -> tuple[PlanSeen, ...]:
    """The plans seen so far, oldest first; stages lose their history, which is the bulk of them."""
    plans = tuple(plan for plan in plans if plan.first_wall_s <= wall_s)
    if not status.stages:
        return plans
    stages = tuple(replace(stage, history_s=()) for stage in status.stages)
    if plans and plans[-1].plan_version == status.plan_version:
        return (*plans[:-1], replace(plans[-1], stages=stages, strategy=status.strategy, last_wall_s=wall_s))
    return (*plans[-MAX_PLANS + 1 :], PlanSeen(status.plan_version, status.strategy, stages, wall_s, wall_s))


def missed(before: ClusterStatus, after: ClusterStatus, fresh: tuple[Event, ...], away_s: float) -> str:
    """One sentence about what happened while the console was not connected."""
    facts = []
    if after.uptime_s < before.uptime_s:
        facts.append("the coordinator began anew")
    if after.plan_version != before.plan_version:
        facts.append(f"plan #{before.plan_version} > #{after.plan_version}")
    facts += _nodes_gone(before, after)
    num_bad = sum(event.severity in (Severity.WARN, Severity.ERROR) for event in fresh)
    if fresh:
        facts.append(f"{len(fresh)} event{'s' if len(fresh) > 1 else ''}" + (f" ({num_bad} WARN or ERROR)" if num_bad else ""))
    return f"back after {away_s:.0f}s; missed: {', '.join(facts) or 'nothing'}"


def _nodes_gone(before: ClusterStatus, after: ClusterStatus) -> list[str]:
    alive = {node.worker_id for node in after.nodes if node.state is not NodeState.LOST}
    known = {node.worker_id for node in before.nodes if node.state is not NodeState.LOST}
    gone, come = sorted(known - alive), sorted(alive - known)
    return [f"{name} lost" for name in gone[:3]] + [f"{name} joined" for name in come[:3]]
