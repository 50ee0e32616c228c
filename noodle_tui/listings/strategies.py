"""Strategies compared: the plan that serves, then what each strategy would do, those that cannot last with the reason."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from engine.data.plan import Plan
from engine.data.status import ClusterStatus, StageStatus
from noodle_tui.glyphs import Glyphs
from noodle_tui.listings.base_plan import as_planned, base_plan, gain_of, is_repriced
from noodle_tui.listings.stage_times import step_times
from noodle_tui.state import Candidate, ConsoleState
from noodle_tui.text.figures import ms, percent, rate, signed_percent, size, with_ms
from noodle_tui.text.lines import Line, Span, fit, line
from noodle_tui.text.tables import Column, Table, widest

if TYPE_CHECKING:
    from engine.data.moves import MoveEstimate

FULL = 0.92  # of a node's memory
PLANNED, CURRENT, MEASURED = "planned", "current", "measured"  # the present plan as it was planned, by newer times, and as it runs


@dataclass(frozen=True, slots=True)
class StrategyRow:
    """One line of the comparison; times are predictions unless they say otherwise."""

    name: str
    plan: Plan | None
    step_s: float
    bottleneck_s: float
    bottleneck: str
    num_moved: int | None
    gain: float | None  # in tokens/s that the bottleneck allows, against the present plan by the same times
    error: str = ""
    move: MoveEstimate | None = None
    is_suggestion: bool = False

    @property
    def move_s(self) -> float | None:
        """Until the new plan serves."""
        return self.move.load_s + self.move.copy_s + self.move.pause_s if self.move else None

    @property
    def fullest(self) -> float | None:
        """The highest share of a node's memory afterwards."""
        nodes = self.move.nodes if self.move else ()
        return max((node.after_bytes / node.limit_bytes for node in nodes if node.limit_bytes > 0), default=None)


def strategy_rows(state: ConsoleState) -> tuple[StrategyRow, ...]:
    """The present plan first, then candidates by their bottleneck, refused ones last."""
    if state.latest is None:
        return ()
    status = state.latest.status
    base = base_plan(state) or as_planned(status)
    found = [_candidate(c, base) for c in state.whatif.candidates]
    if state.suggestion is not None:
        offered = Candidate(state.suggestion.name, state.suggestion.plan, "", state.suggestion.move)
        found.append(replace(_candidate(offered, base), is_suggestion=True))
    found.sort(key=lambda row: (row.plan is None, row.bottleneck_s, row.step_s, row.name))
    return (*(_present(status, base) if status.stages else ()), *found)


def strategies_table(state: ConsoleState) -> Table:
    """See the module docstring."""
    rows = strategy_rows(state)
    return Table(
        noun="strategies",
        rows=rows,
        columns=(
            Column("strategy", "STRATEGY", widest([r.name for r in rows], 9, 18), lambda r: r.name),
            Column("step_s", "STEP", 6, lambda r: r.step_s, lambda r: ms(r.step_s), right=True, covered=True),
            Column("max_per_s", "MAX/s", 6, _max_per_s, lambda r: rate(_max_per_s(r)), right=True, covered=True),
            Column("bottleneck", "BOTTLENECK", 17, lambda r: r.bottleneck, covered=True),
            Column("moved", "ITEMS", 5, lambda r: r.num_moved, right=True, covered=True),
            Column("copy_s", "COPY", 6, lambda r: r.move_s, _move_text, right=True, from_width=76, covered=True),
            Column("memory", "MEM", 4, lambda r: r.fullest, _memory_text, _memory_style, right=True, from_width=76, covered=True),
            Column("gain", "GAIN", 5, lambda r: r.gain, lambda r: signed_percent(r.gain), _gain_style, right=True, covered=True),
            Column("weights", "WEIGHTS", 7, _weight_bytes, lambda r: size(_weight_bytes(r)), right=True, from_width=110, covered=True),
            Column("kv", "KV", 5, _kv_bytes, lambda r: size(_kv_bytes(r)), right=True, from_width=110, covered=True),
            Column("pause", "PAUSE", 6, _pause_s, lambda r: with_ms(_pause_s(r)), right=True, from_width=110, covered=True),
            Column("optimal", "PROOF", 8, lambda r: r.plan.optimal if r.plan else None, _proof, from_width=90, covered=True),
            Column("fit", "FIT", 3, lambda r: "no" if r.error else "yes", style=lambda r: "error" if r.error else "text"),
            Column("error", "", 0, lambda r: r.error),
        ),
        identity=lambda row: row.name,
        is_warning=lambda row: bool(row.error),
        sentence=_reason,
        empty="Nothing to compare yet: a plan is made when the workers have joined and measured the model.",
    )


