"""From a step's marks to the time of every layer and item. Pure arithmetic.

`code >= 0` of a mark enters layer `code`, `~code` leaves it; BEGIN and END frame the step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from engine.data.errors import Bug
from engine.model.hardware.clocks import Mark

BEGIN, END = 2**30, 2**30 + 1


@dataclass(frozen=True, slots=True)
class StepSpans:
    """One hooked step, all in seconds, by layer code."""

    step_s: float
    layer_s: dict[int, float]  # with what runs inside; several calls add up
    self_s: dict[int, float]  # without the hooked layers inside
    entered: tuple[int, ...]  # codes in order of their first entry


def fold(marks: Sequence[Mark]) -> StepSpans:
    """Spans of one complete step, whose marks nest as the calls did. Raises Bug if they do not."""
    _check_frame(marks)
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
    return StepSpans(marks[-1][1] - marks[0][1], layer_s, self_s, tuple(layer_s))


def tile(marks: Sequence[Mark], blocks: Sequence[int]) -> tuple[float, ...]:
    """Seconds of every item of one complete step with marks at the entries of `blocks` and at the last one's exit alone.

    The first item runs from BEGIN to the first block's entry, each block's to the next block's entry, and the last from
    the last block's exit to END, so that what runs between the modules (masks, positions, the runtime's own work) is
    charged to the item that needed it. Raises Bug if a block was not called exactly once and in order.
    """
    _check_frame(marks)
    if not blocks or [code for code, _ in marks[1:-1]] != [*blocks, ~blocks[-1]]:
        raise Bug(f"a step called its {len(blocks)} blocks in another way: marks {[code for code, _ in marks[1:-1]][:80]}")
    return tuple(later - earlier for (_, earlier), (_, later) in pairwise(marks))


def _check_frame(marks: Sequence[Mark]) -> None:
    if len(marks) < 2 or marks[0][0] != BEGIN or marks[-1][0] != END:
        raise Bug("the profiler's marks do not frame a step")
