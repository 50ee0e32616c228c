"""The same sessions in one process that holds the whole model and serves them one after the other: what pipelines compare with."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from engine.simulation.arrivals import Arrival
from engine.simulation.cost import CostSource, StepShape
from engine.simulation.result import Percentiles, SimulationResult, percentiles


@dataclass(frozen=True, slots=True)
class NativeResult:
    """The fields mean what those of `SimulationResult` do."""

    num_tokens: int
    makespan_s: float
    tokens_per_s: float
    ttft_s: Percentiles
    inter_token_s: Percentiles


@dataclass(frozen=True, slots=True)
class StagedVsNative:
    """The same sessions on a pipeline and in one process."""

    staged: SimulationResult
    native: NativeResult

    @property
    def speedup(self) -> float:
        """Tokens a second of the pipeline, by those of the process; 0 where that makes none."""
        return self.staged.tokens_per_s / self.native.tokens_per_s if self.native.tokens_per_s > 0 else 0.0


def simulate_native(costs: CostSource, arrivals: Sequence[Arrival], slowdown: float = 1.0) -> NativeResult:
    """Sessions in the order of their arrival, each alone: its whole prompt in one step, then a step per token."""
    step_s = costs.stage(0, costs.num_items)
    ttft_s, gaps_s = array("d"), array("d")
    free_s = 0.0
    ordered = sorted(arrivals, key=lambda arrival: arrival.arrival_s)
    for arrival in ordered:
        free_s = max(free_s, arrival.arrival_s) + slowdown * step_s(_prompt(arrival.prompt_tokens))
        ttft_s.append(free_s - arrival.arrival_s)
        for position in range(arrival.prompt_tokens, arrival.prompt_tokens + arrival.new_tokens - 1):
            gaps_s.append(slowdown * step_s(StepShape(1, 0, position + 1, 0)))
            free_s += gaps_s[-1]
    num_tokens, makespan_s = sum(a.new_tokens for a in ordered), free_s - ordered[0].arrival_s
    rate = num_tokens / makespan_s if makespan_s > 0 else 0.0
    return NativeResult(num_tokens, makespan_s, rate, percentiles(ttft_s), percentiles(gaps_s))


def _prompt(n: int) -> StepShape:
    return StepShape(0, n, 0, n * (n + 1) // 2) if n > 1 else StepShape(1, 0, 1, 0)
