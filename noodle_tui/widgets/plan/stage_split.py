"""What serving says beside a profile: where a stage's step goes, what its node's memory holds, what an item takes on each node."""

from __future__ import annotations

from collections.abc import Sequence

from engine.data.status import StageStatus
from noodle_tui.listings.stages import StageRow
from noodle_tui.text.figures import ms, percent, size
from noodle_tui.text.lines import Canvas, Lines, Span, fit, line
from noodle_tui.widgets.bars import parts_bar


def split_lines(stage: StageStatus, label: str, canvas: Canvas) -> Lines:
    """One row: computing, waiting for its turn, the hop after it; none until the stage has run."""
    parts = (("compute", stage.compute_p50_s, "#", "low"), ("waits", stage.queue_p50_s, "+", "mid"), ("hop", stage.hop_p50_s, "=", "dim"))
    total_s = sum(time_s for _, time_s, _, _ in parts)
    if not stage.num_steps or total_s <= 0:
        return ()
    text = "  ".join(f"{glyph} {name} {ms(time_s)}" for name, time_s, glyph, _ in parts)
    shares = tuple((time_s / total_s, glyph, style) for _, time_s, glyph, style in parts)
    bar = parts_bar(shares, canvas.width - len(text) - len(label) - 2, canvas.glyphs)
    return (line(Span(label, "dim"), *bar, f" {text}"),)


def memory_lines(row: StageRow, weight_bytes: int, canvas: Canvas) -> Lines:
    """One row: what the stage's node holds of its memory; none until the node has told. `weight_bytes` are the stage's by the profile."""
    node = row.node
    if node is None or node.memory_bytes <= 0 or weight_bytes <= 0:
        return ()
    kv_bytes = node.gauges.kv_used_bytes
    other_bytes = max(0, node.gauges.resident_bytes - weight_bytes - kv_bytes)  # a GPU's weights are not in its process's memory
    parts = (("weights", weight_bytes, "#", "low"), ("KV", kv_bytes, "+", "mid"), ("other", other_bytes, "=", "dim"))
    used = sum(num_bytes for _, num_bytes, _, _ in parts) / node.memory_bytes
    text = "  ".join(f"{glyph} {name} {size(num_bytes)}" for name, num_bytes, glyph, _ in parts)
    text += f"  of {size(node.memory_bytes)} = {percent(used)}"
    shares = tuple((num_bytes / node.memory_bytes, glyph, style) for _, num_bytes, glyph, style in parts)
    bar = parts_bar(shares, canvas.width - len(text) - 13, canvas.glyphs)
    return (line(Span(" MEMORY   ", "dim"), *bar, f" {text}"),)


def per_item_lines(rows: Sequence[StageRow], canvas: Canvas) -> Lines:
    """One row: the mean of an item on every node, as measured while serving; none until all have run."""
    if not rows or not all(row.stage.num_steps and row.stage.stop > row.stage.start for row in rows):
        return ()
    means = [f"{row.stage.worker_id} {ms(row.time_s / (row.stage.stop - row.stage.start))}ms" for row in rows]
    text = f"{means[0]} an item   {'   '.join(means[1:])}"
    return (line(Span(" NODES    ", "dim"), fit(text, canvas.width - 11, canvas.glyphs).rstrip()),)
