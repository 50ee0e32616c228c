"""WorkloadProfiler: warm up, measure every point in turn, say what the measuring itself cost.

Points are visited round by round, hooked and plain steps alternating, so that a machine that slows down meanwhile
does so for all of them alike. Each visit takes one step of each sort; medians are taken later. What a step does
(FLOPs, bytes, shapes) is counted apart from the timing, once per point, in its warm-up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter

import torch

from engine.model.hardware.clocks import clock_for
from engine.model.hardware.freed_memory import release_memory
from engine.model.hardware.roofline import measure_roofline
from engine.model.profiling.collector import MetricsCollector
from engine.model.profiling.roles import HookedLayer, select_layers
from engine.model.profiling.served import Served
from engine.model.profiling.spans import StepSpans
from engine.model.profiling.traffic import LayerCounts, count_step
from engine.model.profiling.workload import Step, Workload
from engine.model.progress import Progress
from engine.profile.point import DECODE, PHASES, Point
from engine.profile.points import PointPlan
from engine.profile.profile import Roofline

DEFAULT_BUDGET_S, QUICK_BUDGET_S = 40.0, 8.0
_LONGEST_PREFILL_S = 1.0  # longer prompts are left out on machines that would take longer
_PROBE_TOKENS, _LEAST_PREFILL_TOKENS = 48, 16
_MAX_ROUNDS = 30
_FULL_PLAN_STEPS = 600  # three rounds of a full plan and its warm-up cost about as much as so many of its shortest steps
_FEWEST_POINTS = 3  # of a phase: what a law needs
_MIN_PAIRS, _MAX_PAIRS = 4, 200
_WARM_UP_SHARE = 0.4  # of the budget, at most
_RARE_STEP_S = 0.15  # points that take longer are visited every second round
_OVERHEAD_SHARE = 0.15  # of the budget: pairs at one decode point, where the hooks weigh most


@dataclass(slots=True)
class PointSamples:
    """What was taken at one point; `plain_s[k]`, `spans[k]` and `item_s[k]` come from neighbouring steps."""

    point: Point
    counts: dict[int, LayerCounts]
    plain_s: list[float] = field(default_factory=list)
    spans: list[StepSpans] = field(default_factory=list)
    item_s: list[tuple[float, ...]] = field(default_factory=list)  # fewer than spans where only the hooks' cost was measured


@dataclass(frozen=True, slots=True)
class Measurements:
    """Everything the engine took, raw; `profile_of` condenses it."""

    layers: tuple[HookedLayer, ...]
    plan: PointPlan
    samples: tuple[PointSamples, ...]
    roofline: Roofline
    num_steps: int
    spent_s: float
    served: Served | None = field(default_factory=Served)  # None: an interrupt came first, so what a step costs is not known

    def of(self, points: Sequence[Point]) -> list[PointSamples]:
        wanted = set(points)
        return [taken for taken in self.samples if taken.point in wanted]


class WorkloadProfiler:
    """Measures one workload. `depth` says which modules get hooks: item, layer or leaf; items are timed at every depth."""

    def __init__(
        self,
        workload: Workload,
        *,
        depth: str = "layer",
        quick: bool = False,
        budget_s: float | None = None,
        on_progress: Progress | None = None,
        on_stop: Callable[[], None] | None = None,
    ) -> None:
        """`on_stop`: called when an interrupt ends the measuring before its time; without it the interrupt comes through."""
        self._workload, self._on_stop = workload, on_stop
        self._quick = quick
        self._budget_s = budget_s if budget_s is not None else QUICK_BUDGET_S if quick else DEFAULT_BUDGET_S
        self._progress = on_progress or (lambda done, text: None)
        self._collector = MetricsCollector(select_layers(workload.model, workload.blocks, depth), clock_for(workload.device))
        self._num_steps = 0

    def run(self) -> Measurements:
        """Warm up and measure; takes about the budget and a second, more where three steps of each phase take longer."""
        began_s = perf_counter()
        self._progress(0.0, "measuring what this device can do at best")
        roofline = measure_roofline(self._workload.device, getattr(torch, self._workload.card.ref.dtype))
        release_memory()
        measuring_s = perf_counter()
        probed_s = {tokens: self._probe_s(tokens) for tokens in (1, _PROBE_TOKENS)}
        most_prefill_tokens = max(_LEAST_PREFILL_TOKENS, int(_LONGEST_PREFILL_S * _PROBE_TOKENS / probed_s[_PROBE_TOKENS]))
        quick = self._quick or probed_s[1] * _FULL_PLAN_STEPS > self._budget_s
        plan = self._workload.points(most_prefill_tokens, quick=quick)
        self._workload.reserve(plan.all)
        samples = self._warm_up(plan.all, deadline_s=measuring_s + self._budget_s * _WARM_UP_SHARE)
        try:
            self._measure(samples, deadline_s=measuring_s + self._budget_s * (1.0 - _OVERHEAD_SHARE))
            self._compare_hooked_and_plain(samples)
        except KeyboardInterrupt:
            samples = _whole(samples)
            if self._on_stop is None or not _is_enough(samples, plan):
                raise
            self._on_stop()
        samples.sort(key=lambda s: (PHASES.index(s.point.phase), s.point.batch, s.point.context, s.point.tokens))
        served = self._served(most_prefill_tokens)
        self._progress(1.0, "done")
        spent_s = perf_counter() - began_s
        return Measurements(self._collector.layers, plan, tuple(samples), roofline, self._num_steps, spent_s, served)

    def _served(self, most_prefill_tokens: int) -> Served | None:
        try:
            return self._workload.served(most_prefill_tokens, quick=self._quick, on_progress=lambda _, text: self._progress(1.0, text))
        except KeyboardInterrupt:
            if self._on_stop is None:
                raise
            self._on_stop()
            return None

    def _probe_s(self, tokens: int) -> float:
        """Seconds of a forward pass with so many tokens, to judge what this machine can do within the budget."""
        point = self._workload.probe_point(tokens)
        self._workload.reserve([point])
        return min(self._plain(point) for _ in range(3 if tokens == 1 else 2))

    def _warm_up(self, points: Sequence[Point], deadline_s: float) -> list[PointSamples]:
        """One step at each point, which counts, and in which torch allocates and chooses kernels."""
        samples: list[PointSamples] = []
        for done, point in enumerate(points):
            if perf_counter() > deadline_s and _num_of(point.phase, samples) >= _FEWEST_POINTS:
                continue
            self._progress(0.2 * done / len(points), f"warm-up: {point.label}")
            samples.append(PointSamples(point, count_step(self._workload.step_at(point), self._collector.layers)))
        # From long contexts to short ones: a session is cut for nothing, but filled at the cost of a copy.
        return sorted(samples, key=lambda taken: -taken.point.context)

    def _measure(self, samples: list[PointSamples], deadline_s: float) -> None:
        """Rounds until the deadline. Points that it leaves without a sample are dropped, but for a few of each phase."""
        began_s = perf_counter()
        for number in range(_MAX_ROUNDS):
            for visited, taken in enumerate(list(samples)):
                if perf_counter() > deadline_s and (taken.spans or _num_of(taken.point.phase, samples) > _FEWEST_POINTS):
                    if not taken.spans:
                        samples.remove(taken)
                elif number % 2 == 0 or len(taken.spans) < 2 or taken.plain_s[-1] < _RARE_STEP_S:
                    of_time = min(1.0, (perf_counter() - began_s) / max(deadline_s - began_s, 1e-3))
                    of_rounds = (number + visited / len(samples)) / _MAX_ROUNDS
                    self._progress(0.2 + 0.7 * max(of_time, of_rounds), f"round {number + 1}: {taken.point.label}")
                    self._visit(taken)
            if perf_counter() > deadline_s:
                return

    def _compare_hooked_and_plain(self, samples: Sequence[PointSamples]) -> None:
        """More pairs at the shortest decode step, where noise would hide what the hooks cost."""
        began_s, share_s = perf_counter(), self._budget_s * _OVERHEAD_SHARE
        decode = [taken for taken in samples if taken.point.phase == DECODE]
        taken = min(decode or samples, key=lambda s: min(s.plain_s))
        for number in range(_MAX_PAIRS):
            spent_s = perf_counter() - began_s
            if spent_s > share_s and number >= _MIN_PAIRS:
                return
            self._progress(0.9 + 0.1 * min(1.0, spent_s / share_s), f"cost of the hooks: {taken.point.label}")
            self._hooked_and_plain(taken)

    def _visit(self, taken: PointSamples) -> None:
        taken.item_s.append(self._collector.items_s(self._step(taken.point)))
        self._hooked_and_plain(taken)

    def _hooked_and_plain(self, taken: PointSamples) -> None:
        """Each first in turn: the second finds warmer caches."""
        hooked_first = len(taken.spans) % 2 == 0
        for hooked in (hooked_first, not hooked_first):
            if hooked:
                taken.spans.append(self._collector.hooked(self._step(taken.point)))
            else:
                taken.plain_s.append(self._plain(taken.point))

    def _plain(self, point: Point) -> float:
        return self._collector.plain_s(self._step(point))

    def _step(self, point: Point) -> Step:
        self._num_steps += 1
        return self._workload.step_at(point)


def _num_of(phase: str, samples: Sequence[PointSamples]) -> int:
    return sum(taken.point.phase == phase for taken in samples)


def _whole(samples: Sequence[PointSamples]) -> list[PointSamples]:
    """What an interrupt left, without the step that it cut off and without points that had none."""
    for taken in samples:
        del taken.spans[len(taken.plain_s) :], taken.plain_s[len(taken.spans) :]
    return [taken for taken in samples if taken.spans and taken.item_s]


def _is_enough(samples: Sequence[PointSamples], plan: PointPlan) -> bool:
    """Whether every phase has the points that its law needs."""
    learnt = [taken for taken in samples if taken.point in plan.learn]
    return all(_num_of(phase, learnt) >= _FEWEST_POINTS for phase in {point.phase for point in plan.learn})