def owners(stages: tuple[StageStatus, ...]) -> dict[int, str]:
    """Which node owns each item."""
    return {i: stage.worker_id for stage in stages for i in range(stage.start, stage.stop)}


def plan_owners(plan: Plan) -> dict[int, str]:
    return {i: stage.node_id for stage in plan.stages for i in range(stage.start, stage.stop)}


def _present(status: ClusterStatus, base: Plan) -> tuple[StrategyRow, ...]:
    """The plan that serves: as planned, by the times of the candidates where those are others, and as it runs."""
    priced = (CURRENT, base) if is_repriced(base, status) else None
    named = ((PLANNED, as_planned(status)), *((priced,) if priced else ()))
    rows = (StrategyRow(name, None, plan.round_trip_s, plan.bottleneck_s, _bottleneck(plan), None, None) for name, plan in named)
    return (*rows, *_measured(status))


def _measured(status: ClusterStatus) -> tuple[StrategyRow, ...]:
    """The present plan as it runs; nothing until every stage has run."""
    stages, (_, step_s) = status.stages, step_times(status)
    times = [stage.compute_p50_s for stage in stages]
    if not step_s:
        return ()
    slowest = max(range(len(times)), key=lambda i: times[i])
    name = f"S{slowest} {ms(times[slowest]):>4} {stages[slowest].worker_id}"
    return (StrategyRow(MEASURED, None, step_s, times[slowest], name, None, None),)


def _candidate(candidate: Candidate, base: Plan) -> StrategyRow:
    strategy, plan = candidate.strategy, candidate.plan
    if plan is None:
        return StrategyRow(strategy, None, 0.0, 0.0, "", None, None, candidate.error or "no plan")
    before, after = plan_owners(base), plan_owners(plan)
    num_moved = sum(before.get(i) != node for i, node in after.items())
    gain = gain_of(plan, base)
    return StrategyRow(strategy, plan, plan.round_trip_s, plan.bottleneck_s, _bottleneck(plan), num_moved, gain, move=candidate.move)


def _bottleneck(plan: Plan) -> str:
    """The stage, or the hop after it, that limits a plan."""
    if not plan.stage_s:
        return ""
    index, is_hop = plan.slowest
    if is_hop:
        return f"S{index}>S{index + 1} {ms(plan.hop_s[index])} link"
    return f"S{index} {ms(plan.stage_s[index]):>4} {plan.stages[index].node_id}"


def _max_per_s(row: StrategyRow) -> float:
    return 1 / row.bottleneck_s if row.bottleneck_s > 0 else 0.0


def _move_text(row: StrategyRow) -> str:
    return "-" if not row.num_moved or row.move_s is None else f"{row.move_s:.1f}s"


def _memory_text(row: StrategyRow) -> str:
    return "-" if row.fullest is None else percent(row.fullest)


def _memory_style(row: StrategyRow) -> str:
    return "warn" if row.fullest is not None and row.fullest > FULL else "text"


def _weight_bytes(row: StrategyRow) -> float:
    return float(row.move.weight_bytes) if row.move else -1.0


def _kv_bytes(row: StrategyRow) -> float:
    return float(row.move.kv_bytes) if row.move else -1.0


def _pause_s(row: StrategyRow) -> float:
    return row.move.pause_s if row.move else 0.0


def _gain_style(row: StrategyRow) -> str:
    return "ok" if row.gain is not None and row.gain >= 0.005 else "text"


def _proof(row: StrategyRow) -> str:
    if row.plan is None:
        return "-"
    if row.is_suggestion:
        return "-"
    if row.plan.optimal:
        return "optimal"
    return f"gap {row.plan.gap:.0%}" if row.plan.gap > 0 else "no bound"


def _reason(row: StrategyRow, width: int, glyphs: Glyphs) -> Line | None:
    """A strategy that cannot be has a reason instead of figures."""
    return line(Span(fit(row.error, width, glyphs), "dim")) if row.error else None
