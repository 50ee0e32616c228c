"""What a stage takes as far as is known, and which one is the slowest."""

from __future__ import annotations

from collections.abc import Sequence

from engine.data.status import ClusterStatus, StageStatus


def stage_s(stage: StageStatus) -> float:
    """What a stage takes: measured if it has run, else predicted."""
    return stage.compute_p50_s if stage.num_steps and stage.compute_p50_s > 0 else stage.predicted_s


def bottleneck_index(times_s: Sequence[float]) -> int | None:
    """The slowest stage, or None while nothing is known."""
    return max(range(len(times_s)), key=lambda i: times_s[i]) if any(t > 0 for t in times_s) else None


def hop_s(stage: StageStatus) -> float:
    """The way from it to the next one: measured once it has run, else planned."""
    return stage.hop_p50_s if stage.num_steps else stage.planned_hop_s


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
