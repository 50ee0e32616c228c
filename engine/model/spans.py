"""From a step's marks to the time of every layer and item. Pure arithmetic: it knows neither torch nor clocks.

A mark is (code, time). `code >= 0` enters layer `code`, `~code` leaves it; BEGIN and END frame the step. Marks nest as the
calls did. The items tile the step: the first runs from BEGIN to the first block's entry, each block's to the next
block's entry, and the last from the last block's exit to END, so that what runs between the modules (masks, positions,
the runtime's own work) is charged to the item that needed it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from engine.data import Bug

BEGIN, END = 2**30, 2**30 + 1

Mark = tuple[int, float]


@dataclass(frozen=True, slots=True)
class StepSpans:
    """One hooked step, all in seconds, by layer code and by item index."""

    step_s: float
    layer_s: dict[int, float]  # with what runs inside; several calls add up
    self_s: dict[int, float]  # without the hooked layers inside
    item_s: tuple[float, ...]
    entered: tuple[int, ...]  # codes in order of their first entry


def fold(marks: Sequence[Mark], blocks: Sequence[int]) -> StepSpans:
    """Spans of one complete step; `blocks` are the codes of the decoder blocks in chain order.

    Raises Bug if the marks do not nest or a block was not called exactly once, for then the figures would be wrong.
    """
    if len(marks) < 2 or marks[0][0] != BEGIN or marks[-1][0] != END:
        raise Bug("the profiler's marks do not frame a step")
    layer_s: dict[int, float] = {}
    self_s: dict[int, float] = {}
    calls: list[list[float]] = []  # [code, entry, time of hooked calls inside]
    for code, at_s in marks[1:-1]:
        if code >= 0:
            layer_s.setdefault(code, 0.0)
            calls.append([code, at_s, 0.0])
            continue
        if not calls or calls[-1][0] != ~code:
            raise Bug("the profiler's marks do not nest")
        _, entered_s, inside_s = calls.pop()
        spent_s = at_s - entered_s
        layer_s[~code] += spent_s
        self_s[~code] = self_s.get(~code, 0.0) + spent_s - inside_s
        if calls:
            calls[-1][2] += spent_s
    if calls:
        raise Bug("the profiler's marks do not nest")
    return StepSpans(marks[-1][1] - marks[0][1], layer_s, self_s, _items(marks, blocks), tuple(layer_s))


def _items(marks: Sequence[Mark], blocks: Sequence[int]) -> tuple[float, ...]:
    wanted = set(blocks)
    entries = [mark for mark in marks if mark[0] in wanted]
    if [code for code, _ in entries] != list(blocks) or not blocks:
        raise Bug(f"a step called its {len(blocks)} blocks {len(entries)} times or in another order")
    last_exit_s = max(at_s for code, at_s in marks if code == ~blocks[-1])
    bounds = [marks[0][1], *(at_s for _, at_s in entries), last_exit_s, marks[-1][1]]
    return tuple(later - earlier for earlier, later in pairwise(bounds))
