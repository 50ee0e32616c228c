"""By what the What-if screen compares two plans (`m`): the time of stages, the memory of nodes, or the number of items."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.data.plan import Plan
from engine.data.status import ClusterStatus
from noodle_tui.figures import ms, size
from noodle_tui.lines import Canvas, Lines, Span, line
from noodle_tui.listings.strategies import StrategyRow
from noodle_tui.pages import WHATIF_METRICS
from noodle_tui.present_plan import replanned
from noodle_tui.state import ConsoleState
from noodle_tui.widgets.plan_blocks import bottleneck_index, parts_strip

if TYPE_CHECKING:
    from engine.data.moves import MoveEstimate

LABEL = 9
Parts = tuple[tuple[str, float], ...]  # nodes in the order of their stages, each with its part


@dataclass(frozen=True, slots=True)
class Measure:
    """Both plans by one figure; `missing` says why there is none."""

    now: Parts
    next: Parts
    text_of: Callable[[float], str] = ms
    marks_highest: bool = True
    missing: str = ""


def base_of(state: ConsoleState) -> tuple[Plan | None, MoveEstimate | None]:
    """The strategy that `c` chose to compare with, and its move; None is the plan that serves."""
    found = next((c for c in state.whatif.candidates if c.strategy == state.ui.compare_strategy), None)
    return (found.plan, found.move) if found else (None, None)


def measured(state: ConsoleState, row: StrategyRow) -> Measure | None:
    """What `m` chose, of the plans that are compared; None is time."""
    if row.plan is None or state.latest is None:
        return None
    status, (base, base_move) = replanned(state, state.latest.status), base_of(state)
    metric = WHATIF_METRICS[state.ui.whatif_metric]
    if metric == "memory":
        return _memory(row.move, base_move if base else None, base is not None)
    return _items(status, row.plan, base) if metric == "items" else None


def times_of(status: ClusterStatus, plan: Plan, base: Plan | None) -> Measure:
    """Predicted time of every stage; the present plan's come from the status."""
    now = _by_node(base, base.stage_s) if base else tuple((stage.worker_id, stage.predicted_s) for stage in status.stages)
    return Measure(now, _by_node(plan, plan.stage_s))


def _by_node(plan: Plan, values: tuple[float, ...]) -> Parts:
    return tuple((stage.node_id, value) for stage, value in zip(plan.stages, values, strict=True))


def _items(status: ClusterStatus, plan: Plan, base: Plan | None) -> Measure:
    now = _by_node(base, _sizes(base)) if base else tuple((stage.worker_id, float(stage.stop - stage.start)) for stage in status.stages)
    return Measure(now, _by_node(plan, _sizes(plan)), lambda number: f"{number:.0f}", marks_highest=False)


def _sizes(plan: Plan) -> tuple[float, ...]:
    return tuple(float(stage.stop - stage.start) for stage in plan.stages)


def _memory(move: MoveEstimate | None, base_move: MoveEstimate | None, has_base: bool) -> Measure:
    """What every node holds, whether it has a stage or not."""
    if move is None or not move.nodes or (has_base and base_move is None):
        return Measure((), (), missing="the coordinator has not said what memory this move needs")
    before = base_move.nodes if base_move is not None else ()
    now = tuple((node.node_id, float(node.after_bytes)) for node in before) if has_base else ()
    now = now or tuple((node.node_id, float(node.now_bytes)) for node in move.nodes)
    return Measure(now, tuple((node.node_id, float(node.after_bytes)) for node in move.nodes), lambda part: size(int(part)), False)


def measure_strips(measure: Measure, word: str, letters: Mapping[str, str], canvas: Canvas) -> Lines:
    """Two rows on one scale, or why there are none."""
    if measure.missing:
        return (line(Span(f" {word:<{LABEL - 1}}", "dim"), Span(measure.missing, "warn")),)
    scale = max(sum(part for _, part in parts) for parts in (measure.now, measure.next)) or 1.0
    rows = []
    for label, parts in ((word, measure.now), ("next", measure.next)):
        names, values = [letters.get(node, node) for node, _ in parts], [value for _, value in parts]
        marked = bottleneck_index(values) if measure.marks_highest else None
        strip = parts_strip(names, values, scale, canvas.width - LABEL - 2, canvas.glyphs, measure.text_of, marked)
        rows.append(line(Span(f" {label:<{LABEL - 1}}", "dim"), *strip))
    return tuple(rows)
