"""How long each item of a model takes on this machine: one decode token, one session, a short context.

Items of one kind (same tensor shapes, same layer type) are timed once, on made-up weights, so nothing is read from
disk. Weights must come from memory, as they do in a real step, where a stage's other blocks pass through the cache
between two uses of a block: a GPT-2 block (28 MB) fits into many L3 caches and, timed alone, can look twice as fast as
it will ever run. So a run of neighbouring blocks, or copies of it, at least twice as large as the cache is timed as
one stage and divided by its length.

What a stage takes beside its items is measured apart: a stage that waited for the others begins slowly, for its threads sleep
and its caches serve others by then, whatever the number of its items. A stage of one block is timed after a pause and again
right after that; the difference is the base of every stage here. The same stage, given a few tokens at once, tells what a step
of several rows takes.
"""

from __future__ import annotations

import copy
import itertools
import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import torch

from engine.data.precision import AUTO
from engine.model.hardware.cpu import cache_bytes
from engine.model.hardware.devices import check_device
from engine.model.hardware.freed_memory import release_memory
from engine.model.progress import Progress
from engine.model.running.accelerator.acceleration import Acceleration, CaptureLimits
from engine.model.running.eight_bit.layers import bytes_of
from engine.model.running.slicing import build_in, item_state
from engine.model.running.stage import StageModel

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_CONTEXT_TOKENS = 16
_MIN_REPEATS, _MAX_REPEATS = 5, 40
_BUDGET_S = 0.06  # per kind of item, once it is built
_ROWS, _ROW_REPEATS = 4, 3
_PAUSE_S, _PAUSES = 0.005, 9  # as long as a stage of a small model waits for its neighbours
_KV_BYTES = 2**27  # the sessions here hold a few dozen tokens
_ONE_ROW = Acceleration(limits=CaptureLimits(max_rows=1))
_EMBEDDING_ROWS = 2048  # a lookup reads one row, so the size of the table does not matter
_SESSION = "measure"


@dataclass(frozen=True, slots=True)
class _Kind:
    """Items that cost the same, and the stages that stand for them: `num_copies` of [start, stop)."""

    items: tuple[int, ...]
    start: int
    stop: int
    num_copies: int


@dataclass(frozen=True, slots=True)
class _Running:
    """How the stages compute."""

    dtype: str
    device: str
    kv_dtype: str


@dataclass(frozen=True, slots=True)
class MeasuredTimes:
    """A decode step of a stage takes `base_s` and the `item_s` of its items, in seconds; each row beyond the first the share
    `row_share` of that more, 0..1."""

    item_s: tuple[float, ...]
    base_s: float
    row_share: float = 0.0


def measure_config(
    config: PreTrainedConfig, *, dtype: str, device: str, kv_dtype: str = AUTO, on_progress: Progress | None = None
) -> MeasuredTimes:
    """Time every item, and a stage's base, with the threads that torch may use now.

    Memory is given back before returning. Raises InvalidInput for a device or dtype that cannot be, NotSupported for the model.
    """
    check_device(device)
    kinds, running = _kinds(config, dtype), _Running(dtype, device, kv_dtype)
    item_s = [0.0] * (1 + max(kind.items[-1] for kind in kinds))
    try:
        for done, kind in enumerate(kinds):
            if on_progress is not None:
                on_progress(done / len(kinds), f"timing item {kind.start}, which stands for {len(kind.items)}")
            smaller, start = _smaller(config, kind, kinds)
            kind_s = _time_stages(smaller, start, kind, running)
            for item in kind.items:
                item_s[item] = kind_s
        base_s, row_share = _base_s(config, kinds, running)
    finally:
        release_memory()
    return MeasuredTimes(tuple(item_s), base_s, row_share)


