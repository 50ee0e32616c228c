"""How long each item of a model takes on this machine: one decode token, one session, a short context.

Items of one kind (same tensor shapes, same layer type) are timed once, on made-up weights, so nothing is read from
disk. Weights must come from memory, as they do in a real step, where a stage's other blocks pass through the cache
between two uses of a block: a GPT-2 block (28 MB) fits into many L3 caches and, timed alone, can look twice as fast as
it will ever run. So a run of neighbouring blocks, or copies of it, at least twice as large as the cache is timed as
one stage and divided by its length. An accelerator is measured as it serves (`served.py`).

What a stage takes beside its items is measured apart: a stage that waited for the others begins slowly, for its threads sleep
and its caches serve others by then, whatever the number of its items. A stage of one block is timed after a pause and again
right after that; the difference is the base of every stage here. The same stage, given a few tokens at once, tells what a step
of several rows takes.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from engine.data.precision import AUTO
from engine.model.hardware.cpu import cache_bytes
from engine.model.hardware.devices import check_device, wait_for
from engine.model.hardware.freed_memory import release_memory
from engine.model.profiling.kinds import Kind, Running, kinds_of, smaller_config
from engine.model.profiling.served import served_steps
from engine.model.progress import Progress
from engine.model.running.accelerator.graphs import BUCKETS
from engine.model.running.stage import StageModel
from engine.profile.point import DECODE, Point
from engine.profile.points import stairs
from engine.profile.row_law import RowLaw

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_CONTEXT_TOKENS = 16
_MIN_REPEATS, _MAX_REPEATS = 5, 40
_BUDGET_S = 0.06  # per kind of item, once it is built
_ROWS, _ROW_REPEATS = 4, 3
_PAUSE_S, _PAUSES = 0.005, 9  # as long as a stage of a small model waits for its neighbours
_KV_BYTES = 2**27  # the sessions here hold a few dozen tokens
_MOST_ROWS = 64  # of a step on an accelerator
_SESSION = "measure"


@dataclass(frozen=True, slots=True)
class MeasuredTimes:
    """A decode step of one row takes `base_s` and the `item_s` of its items, in seconds; `rows` says how items grow with more of them."""

    item_s: tuple[float, ...]
    base_s: float
    rows: RowLaw = field(default_factory=RowLaw)


def measure_config(
    config: PreTrainedConfig, *, dtype: str, device: str, kv_dtype: str = AUTO, on_progress: Progress | None = None
) -> MeasuredTimes:
    """Time every item, and a stage's base, with the threads that torch may use now.

    Memory is given back before returning. Raises InvalidInput for a device or dtype that cannot be, NotSupported for the model.
    """
    check_device(device)
    running = Running(dtype, device, kv_dtype)
    try:
        return _on_cpu(config, running, on_progress) if device == "cpu" else _as_served(config, running, on_progress)
    finally:
        release_memory()


def _as_served(config: PreTrainedConfig, running: Running, on_progress: Progress | None) -> MeasuredTimes:
    """On an accelerator, whose recorded steps make a staircase of the rows."""
    points = [Point(DECODE, 1, _CONTEXT_TOKENS, rows) for rows in stairs([size for size in BUCKETS if size <= _MOST_ROWS])]
    steps = served_steps(config, running, points, on_progress)
    rows = RowLaw.measured({step.point.batch: math.fsum(step.item_s) for step in steps})
    return MeasuredTimes(steps[0].item_s, steps[0].base_s, rows)


def _on_cpu(config: PreTrainedConfig, running: Running, on_progress: Progress | None) -> MeasuredTimes:
    kinds = kinds_of(config, running.dtype, 2 * cache_bytes())
    item_s = [0.0] * (1 + max(kind.items[-1] for kind in kinds))
    for done, kind in enumerate(kinds):
        if on_progress is not None:
            on_progress(done / len(kinds), f"timing item {kind.start}, which stands for {len(kind.items)}")
        smaller, start = smaller_config(config, kind, kinds)
        kind_s = _time_stages(smaller, start, kind, running)
        for item in kind.items:
            item_s[item] = kind_s
    base_s, row_share = _base_s(config, kinds, running)
    return MeasuredTimes(tuple(item_s), base_s, RowLaw.of_share(row_share))


def _time_stages(config: PreTrainedConfig, start: int, kind: Kind, running: Running) -> float:
    """Seconds per item of the kind: the median over steps that go round the copies."""
    length = kind.stop - kind.start
    stages = [_built(config, start, start + length, running) for _ in range(kind.num_copies)]
    return statistics.median(_repeated(stages, running.device)) / length


def _base_s(config: PreTrainedConfig, kinds: list[Kind], running: Running) -> tuple[float, float]:
    """Seconds by which a step after a pause is slower than the next one, of one block of the commonest kind; and by which share of its
    time a row more makes it slower."""
    commonest = max(kinds[1:] or kinds, key=lambda kind: len(kind.items))
    block = replace(commonest, stop=commonest.start + 1, num_copies=1)
    smaller, start = smaller_config(config, block, [block if kind is commonest else kind for kind in kinds])
    stage, device = _built(smaller, start, start + 1, running), running.device
    slower_s = []
    for _ in range(_PAUSES):
        time.sleep(_PAUSE_S)
        slower_s.append(_step(stage, 1, device) - _step(stage, 1, device))
    return max(0.0, statistics.median(slower_s)), _row_share(stage, device)


def _row_share(stage: StageModel, device: str) -> float:
    """Between no more and as much as a step of its own."""
    stage.close(_SESSION)
    stage.open(_SESSION, min(stage.context_tokens, _CONTEXT_TOKENS + (_ROWS + 1) * _ROW_REPEATS + 1))
    _step(stage, _CONTEXT_TOKENS, device)
    _step(stage, 1, device)
    times = [(_step(stage, _ROWS, device), _step(stage, 1, device)) for _ in range(_ROW_REPEATS)]
    many_s, one_s = (statistics.median(column) for column in zip(*times, strict=True))
    return min(1.0, max(0.0, (many_s / one_s - 1.0) / (_ROWS - 1))) if one_s > 0.0 else 0.0


def _built(config: PreTrainedConfig, start: int, stop: int, running: Running) -> StageModel:
    """A stage that has begun its session."""
    stage = StageModel.synthetic(config, start, stop, **asdict(running), kv_budget_bytes=_KV_BYTES)
    stage.open(_SESSION, min(stage.context_tokens, _CONTEXT_TOKENS + _MAX_REPEATS + 1))
    _step(stage, _CONTEXT_TOKENS, running.device)
    _step(stage, 1, running.device)  # the first decode step allocates and chooses kernels
    return stage


def _repeated(stages: list[StageModel], device: str) -> Iterator[float]:
    deadline_s = time.perf_counter() + _BUDGET_S
    for repeat in range(_MAX_REPEATS):
        if repeat >= _MIN_REPEATS and time.perf_counter() > deadline_s:
            return
        yield _step(stages[repeat % len(stages)], 1, device)


def _step(stage: StageModel, num_tokens: int, device: str) -> float:
    """Seconds of one forward pass; other inputs each time, so that a mixture of experts does not stay on warm ones."""
    token_ids = torch.randint(stage.vocab_size, (num_tokens,)).tolist()
    hidden = None if stage.is_first else torch.randn(num_tokens, stage.hidden_size).to(device, stage.dtype)  # [T, D]
    wait_for(device)
    began_s = time.perf_counter()
    stage.forward([(_SESSION, token_ids)], hidden)
    wait_for(device)
    return time.perf_counter() - began_s
