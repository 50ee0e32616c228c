"""Which points a profile measures: those that the cost model learns from, and others that show its error.

Batches up to 8 differ in kernel, so most of them are measured; contexts matter linearly, so one or two per batch suffice.
Held-out points have contexts, and mostly batches, that no training point has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from engine.profile.point import DECODE, FORWARD, PREFILL, Point

LONGEST_CONTEXT_TOKENS = 1024  # longer ones follow from the law; measuring them costs memory and time


@dataclass(frozen=True, slots=True)
class PointPlan:
    """Points to learn from and points to check with; none stands in both."""

    learn: tuple[Point, ...]
    held_out: tuple[Point, ...]

    @property
    def all(self) -> tuple[Point, ...]:
        return (*self.learn, *self.held_out)


def causal_points(context_tokens: int, *, most_prefill_tokens: int = 512, quick: bool = False) -> PointPlan:
    """Prefill and decode points for a model with this context; `most_prefill_tokens` keeps slow machines' prefill short."""
    limit = min(context_tokens, LONGEST_CONTEXT_TOKENS)
    decode, decode_held_out = _decode(limit, quick)
    prefill, prefill_held_out = _prefill(limit, min(most_prefill_tokens, limit // 2), quick)
    return _distinct([*prefill, *decode], [*prefill_held_out, *decode_held_out])


def recorded_points(context_tokens: int, sizes: Sequence[int], *, most_prefill_tokens: int = 512, quick: bool = False) -> PointPlan:
    """For an accelerator that has recorded decode steps of `sizes` rows: a step takes the next larger recording, so its time is a
    staircase, of which both ends of every stair are measured behind a short context, and one behind a long one."""
    limit = min(context_tokens, LONGEST_CONTEXT_TOKENS)
    short, long = max(1, limit // 16), max(1, limit * 7 // 8)
    tops = [1, 2, *(size for size in sizes[2 :: 2 if quick else 1])]
    learn = [Point(DECODE, 1, short, rows) for rows in stairs(tops)] + [Point(DECODE, 1, long, rows) for rows in tops]
    inside = [(a + b) // 2 for a, b in pairwise(tops) if b - a > 2]
    held_out = [Point(DECODE, 1, max(1, limit * (3 + 4 * (k % 3)) // 16), rows) for k, rows in enumerate(inside)]
    prefill, prefill_held_out = _prefill(limit, min(most_prefill_tokens, limit // 2), quick)
    return _distinct([*prefill, *learn], [*prefill_held_out, *held_out[-6:]])


def stairs(tops: Sequence[int]) -> list[int]:
    """Numbers of rows at both ends of each stair, whose last ones are `tops`."""
    return sorted({*tops, *(top + 1 for top in tops[:-1])})


def encoder_points(context_tokens: int, *, most_prefill_tokens: int = 512, quick: bool = False) -> PointPlan:
    """An encoder reads all tokens at once: texts of several lengths, alone and two at a time."""
    longest = max(2, min(context_tokens, most_prefill_tokens, 512))
    lengths = _up_to((16, 64, 256) if quick else (8, 32, 64, 128, 256, 512), longest)
    learn = [Point(FORWARD, n, 0, 1) for n in lengths] + [Point(FORWARD, max(1, n // 2), 0, 2) for n in lengths[-2:]]
    held_out = [Point(FORWARD, n, 0, b) for n, b in ((48, 1), (100, 2), (192, 1)) if n * b <= longest]
    return _distinct(learn, held_out)


def _decode(limit: int, quick: bool) -> tuple[list[Point], list[Point]]:
    batches = (1, 2, 4) if quick else (1, 2, 4, 8)
    short, middle, long = max(1, limit // 16), max(1, limit * 7 // 16), max(1, limit * 7 // 8)
    learn = [Point(DECODE, 1, context, batch) for batch in batches for context in (short, long)]
    learn += [Point(DECODE, 1, middle, batch) for batch in ((1,) if quick else (1, 3, 6))]
    pairs = ((3, 5),) if quick else ((1, 4), (2, 10), (4, 5), (5, 8), (7, 3))
    return learn, [Point(DECODE, 1, max(1, limit * sixteenths // 16), batch) for batch, sixteenths in pairs]


def _prefill(limit: int, most: int, quick: bool) -> tuple[list[Point], list[Point]]:
    lengths = _up_to((4, 32, 128) if quick else (4, 16, 64, 128, 256, 512), max(1, most))
    behind = lengths[-2] if len(lengths) > 1 else lengths[-1]
    learn = [Point(PREFILL, n, 0, 1) for n in lengths] + [Point(PREFILL, behind, limit // 2, 1)]
    if not quick:
        learn.append(Point(PREFILL, lengths[min(1, len(lengths) - 1)], limit * 3 // 4, 1))  # few pairs: what standing behind costs as such
    wanted = ((64, 0),) if quick else ((32, 0), (96, 0), (192, 0), (100, limit * 5 // 16))
    return learn, [Point(PREFILL, n, context, 1) for n, context in wanted if n <= most and n + context <= limit]


def _up_to(lengths: tuple[int, ...], most: int) -> list[int]:
    return [n for n in lengths if n <= most] or [most]


def _distinct(learn: list[Point], held_out: list[Point]) -> PointPlan:
    learned = tuple(dict.fromkeys(learn))
    return PointPlan(learned, tuple(p for p in dict.fromkeys(held_out) if p not in learned))
