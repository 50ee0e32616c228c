"""Step times of the last seconds, per stage, per hop and for the whole pipeline. Pure; bounded; medians over time, never means."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from engine.control.sessions.hops import Hops
from engine.control.sessions.window import Window, over_time, quantile
from engine.data.generation import StageTiming
from engine.data.status import WINDOW_S

RECENT_STEPS = 128
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


@dataclass(frozen=True, slots=True)
class StepLoad:
    """What a step carried: rows of decoding sessions, behind how many tokens in the mean, and tokens of prompts."""

    rows: int
    context_tokens: int
    prompt_tokens: int = 0


@dataclass(frozen=True, slots=True)
class _Step:
    whole_s: float
    hop_s: tuple[float, ...]  # in from the coordinator, between the stages, and back
    load: StepLoad


class StageWindow:
    """The decode steps of one stage, and the median of each past interval."""

    def __init__(self) -> None:
        self.times: Window[tuple[float, float, float]] = Window()  # (compute, queue, the whole step)
        self._interval_s: list[float] = []
        self._history_s: deque[float] = deque(maxlen=HISTORY_INTERVALS)

    def add(self, timing: StageTiming, step_s: float, now_s: float, waited_s: float = 0.0) -> None:
        self.times.add((timing.compute_s, max(0.0, timing.queue_s - waited_s), step_s), now_s)
        self._interval_s.append(timing.compute_s)

    def close_interval(self) -> None:
        self._history_s.append(quantile(self._interval_s, 0.5))
        self._interval_s.clear()

    def figures(self) -> StageFigures:
        compute_s = [c for c, _, _ in self.times]
        middle_s, queue_s = over_time([(c, s) for c, _, s in self.times]), over_time([(q, s) for _, q, s in self.times])
        return StageFigures(middle_s, quantile(compute_s, 0.95), queue_s, len(compute_s), tuple(self._history_s))


class PipelineMetrics:
    """Steps of the current plan: per stage and hop, per step, and tokens per second over the last seconds."""

    def __init__(self) -> None:
        self._stages: dict[str, StageWindow] = {}
        self._steps: Window[_Step] = Window()
        self._prompts: Window[tuple[float, int]] = Window()  # (seconds of compute that prompts took, their tokens)
        self._spent_s: Window[float] = Window()  # compute of every step
        self._recent_s: deque[float] = deque(maxlen=RECENT_STEPS)  # however long ago
        self._newest_s: float | None = None
        self._hops = Hops()
        self._tokens_s: Window[None] = Window(RATE_WINDOW_S)
        self._interval_start_s: float | None = None

    def start_plan(self, planned_hop_s: tuple[float, ...] = ()) -> None:
        """A new plan: what was measured under the old one no longer describes the stages."""
        self._stages.clear()
        for window in (self._steps, self._prompts, self._spent_s):
            window.clear()
        self._recent_s.clear()
        self._newest_s, self._hops = None, Hops(planned_hop_s)

    def add_step(self, timings: tuple[StageTiming, ...], load: StepLoad, sent_s: float, now_s: float, waited_s: float = 0.0) -> None:
        """One decode step that was sent and came back then. What it `waited_s` behind the one that it was sent ahead of is not its time."""
        whole_s = max(0.0, now_s - sent_s - waited_s)
        for timing in timings:
            window = self._stages.get(timing.worker_id)
            if window is None:
                window = self._stages[timing.worker_id] = StageWindow()
            window.add(timing, whole_s, now_s, waited_s)
        self._steps.add(_Step(whole_s, self._hops.split(timings, sent_s, now_s), load), now_s)
        self._recent_s.append(whole_s)
        self._spent_s.add(math.fsum(t.compute_s for t in timings), now_s)
        self._newest_s = now_s

    def add_prompt_step(self, timings: tuple[StageTiming, ...], load: StepLoad, now_s: float) -> None:
        """One step with pieces of prompts in it; what its decode rows alone would have taken is not theirs."""
        spent_s = math.fsum(t.compute_s for t in timings)
        alone_s = math.fsum(self.stage(t.worker_id).compute_p50_s for t in timings) if load.rows else 0.0
        self._prompts.add((max(0.0, spent_s - alone_s), load.prompt_tokens), now_s)
        self._spent_s.add(spent_s, now_s)

    def add_token(self, now_s: float) -> None:
        self._tokens_s.add(None, now_s)

    def tick(self, now_s: float) -> None:
        if self._interval_start_s is None:
            self._interval_start_s = now_s
        if now_s - self._interval_start_s >= INTERVAL_S:
            self._interval_start_s = now_s
            for stage in self._stages.values():
                stage.close_interval()
        for stage in self._stages.values():
            stage.times.forget_old(now_s)
        for window in (self._steps, self._prompts, self._spent_s, self._tokens_s):
            window.forget_old(now_s)

    def stage(self, worker_id: str) -> StageFigures:
        return self._stages.get(worker_id, StageWindow()).figures()

    def tokens_per_s(self) -> float:
        return len(self._tokens_s) / RATE_WINDOW_S

    def step_p50_s(self) -> float:
        return over_time([(step.whole_s, step.whole_s) for step in self._steps])

    def step_p95_s(self) -> float:
        return quantile([step.whole_s for step in self._steps], 0.95)

    def slow_step_s(self) -> float:
        """The 95th percentile of the last steps, however long ago they were."""
        return quantile(list(self._recent_s), 0.95)

    def hop_s(self, index: int) -> tuple[float, float]:
        """Median and 95th percentile over time of the hop in from the coordinator (0), from the first stage (1), and so on; zeros
        without steps."""
        seen = [(step.hop_s[index], step.whole_s) for step in self._steps if index < len(step.hop_s)]
        return over_time(seen), over_time(seen, 0.95)

    def load(self) -> StepLoad:
        """The medians of what steps carry; zeros without steps."""
        rows, contexts = [float(s.load.rows) for s in self._steps], [float(s.load.context_tokens) for s in self._steps]
        return StepLoad(int(quantile(rows, 0.5)), int(quantile(contexts, 0.5)))

    def prompt_share(self) -> float:
        """0..1 of the stages' time that prompts took."""
        whole_s = math.fsum(self._spent_s)
        return min(1.0, math.fsum(s for s, _ in self._prompts) / whole_s) if whole_s > 0.0 else 0.0

    def prompt_tokens_per_s(self) -> float:
        return sum(n for _, n in self._prompts) / WINDOW_S

    def since_newest_s(self, now_s: float) -> float:
        """Since the last decode step came back; -1 if none did under this plan."""
        return -1.0 if self._newest_s is None else max(0.0, now_s - self._newest_s)
