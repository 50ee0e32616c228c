"""How long the steps of one answer took: the usual ones, and the slow ones with the part that made them slow. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from engine.data.generation import StageTiming

MAX_RECENT = 256  # steps that the percentiles describe


@dataclass(frozen=True, slots=True)
class SlowToken:
    """A token whose step took longer than the limit; `cause` is the part that was furthest above its usual time."""

    number: int  # from 1
    step_s: float
    cause: str


@dataclass(frozen=True, slots=True)
class StepTimes:
    """Of one answer, as the coordinator measured them; the first token's step is its prompt's and does not count."""

    recent_s: tuple[float, ...] = ()
    usual: tuple[StageTiming, ...] = ()  # of the newest step that was not slow
    usual_s: float = 0.0
    num_slow: int = 0
    slowest: SlowToken | None = None

    def quantile_s(self, share: float) -> float:
        """Of the recent steps; 0 without any."""
        ordered = sorted(self.recent_s)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def with_step(times: StepTimes, number: int, timings: Sequence[StageTiming], step_s: float, limit_s: float) -> StepTimes:
    """One more step, which brought token `number`; slow above `limit_s`."""
    if step_s <= 0 or number <= 1:
        return times
    times = replace(times, recent_s=(*times.recent_s[-MAX_RECENT + 1 :], step_s))
    if step_s <= limit_s:
        return replace(times, usual=tuple(timings), usual_s=step_s)
    slow = SlowToken(number, step_s, _cause(timings, step_s, times))
    slowest = slow if times.slowest is None or step_s > times.slowest.step_s else times.slowest
    return replace(times, num_slow=times.num_slow + 1, slowest=slowest)


def _cause(timings: Sequence[StageTiming], step_s: float, times: StepTimes) -> str:
    """The part that exceeds its usual time the most; without a usual step the longest part."""
    usual = _parts(times.usual, times.usual_s)
    excess = {name: part_s - usual.get(name, 0.0) for name, part_s in _parts(timings, step_s).items()}
    return max(excess, key=lambda name: excess[name])


def _parts(timings: Sequence[StageTiming], step_s: float) -> dict[str, float]:
    """A step's time by where it went."""
    parts = {f"computing on {t.worker_id}": t.compute_s for t in timings} | {f"queue on {t.worker_id}": t.queue_s for t in timings}
    return parts | {"wire": max(0.0, step_s - sum(parts.values()))}
