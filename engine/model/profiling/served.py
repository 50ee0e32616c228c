"""Steps of an accelerator as they are served: blocks fused, decode steps recorded. Hooks see none of it, so a stage is timed as a whole.

What every step takes beside its items (numbers sent, a recording started, an answer waited for) is told apart by stages of different
lengths. They overflow the device's cache by far where the model is large enough: in a step of all blocks each comes from memory, and a
short stage ends while the next orders are still given.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from engine.data.errors import Exhausted
from engine.model.hardware.devices import cache_bytes_of, usable_memory, wait_for
from engine.model.hardware.freed_memory import release_memory
from engine.model.profiling.kinds import Kind, Running, kinds_of, shortened
from engine.model.profiling.standing import StandingStage
from engine.model.progress import Progress
from engine.model.running.accelerator.acceleration import Acceleration, CaptureLimits
from engine.model.running.paged_kv import PAGE_TOKENS
from engine.model.running.stage import StageModel
from engine.profile.point import Point
from engine.profile.points import PointPlan

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_REPEATS, _WARM_UP = 11, 2
_CACHES = 32  # weights of a stage: so many that its device, and not the one that gives orders, decides how long it takes
_WEIGHT_SHARE, _KV_SHARE = 0.15, 0.25  # of the memory that is free

Span = tuple[int, int]  # items [start, stop)


@dataclass(frozen=True, slots=True)
class ServedStep:
    """Medians, in seconds: `item_s` of every item, and what a stage's step takes beside them."""

    point: Point
    item_s: tuple[float, ...]
    base_s: float

    @property
    def evenly_s(self) -> tuple[float, ...]:
        """Items that add up to the step of one stage of them all."""
        share_s = self.base_s / len(self.item_s)
        return tuple(time_s + share_s for time_s in self.item_s)


@dataclass(frozen=True, slots=True)
class Served:
    """Steps to learn from, and others to check with; none where hooks see what is served."""

    learn: tuple[ServedStep, ...] = ()
    held_out: tuple[ServedStep, ...] = ()


def served_plan(config: PreTrainedConfig, running: Running, plan: PointPlan, on_progress: Progress | None = None) -> Served:
    """`served_steps` of both halves of a plan."""
    found = {step.point: step for step in served_steps(config, running, plan.all, on_progress)}
    learn, held_out = (tuple(found[point] for point in points if point in found) for points in (plan.learn, plan.held_out))
    return Served(learn, held_out)


def served_steps(
    config: PreTrainedConfig, running: Running, points: Sequence[Point], on_progress: Progress | None = None
) -> list[ServedStep]:
    """Time the points whose keys and values fit, the first of which must. Memory is given back.

    Raises what building a stage raises, and Exhausted for a device that is too full.
    """
    free_bytes = usable_memory(running.device)[0]
    enough_bytes = int(min(_CACHES * cache_bytes_of(running.device), _WEIGHT_SHARE * free_bytes))
    kinds = kinds_of(config, running.dtype, enough_bytes)
    is_uniform = len(kinds) == 3 and len(kinds[1].items) > 1 and sum(kind.weight_bytes for kind in kinds) < _WEIGHT_SHARE * free_bytes
    found = (_of_short_models if is_uniform else _of_neighbours)(config, kinds, running, points, on_progress or (lambda *_: None))
    if points and points[0] not in found:
        raise Exhausted(
            f"{running.device} has {free_bytes:,} bytes free, too few for a step ({points[0].label}): free some, or use another device"
        )
    return [found[point] for point in points if point in found]


