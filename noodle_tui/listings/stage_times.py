"""What a stage takes as far as is known, and which one is the slowest."""

from __future__ import annotations

from collections.abc import Sequence

from engine.data.status import StageStatus


def stage_s(stage: StageStatus) -> float:
    """What a stage takes: measured if it has run, else predicted."""
    return stage.compute_p50_s if stage.num_steps and stage.compute_p50_s > 0 else stage.predicted_s


def bottleneck_index(times_s: Sequence[float]) -> int | None:
    """The slowest stage, or None while nothing is known."""
    return max(range(len(times_s)), key=lambda i: times_s[i]) if any(t > 0 for t in times_s) else None
