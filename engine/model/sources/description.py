"""The items of a model with their bytes, as its configuration and its folder's headers tell them. Reads no weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from engine.data.errors import InvalidInput
from engine.data.model import Item
from engine.data.precision import AUTO, DTYPE_BYTES, INT8, MemoryChoice, kept_dtype, kv_bytes
from engine.model.configuration import check_supported
from engine.model.running.eight_bit.layers import bytes_of, held_in, to_eight_bits, why_not_exact
from engine.model.running.kv import LayerShape
from engine.model.running.loading import SliceLoader
from engine.model.running.slicing import build_in, item_state, torch_dtype
from engine.model.weights.weight_folder import WeightFolder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from engine.model.running.chain import Chain

TOKEN_ID_BYTES = 4  # what the last item passes on: one sampled token id


@dataclass(frozen=True, slots=True)
class Description:
    """A model as its configuration and its folder's headers tell it. `missing` says what the folder lacks, empty if nothing."""

    items: tuple[Item, ...]
    num_parameters: int
    missing: str
    choices: tuple[MemoryChoice, ...]
    inexact: str  # of int8: why a session's answer may depend on its company; empty if it does not


def describe_model(folder: WeightFolder, dtype: str, kv_dtype: str = AUTO) -> Description:
    """All items with their bytes in `dtype`, KV in `kv_dtype`, from shapes alone. Raises NotSupported or InvalidInput."""
    check_supported(folder.config)
    kv_dtype = kept_dtype(kv_dtype, dtype)
    if kv_dtype not in DTYPE_BYTES:
        raise InvalidInput(f"KV dtype {kv_dtype[:80]!r} is not known: use auto, {', '.join(DTYPE_BYTES)}")
    model, chain = build_in(folder.config, dtype)
    names = _names(chain.blocks, chain.num_blocks)
    items = tuple(_describe(model, chain, names[index], index, kv_dtype) for index in range(chain.num_items))
    held = {name: tensor for index in range(chain.num_items) for name, tensor in item_state(model, chain, index)}
    twice = {name for name, source in model.all_tied_weights_keys.items() if name in held and source in held}
    num_parameters = sum(t.numel() for name, t in held.items() if isinstance(t, torch.nn.Parameter) and name not in twice)
    missing = SliceLoader(model, chain, folder, torch_dtype(dtype)).why_incomplete()
    inexact = why_not_exact(model, chain) if dtype == INT8 else ""
    return Description(items, num_parameters, missing, _choices(model, chain, dtype), inexact)


def _choices(model: PreTrainedModel, chain: Chain, dtype: str) -> tuple[MemoryChoice, ...]:
    """What each dtype would take. The model is not used any more: its layers end in 8 bits."""
    if dtype != INT8:
        to_eight_bits(model, chain)
    held = {name: tensor for index in range(chain.num_items) for name, tensor in item_state(model, chain, index)}
    twice = {name for name, source in model.all_tied_weights_keys.items() if name in held and source in held}
    once = [tensor for name, tensor in held.items() if name not in twice]
    layers = {name: layer for name in held if (layer := held_in(model, name)) is not None}
    eight_bits = sum(layer.num_bytes for layer in layers.values())
    eight_bits += sum(_bytes_in(t, "float32") for name, t in held.items() if name not in layers and name not in twice)
    return tuple(
        MemoryChoice(
            kind,
            eight_bits if kind == INT8 else sum(_bytes_in(tensor, kind) for tensor in once),
            sum(_kv_bytes(kv[1], kind) for kv in chain.kv if kv),
        )
        for kind in DTYPE_BYTES
    )


def _bytes_in(tensor: torch.Tensor, dtype: str) -> int:
    return tensor.numel() * DTYPE_BYTES[dtype] if tensor.is_floating_point() else tensor.nbytes


def _kv_bytes(shape: LayerShape, kv_dtype: str) -> int:
    return kv_bytes(shape.num_elements, shape.num_key_heads + shape.num_value_heads, kv_dtype)


def _describe(model: PreTrainedModel, chain: Chain, name: str, index: int, kv_dtype: str) -> Item:
    itemsize = model.dtype.itemsize
    kv = chain.kv[index - 1] if 0 < index <= chain.num_blocks else None
    tied_to, tied_bytes = _tie(model, chain, index)
    return Item(
        name=name,
        weight_bytes=sum(bytes_of(model, name, tensor) for name, tensor in item_state(model, chain, index)),
        kv_bytes_per_token=_kv_bytes(kv[1], kv_dtype) if kv else 0,
        output_bytes_per_token=TOKEN_ID_BYTES if index == chain.num_items - 1 else chain.hidden_size * itemsize,
        tied_to=tied_to,
        tied_bytes=tied_bytes,
    )


def _tie(model: PreTrainedModel, chain: Chain, index: int) -> tuple[int | None, int]:
    """The other end of the tensors that this item shares, and their bytes."""
    owners = {name: i for i in (0, chain.num_items - 1) for name, _ in item_state(model, chain, i)}
    for pair in model.all_tied_weights_keys.items():
        ends = [owners.get(name) for name in pair]
        if any(held_in(model, name) for name in pair):
            continue  # one end is in 8 bits, and so each has its own
        if index in ends and None not in ends and ends[0] != ends[1]:
            return ends[1 - ends.index(index)], model.get_parameter(pair[0]).nbytes
    return None, 0


def _names(blocks: str, count: int) -> list[str]:
    return ["embed", *(f"{blocks.rpartition('.')[2]}.{index}" for index in range(count)), "head"]