def _of_short_models(
    config: PreTrainedConfig, kinds: Sequence[Kind], running: Running, points: Sequence[Point], say: Progress
) -> dict[Point, ServedStep]:
    """Two models of fewer blocks, which differ by blocks alone. An embedding looks up a few rows: its step is what every step takes."""
    blocks = kinds[1]
    few = min(blocks.stop - blocks.start, len(blocks.items) // 2)
    taken = []
    for done, (num_blocks, stop) in enumerate(((few, few + 2), (2 * few, 2 * few + 2), (1, 1))):
        say(done / 3, f"timing {num_blocks} blocks as they are served" if stop > 1 else "timing what every step takes")
        taken.append(_timed(shortened(config, num_blocks), (0, stop), num_blocks * blocks.kv_bytes, running, points))
        release_memory()
    found = {}
    for point in points:
        if all(point in times for times in taken):
            short_s, long_s, least_s = (times[point] for times in taken)
            block_s = max(0.0, long_s - short_s) / few
            rest_s = max(0.0, long_s - 2 * few * block_s)
            base_s = min(least_s, rest_s)
            found[point] = ServedStep(point, (0.0, *[block_s] * len(blocks.items), rest_s - base_s), base_s)
    return found


def _of_neighbours(
    config: PreTrainedConfig, kinds: Sequence[Kind], running: Running, points: Sequence[Point], say: Progress
) -> dict[Point, ServedStep]:
    """Models of several kinds of blocks: what two neighbouring stages take more than the one of both is what every step takes."""
    one, other, both = neighbours(kinds)
    if one == other:
        kinds = [replace(kind, stop=both[1]) if kind.start == both[0] else kind for kind in kinds]
    taken: dict[Span, dict[Point, float]] = {span: {} for span in (one, other, both, *((kind.start, kind.stop) for kind in kinds))}
    for done, span in enumerate(taken):
        say(done / len(taken), f"timing items [{span[0]}, {span[1]}) as they are served")
        token_bytes = sum(kind.kv_bytes for item in range(*span) for kind in kinds if item in kind.items)
        taken[span] = _timed(config, span, token_bytes, running, points)
        release_memory()
    found = {}
    for point in points:
        if all(point in times for times in taken.values()):
            base_s = max(0.0, taken[one][point] + taken[other][point] - taken[both][point])
            found[point] = ServedStep(point, _item_s(kinds, {span: times[point] - base_s for span, times in taken.items()}), base_s)
    return found


def neighbours(kinds: Sequence[Kind]) -> tuple[Span, Span, Span]:
    """Two stages, and the one of both; the second may be left to the first, where both are of the commonest kind."""
    commonest = max(kinds, key=lambda kind: len(kind.items))
    start, length = commonest.start, commonest.stop - commonest.start
    run = next(n for n in range(1, len(commonest.items) + 1) if start + n not in commonest.items)
    if run > 1:
        length = min(length, run // 2)
        return (start, start + length), (start, start + length), (start, start + 2 * length)
    first = start - (start > 0)
    return (first, first + 1), (first + 1, first + 2), (first, first + 2)


def _item_s(kinds: Sequence[Kind], span_s: dict[Span, float]) -> tuple[float, ...]:
    item_s = {item: max(0.0, span_s[kind.start, kind.stop]) / (kind.stop - kind.start) for kind in kinds for item in kind.items}
    return tuple(item_s[item] for item in range(len(item_s)))


def _timed(config: PreTrainedConfig, span: Span, token_bytes: int, running: Running, points: Sequence[Point]) -> dict[Point, float]:
    """Seconds of a stage's step at each point that fits; from long contexts to short ones, which costs nothing."""
    most_rows = max(point.batch for point in points)
    acceleration = Acceleration(limits=CaptureLimits(max_rows=most_rows))
    budget_bytes = _budget_bytes(token_bytes, running, points)
    stage = StageModel.synthetic(config, *span, **asdict(running), kv_budget_bytes=budget_bytes, acceleration=acceleration)
    standing = StandingStage(stage)
    fitting = sorted((point for point in points if standing.fits(point)), key=lambda point: -point.context)
    standing.reserve(fitting)
    gc.collect()
    gc.disable()  # in the middle of a step it would take longer than the step
    try:
        return {point: statistics.median(list(_seconds(standing, point))[_WARM_UP:]) for point in fitting}
    finally:
        gc.enable()


def _seconds(standing: StandingStage, point: Point) -> Iterable[float]:
    for _ in range(_WARM_UP + _REPEATS):
        step = standing.step_at(point)
        wait_for(standing.stage.device)
        began_s = time.perf_counter()
        step()
        wait_for(standing.stage.device)
        yield time.perf_counter() - began_s


def _budget_bytes(token_bytes: int, running: Running, points: Sequence[Point]) -> int:
    """Twice what the largest point needs, in whole pages, but no more than a share of what is free."""
    most_tokens = max(point.batch * (point.context + point.tokens + 2 * PAGE_TOKENS) for point in points)
    return int(min(2 * most_tokens * token_bytes, _KV_SHARE * usable_memory(running.device)[0]))
