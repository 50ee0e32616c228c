"""What a stage takes as far as is known, and which stage or hop takes the most of a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.data.measured_link import COORDINATOR
from engine.data.status import ClusterStatus, StageStatus
from engine.diagnosis.step import is_slow_hop

HOP_MARGIN = 1.5  # so much more than the slowest stage a hop takes to be called the bottleneck: noise must not move the mark


@dataclass(frozen=True, slots=True)
class Hop:
    """One way of a step; `index` is of the stage that it begins at, -1 for the way in from the coordinator."""

    index: int
    from_id: str
    to_id: str
    time_s: float
    planned_s: float


def stage_s(stage: StageStatus) -> float:
    """What a stage takes: measured if it has run, else predicted."""
    return stage.compute_p50_s if stage.num_steps and stage.compute_p50_s > 0 else stage.predicted_s


def bottleneck_index(times_s: Sequence[float]) -> int | None:
    """The slowest stage, or None while nothing is known."""
    return max(range(len(times_s)), key=lambda i: times_s[i]) if any(t > 0 for t in times_s) else None


def bottleneck_hop(status: ClusterStatus) -> Hop | None:
    """The slowest hop, where it takes clearly more of a step than any stage does; None else, and until steps were measured."""
    names = [*(stage.worker_id for stage in status.stages), COORDINATOR]
    hops = [Hop(-1, COORDINATOR, names[0], status.speed.entry_hop_s, status.speed.expected_entry_s)]
    for i, stage in enumerate(status.stages):
        planned_s = stage.expected_hop_s or stage.planned_hop_s
        hops.append(Hop(i, stage.worker_id, names[i + 1], stage.hop_p50_s if stage.num_steps else 0.0, planned_s))
    worst = max(hops, key=lambda hop: hop.time_s)
    return worst if worst.time_s > HOP_MARGIN * max(map(stage_s, status.stages), default=0.0) else None


def hop_s(stage: StageStatus) -> float:
    """The way from it to the next one: measured once it has run, else planned."""
    return stage.hop_p50_s if stage.num_steps else stage.planned_hop_s


def has_slow_hop(stage: StageStatus) -> bool:
    """Whether the way from it to the next one takes far longer than planned."""
    return stage.planned_hop_s > 0 and is_slow_hop(stage.hop_p50_s, stage.planned_hop_s)


def step_times(status: ClusterStatus) -> tuple[float, float]:
    """One step through all stages and hops: as planned, and as measured (0 until every stage has run)."""
    planned_s = status.speed.expected_step_s or status.speed.predicted_step_s
    if not all(stage.num_steps and stage.compute_p50_s > 0 for stage in status.stages):
        return planned_s, 0.0
    return planned_s, sum(stage.compute_p50_s + stage.hop_p50_s for stage in status.stages) + status.speed.entry_hop_s


def whole_step_s(status: ClusterStatus) -> float:
    """One step as far as is known: measured, else planned, else what its parts make."""
    planned_s, measured_s = step_times(status)
    return measured_s or planned_s or sum(stage_s(stage) + hop_s(stage) for stage in status.stages)
