"""Benchmarker: plans of one model beside each other and beside one process, at several numbers of sessions, simulated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.library.execution_planner import HOP_S, ExecutionPlanner, VirtualNode
from engine.planning.documents.partition_plan import PartitionPlan
from engine.planning.problem import Link
from engine.simulation.native import StagedVsNative
from engine.simulation.simulator import StagedSimulator

_ROW = "{:<24} {:>8} {:>10} {:>10} {:>10} {:>8}"


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One plan under one load: what the planner expects of it, what the simulator makes of it, and one process beside it."""

    name: str
    num_sessions: int
    planned_tokens_per_s: float
    found: StagedVsNative


class Benchmarker:
    """Runs plans of one planner on the same nodes; `noodle-engine simulate --compare native` gives the same figures."""

    def __init__(self, planner: ExecutionPlanner, nodes: Sequence[VirtualNode], *, link: Link | None = None, hop_s: float = HOP_S) -> None:
        self._planner, self._nodes, self._link, self._hop_s = planner, tuple(nodes), link, hop_s

    def run(
        self, plans: Mapping[str, PartitionPlan], sessions: Sequence[int] = (1, 4, 8), *, prompt_tokens: int = 16, new_tokens: int = 64
    ) -> tuple[Benchmark, ...]:
        """Every plan at every number of sessions, in this order. Raises what the simulator raises."""
        load = {"prompt_tokens": prompt_tokens, "new_tokens": new_tokens}
        rows = []
        for name, plan in plans.items():
            for count in sessions:
                scenario = self._planner.scenario(plan, self._nodes, link=self._link, hop_s=self._hop_s, sessions=count, **load)
                rows.append(Benchmark(name, count, plan.tokens_per_s(count), StagedSimulator(scenario).compare_staged_vs_native()))
        return tuple(rows)


def benchmark_text(rows: Sequence[Benchmark]) -> str:
    """One line for each, in tokens a second."""
    lines = [_ROW.format("PLAN", "SESSIONS", "PLANNED", "SIMULATED", "NATIVE", "SPEEDUP")]
    for row in rows:
        rates = (row.planned_tokens_per_s, row.found.staged.tokens_per_s, row.found.native.tokens_per_s)
        lines.append(_ROW.format(row.name[:24], row.num_sessions, *(f"{rate:.4g}" for rate in rates), f"{row.found.speedup:.2f}x"))
    return "\n".join(lines)
