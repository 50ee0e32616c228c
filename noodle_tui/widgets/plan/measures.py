"""By what the What-if screen compares two plans (`m`): the time of stages, the memory of nodes, or the number of items."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.data.plan import Plan
from noodle_tui.core.pages import WHATIF_METRICS
from noodle_tui.listings.base_plan import base_plan
from noodle_tui.listings.stage_times import bottleneck_index
from noodle_tui.listings.strategies import StrategyRow
from noodle_tui.state import ConsoleState
from noodle_tui.text.figures import ms, size
from noodle_tui.text.lines import Canvas, Lines, Span, line
from noodle_tui.widgets.plan.plan_blocks import parts_strip

if TYPE_CHECKING:
    from engine.data.moves import MoveEstimate

LABEL = 9
HOP = ">"
SEEN = 0.02  # of a step: a shorter hop is no part of the picture
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
    chosen, chosen_move = base_of(state)
    metric, base = WHATIF_METRICS[state.ui.whatif_metric], chosen or base_plan(state)
    if metric == "memory":
        return _memory(row.move, chosen_move if chosen else None, chosen is not None)
    return Measure(_sizes(base), _sizes(row.plan), lambda number: f"{number:.0f}", False) if metric == "items" and base else None


def times_of(base: Plan, plan: Plan) -> Measure:
    """Predicted time of every stage and of every hop that can be seen beside them."""
    visible_s = SEEN * max(base.round_trip_s, plan.round_trip_s)
    return Measure(_times(base, visible_s), _times(plan, visible_s))


def _times(plan: Plan, visible_s: float) -> Parts:
    parts: list[tuple[str, float]] = []
    for i, (node, stage_s) in enumerate(_by_node(plan, plan.stage_s)):
        parts.append((node, stage_s))
        hop_s = plan.hop_s[i] if plan.hop_s else 0.0
        if hop_s >= visible_s > 0:
            parts.append((HOP, hop_s))
    return tuple(parts)


def _by_node(plan: Plan, values: tuple[float, ...]) -> Parts:
    return tuple((stage.node_id, value) for stage, value in zip(plan.stages, values, strict=True))


def _sizes(plan: Plan) -> Parts:
    return tuple((stage.node_id, float(stage.num_items)) for stage in plan.stages)


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
