"""How wide each stage and hop of a plan is drawn: proportional to time, never too narrow to read.

Pure arithmetic on numbers; knows neither glyphs nor styles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MIN_STAGE_CELLS = 5
MIN_HOP_CELLS = 1


@dataclass(frozen=True, slots=True)
class BlockLayout:
    """Cells of each stage and of the hop after each stage but the last; they sum to the width asked for."""

    stages: tuple[int, ...]
    hops: tuple[int, ...]
    broken: bool  # a stage was widened to its minimum, so widths are no longer proportional to time


def fits(num_stages: int, width: int) -> bool:
    """Whether all stages can be drawn side by side."""
    return num_stages > 0 and num_stages * MIN_STAGE_CELLS + (num_stages - 1) * MIN_HOP_CELLS <= width


def block_layout(stage_s: Sequence[float], hop_s: Sequence[float], width: int) -> BlockLayout:
    """Share `width` cells among stages and the hops between them in proportion to their times."""
    count = len(stage_s)
    minimums = [MIN_STAGE_CELLS] * count + [MIN_HOP_CELLS] * (count - 1)
    times = [max(0.0, t) for t in (*stage_s, *hop_s[: count - 1])]
    if sum(times) <= 0:
        times = [1.0] * count + [0.0] * (count - 1)
    lifted = _lifted(times, minimums, width)
    cells = _round(_shares(times, minimums, lifted, width), minimums, width)
    return BlockLayout(tuple(cells[:count]), tuple(cells[count:]), any(i < count for i in lifted))


def _lifted(times: list[float], minimums: list[int], width: int) -> set[int]:
    """Indices whose share would be below their minimum, found until the rest can pay for them."""
    lifted: set[int] = set()
    while True:
        shares = _shares(times, minimums, lifted, width)
        short = {i for i, share in enumerate(shares) if i not in lifted and share < minimums[i]}
        if not short:
            return lifted
        lifted |= short


def _shares(times: list[float], minimums: list[int], lifted: set[int], width: int) -> list[float]:
    left = width - sum(minimums[i] for i in lifted)
    total = sum(t for i, t in enumerate(times) if i not in lifted)
    return [float(minimums[i]) if i in lifted else t / total * left if total > 0 else 0.0 for i, t in enumerate(times)]


def _round(shares: list[float], minimums: list[int], width: int) -> list[int]:
    """Whole cells by largest remainder; what the minimums leave over goes to the first stages."""
    cells = [max(minimum, int(share)) for share, minimum in zip(shares, minimums, strict=True)]
    order = sorted(range(len(shares)), key=lambda i: (int(shares[i]) - shares[i], i))
    spare = width - sum(cells)
    for turn in range(max(0, spare)):
        cells[order[turn % len(order)]] += 1
    return cells
