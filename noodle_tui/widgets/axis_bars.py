"""Stages as bars on the axis of one step's time: each where it lies, hops between them, the bottleneck marked."""

from __future__ import annotations

from collections.abc import Sequence

from noodle_tui.figures import ms
from noodle_tui.lines import BLANK, Canvas, Line, Lines, Span, fit, line
from noodle_tui.listings.machines import MachineRow
from noodle_tui.listings.stages import StageRow
from noodle_tui.widgets.plan_blocks import MAX_BLOCKS, steady

NAME_CELLS = 14
TAIL_CELLS = 13  # number and mark behind the axis
Steps = Sequence[tuple[float, float]]  # of every stage in execution order its time and the hop's after it


def steps_of(rows: Sequence[StageRow]) -> Steps:
    """For widths only: on a grid, so that noise does not move the bars."""
    return [(steady(row.time_s), steady(row.stage.hop_p50_s)) for row in sorted(rows, key=lambda row: row.index)]


def axis_width(canvas: Canvas) -> int:
    return max(10, canvas.width - NAME_CELLS - TAIL_CELLS - 1)


def axis_scale(steps: Steps, canvas: Canvas) -> str:
    """What the axis spans, in words."""
    total_s = sum(time_s + hop_s for time_s, hop_s in steps)
    return f"axis 0..{ms(total_s)}ms, column = {1e3 * total_s / axis_width(canvas):.2g}ms" if total_s > 0 else "no times yet"


def stage_bars(rows: Sequence[StageRow], chosen: int, canvas: Canvas) -> Lines:
    """A line per stage; hops on lines of their own where the stages are few and there is room."""
    in_order = sorted(rows, key=lambda row: row.index)
    steps, width = steps_of(in_order), axis_width(canvas)
    total_s = sum(time_s + hop_s for time_s, hop_s in steps) or 1.0
    with_hops = len(steps) <= MAX_BLOCKS and canvas.height >= 2 * len(steps) and any(hop_s for _, hop_s in steps)
    first = 0 if with_hops else _first(len(steps), [row.index for row in in_order], chosen, canvas.height)
    lines: list[Line] = []
    at_s = 0.0
    for i, (row, (time_s, hop_s)) in enumerate(zip(in_order, steps, strict=True)):
        start, stop = round(at_s / total_s * width), round((at_s + time_s) / total_s * width)
        if i >= first:
            lines.append(_bar_line(row, [(start, max(stop, start + 1), row.is_bottleneck)], row.index == chosen, width, canvas))
        at_s += time_s
        if with_hops and i + 1 < len(steps):
            lines.append(_hop_line(row, stop, max(1, round(hop_s / total_s * width)), width, canvas))
        at_s += hop_s
    return tuple(lines[: canvas.height])


def machine_bars(rows: Sequence[MachineRow], chosen: int, canvas: Canvas) -> Lines:
    """A line per machine with all its stages on it, wherever in the step they lie."""
    in_order = sorted(rows, key=lambda row: row.index)
    stages = sorted((inner for row in rows for inner in row.rows), key=lambda row: row.index)
    steps, width = steps_of(stages), axis_width(canvas)
    total_s = sum(time_s + hop_s for time_s, hop_s in steps) or 1.0
    place: dict[int, tuple[int, int, bool]] = {}
    at_s = 0.0
    for stage, (time_s, hop_s) in zip(stages, steps, strict=True):
        start = min(width - 1, round(at_s / total_s * width))
        place[stage.index] = (start, max(round((at_s + time_s) / total_s * width), start + 1), stage.is_bottleneck)
        at_s += time_s + hop_s
    first = _first(len(rows), [row.index for row in in_order], chosen, canvas.height)
    shown = in_order[first : first + canvas.height]
    return tuple(_bar_line(row, [place[inner.index] for inner in row.rows], row.index == chosen, width, canvas) for row in shown)


def _first(num_rows: int, indices: Sequence[int], chosen: int, height: int) -> int:
    """The first row to draw, so that the chosen one is in sight."""
    at = indices.index(chosen) if chosen in indices else 0
    return 0 if num_rows <= height else max(0, min(at - height // 2, num_rows - height))


def _bar_line(row: StageRow | MachineRow, pieces: Sequence[tuple[int, int, bool]], chosen: bool, width: int, canvas: Canvas) -> Line:
    cursor = Span(canvas.glyphs.cursor if chosen else " ", "accent")
    parts: list[Span | str] = [cursor, f"{fit(row.name, NAME_CELLS - 1, canvas.glyphs)} "]
    at = 0
    for start, stop, slowest in pieces:
        glyph = canvas.glyphs.levels[-1] if slowest else canvas.glyphs.levels[3]
        parts += [" " * (start - at), Span(glyph * (stop - max(start, at)), "high" if slowest else "low")]
        at = max(at, stop)
    mark = Span(f" {canvas.glyphs.bottleneck}", "warn") if row.is_bottleneck else Span("")
    return line(*parts, " " * (width - at), f" {ms(row.time_s):>6}ms", mark)


def _hop_line(row: StageRow, start: int, length: int, width: int, canvas: Canvas) -> Line:
    if row.stage.hop_p50_s <= 0:
        return BLANK
    stop = min(width, start + length)
    room = " " * max(0, width - stop)
    text = f"    hop{' ' * (NAME_CELLS - 6 + start)}{canvas.glyphs.hop * (stop - start)}{room} {ms(row.stage.hop_p50_s):>6}ms"
    return line(Span(text, "dim"))
