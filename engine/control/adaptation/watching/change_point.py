"""Where did a change begin, and what is the level since then?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

_MIN_TAIL = 4  # steps of a block that a new level may rest on


def middle(values: Iterable[float]) -> float:
    """`statistics.median`, whose module would load a random generator into a pure room."""
    ordered = sorted(values)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2.0


def length_since_change(values: Sequence[float], level: float) -> int:
    """How many of the last values belong to a new level, if the earlier ones lie around `level`.

    The likelihood-ratio estimate (Hinkley 1970): the suffix of n values whose squared sum of distances, over n, is largest.
    """
    best, best_length, total = -1.0, 1, 0.0
    for length, value in enumerate(reversed(values), start=1):
        total += value - level
        if total * total > best * length:
            best, best_length = total * total / length, length
    return best_length


def level_since(medians: Sequence[float], block: Sequence[float], level: float) -> tuple[float, int]:
    """(new level, steps since the change) from the medians of a run and the steps of its last block.

    The block that the change fell into is mixed: of several blocks it is left out, a single one is cut at the change.
    """
    num = length_since_change(medians, level)
    if num > 1:
        return middle(medians[-num:][1:]), num * len(block)
    tail = max(_MIN_TAIL, length_since_change(block, level))
    return middle(block[-tail:]), tail