def _kinds(config: PreTrainedConfig, dtype: str) -> list[_Kind]:
    model, chain = build_in(config, dtype)
    layer_types = getattr(config.get_text_config(decoder=True), "layer_types", None) or [""] * chain.num_blocks
    signatures: list[object] = []
    weight_bytes: list[int] = []
    for item in range(chain.num_items):
        is_block = 0 < item <= chain.num_blocks
        prefix = len(chain.prefixes(item)[0]) if is_block else 0  # a block's number is not part of its kind
        state = [(name[prefix:], tuple(tensor.shape)) for name, tensor in item_state(model, chain, item)]
        signatures.append((tuple(state), layer_types[item - 1] if is_block else item, is_block and chain.kv[item - 1] is None))
        weight_bytes.append(sum(bytes_of(model, name, tensor) for name, tensor in item_state(model, chain, item)))
    groups: dict[object, list[int]] = {}
    for item, signature in enumerate(signatures):
        groups.setdefault(signature, []).append(item)
    return [_kind(items, weight_bytes[items[0]]) for items in groups.values()]


def _kind(items: list[int], weight_bytes: int) -> _Kind:
    """Choose the stages to time: enough weights to overflow the cache, but no more than the model has of this kind."""
    start, run = _longest_run(items)
    needed_bytes = min(2 * cache_bytes(), weight_bytes * len(items))
    length = min(run, max(1, math.ceil(needed_bytes / max(1, weight_bytes))))
    num_copies = max(1, math.ceil(needed_bytes / max(1, length * weight_bytes)))
    return _Kind(tuple(items), start, start + length, num_copies)


def _longest_run(items: list[int]) -> tuple[int, int]:
    """(first item, length) of the longest run of neighbours."""
    best_start, best_length, start = items[0], 1, items[0]
    for previous, item in itertools.pairwise(items):
        start = start if item == previous + 1 else item
        if item - start + 1 > best_length:
            best_start, best_length = start, item - start + 1
    return best_start, best_length


def _smaller(config: PreTrainedConfig, kind: _Kind, kinds: list[_Kind]) -> tuple[PreTrainedConfig, int]:
    """A config that is quicker to build, and where the kind's stage starts in it: few blocks, a short embedding table."""
    config = copy.deepcopy(config)
    text = config.get_text_config(decoder=True)
    if kind.start == 0:
        text.vocab_size = min(text.vocab_size, _EMBEDDING_ROWS)
        text.pad_token_id = None  # it may lie beyond the shortened table
    if len(kinds) != 3:  # more than embedding, blocks of one kind, and head: their order matters
        return config, kind.start
    num_blocks, num_kept = text.num_hidden_layers, kinds[1].stop - kinds[1].start
    for name, value in list(vars(text).items()):
        if isinstance(value, list) and len(value) == num_blocks:
            setattr(text, name, value[:num_kept])  # one entry per block, such as layer_types
    text.num_hidden_layers = num_kept
    return config, min(kind.start, 1 + num_kept)


def _time_stages(config: PreTrainedConfig, start: int, kind: _Kind, running: _Running) -> float:
    """Seconds per item of the kind: the median over steps that go round the copies."""
    length = kind.stop - kind.start
    stages = [_built(config, start, start + length, running) for _ in range(kind.num_copies)]
    return statistics.median(_repeated(stages, running.device)) / length


def _base_s(config: PreTrainedConfig, kinds: list[_Kind], running: _Running) -> tuple[float, float]:
    """Seconds by which a step after a pause is slower than the next one, of one block of the commonest kind; and by which share of its
    time a row more makes it slower."""
    commonest = max(kinds[1:] or kinds, key=lambda kind: len(kind.items))
    block = replace(commonest, stop=commonest.start + 1, num_copies=1)
    smaller, start = _smaller(config, block, [block if kind is commonest else kind for kind in kinds])
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


def _built(config: PreTrainedConfig, start: int, stop: int, running: _Running) -> StageModel:
    """A stage that has begun its session."""
    stage = StageModel.synthetic(config, start, stop, **asdict(running), kv_budget_bytes=_KV_BYTES, acceleration=_ONE_ROW)
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
    _synchronise(device)
    began_s = time.perf_counter()
    stage.forward([(_SESSION, token_ids)], hidden)
    _synchronise(device)
    return time.perf_counter() - began_s


def _synchronise(device: str) -> None:
    if device != "cpu":
        torch.accelerator.synchronize(device)
