"""Recent step times per stage and for the whole pipeline. Pure; bounded; medians, never means."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from engine.data.generation import StageTiming

WINDOW_STEPS = 128
HISTORY_INTERVALS = 60
INTERVAL_S = 1.0
RATE_WINDOW_S = 5.0


@dataclass(frozen=True, slots=True)
class StageFigures:
    compute_p50_s: float
    compute_p95_s: float
    queue_p50_s: float
    num_steps: int
    history_s: tuple[float, ...]


def quantile(values: list[float], fraction: float) -> float:
    """The nearest-rank quantile; 0.0 of nothing."""
    if not values:
        return 0.0
    return sorted(values)[min(len(values) - 1, int(fraction * len(values)))]


class StageWindow:
    """The last decode steps of one stage, and the median of each past interval."""

    def __init__(self) -> None:
        self._compute_s: deque[float] = deque(maxlen=WINDOW_STEPS)
        self._queue_s: deque[float] = deque(maxlen=WINDOW_STEPS)
        self._interval_s: list[float] = []
        self._history_s: deque[float] = deque(maxlen=HISTORY_INTERVALS)

    def add(self, timing: StageTiming) -> None:
        self._compute_s.append(timing.compute_s)
        self._queue_s.append(timing.queue_s)
        self._interval_s.append(timing.compute_s)

    def close_interval(self) -> None:
        self._history_s.append(quantile(self._interval_s, 0.5))
        self._interval_s.clear()

    def figures(self) -> StageFigures:
        compute_s = list(self._compute_s)
        return StageFigures(
            quantile(compute_s, 0.5), quantile(compute_s, 0.95), quantile(list(self._queue_s), 0.5), len(compute_s), tuple(self._history_s)
        )


class PipelineMetrics:
    """Decode steps of the current plan: per stage, per step, and tokens per second over the last seconds."""

    def __init__(self) -> None:
        self._stages: dict[str, StageWindow] = {}
        self._step_s: deque[float] = deque(maxlen=WINDOW_STEPS)
        self._hop_s: deque[float] = deque(maxlen=WINDOW_STEPS)
        self._tokens_s: deque[float] = deque(maxlen=100_000)
        self._interval_start_s: float | None = None

    def start_plan(self) -> None:
        """A new plan: what was measured under the old one no longer describes the stages."""
        self._stages.clear()
        self._step_s.clear()
        self._hop_s.clear()

    def add_step(self, timings: tuple[StageTiming, ...], step_s: float) -> None:
        """One decode step; what is not compute, queue or wire work is transport, shared evenly by its hops."""
        spent_s = 0.0
        for timing in timings:
            window = self._stages.get(timing.worker_id)
            if window is None:
                window = self._stages[timing.worker_id] = StageWindow()
            window.add(timing)
            spent_s += timing.compute_s + timing.queue_s + timing.wire_in_s + timing.wire_out_s
        self._step_s.append(step_s)
        wire_s = sum(t.wire_in_s + t.wire_out_s for t in timings)
        self._hop_s.append(max(0.0, step_s - spent_s + wire_s) / (len(timings) + 1))

    def add_token(self, now_s: float) -> None:
        self._tokens_s.append(now_s)

    def tick(self, now_s: float) -> None:
        if self._interval_start_s is None:
            self._interval_start_s = now_s
        if now_s - self._interval_start_s >= INTERVAL_S:
            self._interval_start_s = now_s
            for window in self._stages.values():
                window.close_interval()
        while self._tokens_s and now_s - self._tokens_s[0] > RATE_WINDOW_S:
            self._tokens_s.popleft()

    def stage(self, worker_id: str) -> StageFigures:
        return self._stages.get(worker_id, StageWindow()).figures()

    def tokens_per_s(self) -> float:
        return len(self._tokens_s) / RATE_WINDOW_S

    def step_quantile_s(self, fraction: float) -> float:
        return quantile(list(self._step_s), fraction)

    def hop_p50_s(self) -> float:
        return quantile(list(self._hop_s), 0.5)
