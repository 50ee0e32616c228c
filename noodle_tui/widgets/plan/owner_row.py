"""Which node owns which item, one letter an item; when there are more items than cells, one letter for every few."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from string import ascii_letters

from noodle_tui.text.lines import Canvas, Line, Span, fit, line

LABEL = 9  # cells before the letters
AXIS_STEP = 5  # cells between the numbers above


def letters_of(nodes: Sequence[str]) -> dict[str, str]:
    """A letter for every node, in the order of the stages."""
    return {node: ascii_letters[i % len(ascii_letters)] for i, node in enumerate(dict.fromkeys(nodes))}


def items_per_cell(num_items: int, width: int) -> int:
    """How many items one letter stands for."""
    return max(1, math.ceil(num_items / max(1, width - LABEL - 1)))


def axis_row(num_items: int, canvas: Canvas) -> Line:
    """Item numbers above the letters; says so when a letter stands for more than one."""
    each = items_per_cell(num_items, canvas.width)
    num_cells = math.ceil(num_items / each)
    marks = "".join(f"{i * each:<{AXIS_STEP}}" for i in range(0, num_cells, AXIS_STEP))
    note = f"  1 letter = {each} items" if each > 1 else ""
    return line(Span(f" {'ITEM':<{LABEL - 1}}{marks}{note}", "dim"))


def owner_row(label: str, owner: Mapping[int, str], letters: Mapping[str, str], num_items: int, canvas: Canvas) -> Line:
    """The owner of every item; `?` where nobody owns it."""
    each = items_per_cell(num_items, canvas.width)
    cells = "".join(letters.get(owner.get(i, ""), "?") for i in range(0, num_items, each))
    return line(Span(f" {label:<{LABEL - 1}}", "dim"), cells)


def moves_row(before: Mapping[int, str], after: Mapping[int, str], num_items: int, canvas: Canvas) -> Line:
    """`^` under every item that changes its owner."""
    each = items_per_cell(num_items, canvas.width)
    moved = [any(before.get(j) != after.get(j) for j in range(i, min(i + each, num_items))) for i in range(0, num_items, each)]
    total = sum(before.get(i) != after.get(i) for i in range(num_items))
    cells = "".join("^" if m else " " for m in moved)
    return line(Span(f" {'moves':<{LABEL - 1}}", "dim"), Span(cells, "accent"), Span(f"  {total} item{'s' if total != 1 else ''}", "dim"))


def legend(letters: Mapping[str, str], canvas: Canvas) -> Line:
    """Which letter is which node."""
    text = "  ".join(f"{letter}={node}" for node, letter in letters.items())
    return line(Span(f" {fit(text, canvas.width - 2, canvas.glyphs).rstrip()}", "dim"))


def cost_row(times_s: Sequence[float], num_items: int, source: str, canvas: Canvas) -> Line:
    """What every item costs as a digit, 9 for the slowest."""
    each = items_per_cell(num_items, canvas.width)
    highest = max(times_s, default=0.0)
    peaks = [max(times_s[i : i + each], default=0.0) for i in range(0, num_items, each)]
    digits = "".join(str(round(9 * t / highest)) if highest > 0 else "-" for t in peaks)
    return line(Span(f" {'COST':<{LABEL - 1}}", "dim"), digits, Span(f"  9 = slowest, {source}", "dim"))
