"""The plan as blocks on a time axis: width is time, `>` is a hop, the bottleneck is marked in words and reversed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len

from engine.data.status import ClusterStatus, StageStatus
from noodle_tui.glyphs import Glyphs
from noodle_tui.listings.stage_times import bottleneck_hop, bottleneck_index, has_slow_hop, hop_s, stage_s, whole_step_s
from noodle_tui.text.figures import ms, percent, with_ms
from noodle_tui.text.lines import Canvas, Line, Lines, Span, fit, line
from noodle_tui.widgets.plan.plan_layout import BlockLayout, block_layout, fits

MAX_BLOCKS = 12  # beyond this, one line per stage reads better
GRID = math.log(1.06)
WAITS = 0.15  # of stages and hops: so much more a step takes before it is said what it is
BORDERED_FROM = 6  # rows: a title, two borders and three rows inside


@dataclass(frozen=True, slots=True)
class Block:
    """One stage as it is drawn: for every row its texts, the fullest first, so that the widest that fits is taken."""

    rows: tuple[tuple[str, ...], ...]
    hop_s: float  # to the next stage
    is_bottleneck: bool
    has_slow_hop: bool = False


def steady(time_s: float) -> float:
    """A time on a grid of 6 %, for widths only: noise must not move the borders of blocks at every frame."""
    return math.exp(round(math.log(time_s) / GRID) * GRID) if time_s > 0 else 0.0


def plan_blocks(status: ClusterStatus, canvas: Canvas) -> Lines:
    """Title and blocks in at most `canvas.height` rows; a list where blocks would not be readable."""
    stages = status.stages
    if not stages or canvas.height < 3:
        return ()
    times = [stage_s(stage) for stage in stages]
    inside = canvas.sized(canvas.width - 2, canvas.height)
    if len(stages) > MAX_BLOCKS or not fits(len(stages), inside.width):
        return _stage_list(status, times, canvas)
    worst = bottleneck_hop(status)
    blocks = [_block(i, stage, times, worst.index if worst is not None else None) for i, stage in enumerate(stages)]
    layout = block_layout([steady(t) for t in times], [steady(hop_s(stage)) for stage in stages], inside.width)
    return (_title(status, times, layout, canvas), *(line(" ", *row) for row in draw(blocks, layout, inside, canvas.height - 1)))


def draw(blocks: Sequence[Block], layout: BlockLayout, canvas: Canvas, height: int) -> Lines:
    """The blocks alone, bordered when `height` allows it."""
    if height < BORDERED_FROM - 1:
        return tuple(_text_row(blocks, layout, canvas, i) for i in range(min(2, height)))
    inner = tuple(_text_row(blocks, layout, canvas, i) for i in range(3))
    g = canvas.glyphs
    return (_border_row(layout, canvas, g.top_left, g.top_right), *inner, _border_row(layout, canvas, g.bottom_left, g.bottom_right))


def _block(index: int, stage: StageStatus, times: Sequence[float], worst_hop: int | None) -> Block:
    slowest = bottleneck_index(times)
    idle = percent(1 - times[index] / max(times)) if slowest is not None else "-"
    items = f"{stage.start}-{stage.stop - 1}" if stage.stop > stage.start else "no items"
    name, time, tail = f"S{index} {stage.worker_id}", with_ms(times[index]), f"p95 {ms(stage.compute_p95_s)}"
    rows = (
        (f"{name} {items}", name, f"S{index}"),
        (f"{time}  idle {idle}", time, ms(times[index])),
        (f"{tail}  waits {ms(stage.queue_p50_s)}", tail, ""),
    )
    return Block(rows, hop_s(stage), index == slowest and worst_hop is None, has_slow_hop(stage) or index == worst_hop)


def _title(status: ClusterStatus, times: Sequence[float], layout: BlockLayout, canvas: Canvas) -> Line:
    total = whole_step_s(status)
    if not any(times):
        return line(Span(f" PLAN #{status.plan_version}", "title"), Span("  no times yet: blocks are equally wide", "dim"))
    source = "measured" if all(stage.num_steps for stage in status.stages) else "planned"
    scale = f"{canvas.glyphs.broken_scale} not to scale" if layout.broken else f"column = {total * 1000 / canvas.width:.2g}ms"
    text, legend = f"  stages + hops {with_ms(total)} {source}", f"width = time, {canvas.glyphs.hop} = hop, "
    waits_s = status.speed.step_p50_s - total if source == "measured" else 0.0
    if waits_s > WAITS * total:  # a step also waits for those of other sessions, at stages and for the coordinator
        text += f" + waits {ms(waits_s)} = step"
    head = f" PLAN #{status.plan_version}"
    if sum(map(len, (head, text, "; ", legend, scale))) > canvas.width:
        legend = ""
    return line(Span(head, "title"), Span(f"{text}; {legend}{scale}", "dim"))


def _text_row(blocks: Sequence[Block], layout: BlockLayout, canvas: Canvas, row: int) -> Line:
    bar = Span(canvas.glyphs.vertical)
    parts: list[Span] = []
    for i, block in enumerate(blocks):
        style = "bottleneck" if block.is_bottleneck else "text"
        parts += [bar, Span(_cell(block, row, layout.stages[i] - 2, canvas), style), bar]
        if i < len(layout.hops):
            parts.append(Span(_hop(block, row, layout.hops[i], canvas), "warn" if block.has_slow_hop else "text"))
    return tuple(parts)


def _cell(block: Block, row: int, width: int, canvas: Canvas) -> str:
    """One text row of a block; the first row of the bottleneck ends in its mark."""
    mark = canvas.glyphs.bottleneck if block.is_bottleneck and row == 0 else ""
    room = width - len(mark)
    texts = block.rows[row]
    text = next((text for text in texts if cell_len(text) <= room), texts[-1])
    return fit(text, room, canvas.glyphs) + mark


def _hop(block: Block, row: int, width: int, canvas: Canvas) -> str:
    if row == 0:
        return canvas.glyphs.horizontal * (width - len(canvas.glyphs.hop)) + canvas.glyphs.hop
    mark = canvas.glyphs.bottleneck if block.has_slow_hop else ""
    number = ms(block.hop_s) if block.hop_s > 0 else ""
    texts = (f"{number} {mark}".strip(), number, "") if row == 1 else (mark, "")
    return fit(next(text for text in texts if len(text) <= width), width, canvas.glyphs)


def _border_row(layout: BlockLayout, canvas: Canvas, left: str, right: str) -> Line:
    parts: list[Span] = []
    for i, width in enumerate(layout.stages):
        parts.append(Span(left + canvas.glyphs.horizontal * (width - 2) + right, "rule"))
        if i < len(layout.hops):
            parts.append(Span(" " * layout.hops[i], "rule"))
    return tuple(parts)


def _stage_list(status: ClusterStatus, times: Sequence[float], canvas: Canvas) -> Lines:
    """One line per stage, the slowest first, because those are the ones to look at."""
    order = sorted(range(len(times)), key=lambda i: -times[i])
    room = canvas.height - 2 if len(order) > canvas.height - 1 else canvas.height - 1
    rows = [_stage_row(i, status.stages[i], times, canvas) for i in order[:room]]
    if len(order) > room:
        rows.append(line(Span(f" + {len(order) - room} more stages, all faster", "dim")))
    return (line(Span(f" PLAN #{status.plan_version}", "title"), Span(f"  {len(order)} stages, slowest first", "dim")), *rows)


def _stage_row(index: int, stage: StageStatus, times: Sequence[float], canvas: Canvas) -> Line:
    slowest = bottleneck_index(times) == index
    room = max(0, canvas.width - 40)
    bar = canvas.glyphs.full * round(room * times[index] / max(times)) if any(times) else ""
    name = fit(f"S{index} {stage.worker_id}", 20, canvas.glyphs)
    mark = f" {canvas.glyphs.bottleneck}" if slowest else ""
    return line(f" {name} {ms(times[index]):>7}ms ", Span(bar, "high" if slowest else "low"), Span(mark, "warn"))


def strip(names: Sequence[str], times_s: Sequence[float], scale_s: float, width: int, glyphs: Glyphs) -> Line:
    """A plan in one row, width is time on a scale shared with other strips: `|a 3.1 |b 4.2  |c 11.8      !!|`."""
    return parts_strip(names, times_s, scale_s, width, glyphs, ms, bottleneck_index(times_s))


def parts_strip(
    names: Sequence[str],
    parts: Sequence[float],
    scale: float,
    width: int,
    glyphs: Glyphs,
    text_of: Callable[[float], str],
    marked: int | None,
) -> Line:
    """The same of any measure that stages share; `marked` stands out."""
    drawn: list[Span | str] = [Span(glyphs.vertical, "rule")]
    for i, (name, part) in enumerate(zip(names, parts, strict=True)):
        cells = max(1, round(part / scale * (width - len(names) - 1)))
        mark = glyphs.bottleneck if i == marked and cells > 4 else ""
        text = fit(f"{name} {text_of(part)}" if cells >= 6 + len(mark) else name, cells - len(mark), glyphs) + mark
        drawn += [Span(text, "bottleneck" if i == marked else "text"), Span(glyphs.vertical, "rule")]
    return line(*drawn)
