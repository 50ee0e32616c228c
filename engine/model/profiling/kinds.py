"""Items of one kind cost the same: the same tensor shapes and layer type. One of each is timed, in a model with few blocks."""

from __future__ import annotations

import copy
import itertools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from engine.model.running.eight_bit.layers import bytes_of
from engine.model.running.slicing import build_in, item_state, torch_dtype

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_EMBEDDING_ROWS = 2048  # a lookup reads one row, so the size of the table does not matter


@dataclass(frozen=True, slots=True)
class Running:
    """How the stages compute."""

    dtype: str
    device: str
    kv_dtype: str


@dataclass(frozen=True, slots=True)
class Kind:
    """Items that cost the same, and the stages that stand for them: `num_copies` of [start, stop)."""

    items: tuple[int, ...]
    start: int
    stop: int
    num_copies: int
    weight_bytes: int = 0  # of one item
    kv_bytes: int = 0  # that one item keeps of a token


def kinds_of(config: PreTrainedConfig, dtype: str, enough_bytes: int) -> list[Kind]:
    """In the order of their first items; each stage has `enough_bytes` of weights, or as many as the model has of its kind."""
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
    found = []
    for items in groups.values():
        kv = chain.kv[items[0] - 1] if 0 < items[0] <= chain.num_blocks else None
        kv_bytes = kv[1].num_elements * torch_dtype(dtype).itemsize if kv is not None else 0
        found.append(replace(kind_of(items, weight_bytes[items[0]], enough_bytes), kv_bytes=kv_bytes))
    return found


def kind_of(items: list[int], weight_bytes: int, enough_bytes: int) -> Kind:
    """Choose the stages to time."""
    start, run = _longest_run(items)
    needed_bytes = min(enough_bytes, weight_bytes * len(items))
    length = min(run, max(1, math.ceil(needed_bytes / max(1, weight_bytes))))
    num_copies = max(1, math.ceil(needed_bytes / max(1, length * weight_bytes)))
    return Kind(tuple(items), start, start + length, num_copies, weight_bytes)


def _longest_run(items: list[int]) -> tuple[int, int]:
    """(first item, length) of the longest run of neighbours."""
    best_start, best_length, start = items[0], 1, items[0]
    for previous, item in itertools.pairwise(items):
        start = start if item == previous + 1 else item
        if item - start + 1 > best_length:
            best_start, best_length = start, item - start + 1
    return best_start, best_length


def smaller_config(config: PreTrainedConfig, kind: Kind, kinds: list[Kind]) -> tuple[PreTrainedConfig, int]:
    """A config that is quicker to build, and where the kind's stage starts in it: few blocks, a short embedding table."""
    config = copy.deepcopy(config)
    text = config.get_text_config(decoder=True)
    if kind.start == 0:
        text.vocab_size = min(text.vocab_size, _EMBEDDING_ROWS)
        text.pad_token_id = None  # it may lie beyond the shortened table
    if len(kinds) != 3:  # more than embedding, blocks of one kind, and head: their order matters
        return config, kind.start
    num_kept = kinds[1].stop - kinds[1].start
    return shortened(config, num_kept), min(kind.start, 1 + num_kept)


def shortened(config: PreTrainedConfig, num_kept: int) -> PreTrainedConfig:
    """The same model with its first blocks alone."""
    config = copy.deepcopy(config)
    text = config.get_text_config(decoder=True)
    for name, value in list(vars(text).items()):
        if isinstance(value, list) and len(value) == text.num_hidden_layers:
            setattr(text, name, value[:num_kept])  # one entry per block, such as layer_types
    text.num_hidden_layers = num_kept
    return config
