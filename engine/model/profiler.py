"""ObservabilityEngine: warm up, measure every point in turn, say what the measuring itself cost.

Points are visited round by round, hooked and plain steps alternating, so that a machine that slows down meanwhile
does so for all of them alike. Each visit takes one step of each sort; medians are taken later. What a step does
(FLOPs, bytes, shapes) is counted apart from the timing, once per point, in its warm-up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter

from engine.model.clocks import clock_for
from engine.model.collector import MetricsCollector
from engine.model.measure import release_memory
from engine.model.roles import HookedLayer, select_layers
from engine.model.roofline import measure_roofline
from engine.model.source import Progress
from engine.model.spans import StepSpans
from engine.model.traffic import LayerCounts, count_step
from engine.model.workload import Workload
from engine.planning.point import DECODE, PHASES, Point
from engine.planning.profile import Roofline
from engine.planning.profile_points import PointPlan

DEFAULT_BUDGET_S, QUICK_BUDGET_S = 36.0, 8.0
_LONGEST_PREFILL_S = 1.5  # longer prompts are left out on machines that would take longer
_PROBE_TOKENS, _LEAST_PREFILL_TOKENS = 48, 16
_MIN_ROUNDS, _MAX_ROUNDS = 2, 30
_FULL_PLAN_STEPS = 150  # a full plan costs about as much as so many of its shortest steps in every round
_RARE_STEP_S = 0.15  # points that take longer are visited every second round
_OVERHEAD_SHARE = 0.15  # of the budget: pairs at one decode point, where the hooks weigh most


@dataclass(slots=True)
class PointSamples:
    """What was taken at one point; `plain_s[k]` and `spans[k]` come from neighbouring steps."""

    point: Point
    counts: dict[int, LayerCounts]
    plain_s: list[float] = field(default_factory=list)
    spans: list[StepSpans] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Measurements:
    """Everything the engine took, raw; `profile_of` condenses it."""

    layers: tuple[HookedLayer, ...]
    plan: PointPlan
    samples: tuple[PointSamples, ...]
    roofline: Roofline
    num_steps: int
    spent_s: float

    def of(self, points: Sequence[Point]) -> list[PointSamples]:
        wanted = set(points)
        return [taken for taken in self.samples if taken.point in wanted]


class ObservabilityEngine:
    """Measures one workload. `depth` says which modules get hooks: item, layer or leaf."""

    def __init__(
        self,
        workload: Workload,
        *,
        depth: str = "layer",
        quick: bool = False,
        budget_s: float | None = None,
        on_progress: Progress | None = None,
    ) -> None:
        self._workload = workload
        self._quick = quick
        self._budget_s = budget_s if budget_s is not None else QUICK_BUDGET_S if quick else DEFAULT_BUDGET_S
        self._progress = on_progress or (lambda done, text: None)
        self._collector = MetricsCollector(select_layers(workload.model, workload.blocks, depth), clock_for(workload.device))
        self._num_steps = 0

    def run(self) -> Measurements:
        """Warm up and measure; takes about the budget, more where three rounds take longer than it."""
        began_s = perf_counter()
        self._progress(0.0, "measuring what this device can do at best")
        roofline = measure_roofline(self._workload.device, self._workload.dtype)
        release_memory()
        probed_s = {tokens: self._probe_s(tokens) for tokens in (1, _PROBE_TOKENS)}
        most_prefill_tokens = max(_LEAST_PREFILL_TOKENS, int(_LONGEST_PREFILL_S * _PROBE_TOKENS / probed_s[_PROBE_TOKENS]))
        quick = self._quick or probed_s[1] * _FULL_PLAN_STEPS * _MIN_ROUNDS > self._budget_s
        plan = self._workload.points(most_prefill_tokens, quick=quick)
        self._workload.reserve(plan.all)
        samples = self._warm_up(plan.all)
        self._measure(samples, deadline_s=began_s + self._budget_s)
        samples.sort(key=lambda s: (PHASES.index(s.point.phase), s.point.batch, s.point.context, s.point.tokens))
        self._progress(1.0, "done")
        return Measurements(self._collector.layers, plan, tuple(samples), roofline, self._num_steps, perf_counter() - began_s)

    def _probe_s(self, tokens: int) -> float:
        """Seconds of a forward pass with so many tokens, to judge what this machine can do within the budget."""
        point = self._workload.probe_point(tokens)
        self._workload.reserve([point])
        return min(self._plain(point) for _ in range(3 if tokens == 1 else 2))

    def _warm_up(self, points: Sequence[Point]) -> list[PointSamples]:
        """One step at each point, which counts, and in which torch allocates and chooses kernels."""
        samples = []
        # From long contexts to short ones: a session is cut for nothing, but filled at the cost of a copy.
        for done, point in enumerate(sorted(points, key=lambda p: -p.context)):
            self._progress(0.2 * done / len(points), f"warm-up: {point.label}")
            samples.append(PointSamples(point, count_step(self._workload.step_at(point), self._collector.layers)))
        return samples

    def _measure(self, samples: Sequence[PointSamples], deadline_s: float) -> None:
        began_s = perf_counter()
        rounds_s = deadline_s - began_s - self._budget_s * _OVERHEAD_SHARE
        for number in range(_MAX_ROUNDS):
            for taken in samples:
                if number % 2 == 0 or taken.plain_s[-1] < _RARE_STEP_S:
                    share = min(1.0, (perf_counter() - began_s) / max(rounds_s, 1e-3))
                    self._progress(0.2 + 0.7 * share, f"round {number + 1}: {taken.point.label}")
                    self._visit(taken, hooked_first=number % 2 == 0)
            if number + 1 >= _MIN_ROUNDS and (perf_counter() - began_s) * (number + 2) / (number + 1) > rounds_s:
                break
        self._compare_hooked_and_plain(samples)

    def _compare_hooked_and_plain(self, samples: Sequence[PointSamples]) -> None:
        """More pairs at the shortest decode step, where noise would hide what the hooks cost."""
        taken = min((s for s in samples if s.point.phase == DECODE), key=lambda s: s.plain_s[-1], default=samples[0])
        pairs = math.ceil(self._budget_s * _OVERHEAD_SHARE / (2 * max(min(taken.plain_s), 1e-3)))
        for number in range(min(200, pairs)):
            self._progress(0.9 + 0.1 * number / pairs, f"cost of the hooks: {taken.point.label}")
            self._visit(taken, hooked_first=number % 2 == 0)

    def _visit(self, taken: PointSamples, *, hooked_first: bool) -> None:
        for hooked in (hooked_first, not hooked_first):
            if hooked:
                taken.spans.append(self._collector.hooked(self._workload.step_at(taken.point)))
                self._num_steps += 1
            else:
                taken.plain_s.append(self._plain(taken.point))

    def _plain(self, point: Point) -> float:
        self._num_steps += 1
        return self._collector.plain_s(self._workload.step_at(point))
