"""Stages as bars on the axis of one step's time: each where it lies, hops between them, the bottleneck marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from noodle_tui.listings.machines import MachineRow
from noodle_tui.listings.stage_times import hop_s
from noodle_tui.listings.stages import StageRow
from noodle_tui.text.figures import ms
from noodle_tui.text.lines import BLANK, Canvas, Line, Lines, Span, fit, line
from noodle_tui.widgets.plan.plan_blocks import MAX_BLOCKS, steady

WIDE_FROM = 100
TAIL_CELLS = 13  # number and mark behind the axis
Row = TypeVar("Row", StageRow, MachineRow)


@dataclass(frozen=True, slots=True)
class Axis:
    """Half-open ranges of cells for every stage of a plan and for the hop after it, by the stage's index."""

    total_s: float
    width: int
    stages: Mapping[int, tuple[int, int]]
    hops: Mapping[int, tuple[int, int]]

    def __str__(self) -> str:
        """The scale in words."""
        return f"width = time, column = {1e3 * self.total_s / self.width:.2g}ms"


def name_cells(canvas: Canvas) -> int:
    """Before the axis, with the cursor."""
    return 14 if canvas.width < WIDE_FROM else 20


def axis_of(rows: Sequence[StageRow], canvas: Canvas) -> Axis:
    """The axis of a whole plan; times are on a grid, so that noise does not move the bars."""
    in_order = sorted(rows, key=lambda row: row.index)
    width = max(10, canvas.width - name_cells(canvas) - TAIL_CELLS - 1)
    steps = [(steady(row.time_s), steady(hop_s(row.stage))) for row in in_order]
    total_s = sum(time_s + way_s for time_s, way_s in steps)
    per_s = width / (total_s or 1.0)
    stages, hops, at_s = dict[int, tuple[int, int]](), dict[int, tuple[int, int]](), 0.0
    for row, (time_s, way_s) in zip(in_order, steps, strict=True):
        start, stop = min(width - 1, round(at_s * per_s)), round((at_s + time_s) * per_s)
        stages[row.index] = (start, max(stop, start + 1))
        if way_s > 0:
            hops[row.index] = (stop, min(width, stop + max(1, round(way_s * per_s))))
        at_s += time_s + way_s
    return Axis(total_s, width, stages, hops)


def stage_bars(rows: Sequence[StageRow], axis: Axis, chosen: int, canvas: Canvas) -> Lines:
    """A line per stage; hops on lines of their own where all stages are shown, are few and have room."""
    in_order = sorted(rows, key=lambda row: row.index)
    whole = len(rows) == len(axis.stages) <= MAX_BLOCKS
    with_hops = whole and canvas.height >= 2 * len(rows) and bool(axis.hops)
    if not with_hops:
        return tuple(_bar_line(row, [row], axis, row.index == chosen, canvas) for row in _in_sight(in_order, chosen, canvas.height))
    lines: list[Line] = []
    for row in in_order:
        lines += [_bar_line(row, [row], axis, row.index == chosen, canvas), _hop_line(row, axis, canvas)]
    return tuple(lines[:-1])


def machine_bars(rows: Sequence[MachineRow], axis: Axis, chosen: int, canvas: Canvas) -> Lines:
    """A line per machine with all its stages on it, wherever in the step they lie."""
    shown = _in_sight(sorted(rows, key=lambda row: row.index), chosen, canvas.height)
    return tuple(_bar_line(row, row.rows, axis, row.index == chosen, canvas) for row in shown)


def _in_sight(rows: list[Row], chosen: int, height: int) -> list[Row]:
    """As many rows as fit, the chosen one among them."""
    at = next((i for i, row in enumerate(rows) if row.index == chosen), 0)
    first = max(0, min(at - height // 2, len(rows) - height))
    return rows[first : first + height]


def _bar_line(row: StageRow | MachineRow, stages: Sequence[StageRow], axis: Axis, chosen: bool, canvas: Canvas) -> Line:
    cursor = Span(canvas.glyphs.cursor if chosen else " ", "accent")
    parts: list[Span | str] = [cursor, f"{fit(row.name, name_cells(canvas) - 1, canvas.glyphs)} "]
    at = 0
    for stage in stages:
        start, stop = axis.stages[stage.index]
        glyph = canvas.glyphs.levels[-1] if stage.is_bottleneck else canvas.glyphs.levels[3]
        parts += [" " * (start - at), Span(glyph * (stop - max(start, at)), "high" if stage.is_bottleneck else "low")]
        at = max(at, stop)
    mark = Span(f" {canvas.glyphs.bottleneck}", "warn") if row.is_bottleneck else Span("")
    return line(*parts, " " * (axis.width - at), f" {ms(row.time_s):>6}ms", mark)


def _hop_line(row: StageRow, axis: Axis, canvas: Canvas) -> Line:
    if row.index not in axis.hops:
        return BLANK
    start, stop = axis.hops[row.index]
    head = f"    hop{' ' * (name_cells(canvas) - 6 + start)}{canvas.glyphs.hop * (stop - start)}"
    slow = row.has_slow_hop
    mark = Span(f" {canvas.glyphs.bottleneck}" if slow else "", "warn")
    return line(Span(f"{head}{' ' * (axis.width - stop)} {ms(hop_s(row.stage)):>6}ms", "warn" if slow else "dim"), mark)
