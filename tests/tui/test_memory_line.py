"""What a stage's node holds: weights by the profile, KV and the rest as the node tells."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from noodle_tui.glyphs import ASCII
from noodle_tui.listings.stages import StageRow, stage_rows
from noodle_tui.text.lines import Canvas, width_of
from noodle_tui.widgets.plan.stage_split import memory_lines
from tests.tui import frames
from tests.tui.scenes import live, state_of

GIB = 2**30


def row(**node: Any) -> StageRow:
    first = stage_rows(state_of((99.5, live())))[0]
    return replace(first, node=frames.node(**node))


def text(row: StageRow, weight_bytes: int, width: int = 80) -> str:
    (shown,) = memory_lines(row, weight_bytes, Canvas(width, 24, ASCII, 100.0))
    assert width_of(shown) <= width
    return "".join(span.text for span in shown)


def test_what_is_neither_weights_nor_kv_is_the_rest() -> None:
    whole = text(row(resident_bytes=6 * GIB, kv_used_bytes=GIB), 3 * GIB)
    assert "# weights 3.0G  + KV 1.0G  = other 2.0G  of 8.0G = 75%" in whole
    assert whole.partition("[")[2].partition("]")[0].rstrip(".").replace("#", "").startswith("+"), "in this order"


def test_weights_on_a_gpu_are_not_in_its_processs_memory_and_still_count() -> None:
    assert "# weights 5.0G  + KV 512M  = other 0B  of 8.0G = 69%" in text(row(resident_bytes=GIB, kv_used_bytes=GIB // 2), 5 * GIB)


def test_nothing_is_said_of_a_node_that_has_not_told() -> None:
    canvas = Canvas(80, 24, ASCII, 100.0)
    assert memory_lines(row(memory_bytes=0), GIB, canvas) == ()
    assert memory_lines(replace(row(), node=None), GIB, canvas) == ()
    assert memory_lines(row(), 0, canvas) == (), "the profile does not know the weights"
