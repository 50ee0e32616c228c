"""Strategies compared: the plan that serves, then what each strategy would do, those that cannot last with the reason."""

from __future__ import annotations

from dataclasses import dataclass

from engine.data import Plan, StageStatus
from noodle_tui.figures import ms, rate, signed_percent
from noodle_tui.glyphs import Glyphs
from noodle_tui.lines import Line, Span, fit, line
from noodle_tui.present_plan import replanned
from noodle_tui.state import ConsoleState
from noodle_tui.tables import Column, Table, widest

CURRENT, MEASURED = "current", "measured"  # the present plan as it was planned, and as it runs


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


def strategy_rows(state: ConsoleState) -> tuple[StrategyRow, ...]:
    """The present plan first, then candidates by their bottleneck, refused ones last."""
    if state.latest is None:
        return ()
    status = replanned(state, state.latest.status)
    current = _current(status.stages, status.plan_version)
    found = [_candidate(c.strategy, c.plan, c.error, current, status.stages) for c in state.whatif.candidates]
    found.sort(key=lambda row: (row.plan is None, row.bottleneck_s, row.step_s, row.name))
    return (*([current, *_measured(status.stages)] if status.stages else []), *found)


def strategies_table(state: ConsoleState) -> Table:
    """See the module docstring."""
    rows = strategy_rows(state)
    return Table(
        noun="strategies",
        rows=rows,
        columns=(
            Column("strategy", "STRATEGY", widest([r.name for r in rows], 9, 18), lambda r: r.name),
            Column("step_s", "STEP ms", 8, lambda r: r.step_s, lambda r: ms(r.step_s), right=True, covered=True),
            Column("max_per_s", "MAX/s", 7, _max_per_s, lambda r: rate(_max_per_s(r)), right=True, covered=True),
            Column("bottleneck", "BOTTLENECK", 20, lambda r: r.bottleneck, covered=True),
            Column("moved", "MOVE ITEMS", 10, lambda r: r.num_moved, right=True, covered=True),
            Column("gain", "GAIN", 6, lambda r: r.gain, lambda r: signed_percent(r.gain), _gain_style, right=True, covered=True),
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


def _current(stages: tuple[StageStatus, ...], plan_version: int) -> StrategyRow:
    times = [stage.predicted_s for stage in stages]
    hops_s = sum(stage.hop_p50_s for stage in stages)
    slowest = max(range(len(times)), key=lambda i: times[i], default=0)
    name = _bottleneck(slowest, times[slowest], stages[slowest].worker_id) if stages else ""
    return StrategyRow(CURRENT, None, sum(times) + hops_s, max(times, default=0.0), name, None, None)


def _measured(stages: tuple[StageStatus, ...]) -> tuple[StrategyRow, ...]:
    """The present plan as it runs; nothing until every stage has run."""
    times = [stage.compute_p50_s for stage in stages]
    if not all(stage.num_steps for stage in stages) or min(times) <= 0:
        return ()
    slowest = max(range(len(times)), key=lambda i: times[i])
    step_s = sum(times) + sum(stage.hop_p50_s for stage in stages)
    name = _bottleneck(slowest, times[slowest], stages[slowest].worker_id)
    return (StrategyRow(MEASURED, None, step_s, times[slowest], name, None, None),)


def _candidate(strategy: str, plan: Plan | None, error: str, current: StrategyRow, stages: tuple[StageStatus, ...]) -> StrategyRow:
    if plan is None:
        return StrategyRow(strategy, None, 0.0, 0.0, "", None, None, error or "no plan")
    slowest = max(range(len(plan.stage_s)), key=lambda i: plan.stage_s[i], default=0)
    name = _bottleneck(slowest, plan.stage_s[slowest], plan.stages[slowest].node_id) if plan.stage_s else ""
    before, after = owners(stages), plan_owners(plan)
    num_moved = sum(before.get(i) != node for i, node in after.items())
    gain = current.bottleneck_s / plan.bottleneck_s - 1 if plan.bottleneck_s > 0 and current.bottleneck_s > 0 else None
    hop_s = sum(stage.hop_p50_s for stage in stages) / len(stages) if stages else 0.0  # predictions leave hops out
    return StrategyRow(strategy, plan, sum(plan.stage_s) + hop_s * len(plan.stages), plan.bottleneck_s, name, num_moved, gain)


def _bottleneck(index: int, time_s: float, node: str) -> str:
    return f"S{index} {ms(time_s)} {node}"


def _max_per_s(row: StrategyRow) -> float:
    return 1 / row.bottleneck_s if row.bottleneck_s > 0 else 0.0


def _gain_style(row: StrategyRow) -> str:
    return "ok" if row.gain is not None and row.gain >= 0.005 else "text"


def _proof(row: StrategyRow) -> str:
    if row.plan is None:
        return "-"
    if row.plan.optimal:
        return "optimal"
    return f"gap {row.plan.bottleneck_s / row.plan.lower_bound - 1:.0%}" if row.plan.lower_bound > 0 else "no bound"


def _reason(row: StrategyRow, width: int, glyphs: Glyphs) -> Line | None:
    """A strategy that cannot be has a reason instead of figures."""
    return line(Span(fit(row.error, width, glyphs), "dim")) if row.error else None
