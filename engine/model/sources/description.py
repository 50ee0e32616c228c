"""The items of a model with their bytes, as its configuration and its folder's headers tell them. Reads no weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from engine.data.model import Item
from engine.data.precision import INT8
from engine.model.configuration import check_supported
from engine.model.running.eight_bit.layers import bytes_of, held_in, why_not_exact
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
    inexact: str  # of int8: why a session's answer may depend on its company; empty if it does not


def describe_model(folder: WeightFolder, dtype: str) -> Description:
    """All items with their bytes in `dtype`, from shapes alone. Raises NotSupported or InvalidInput."""
    check_supported(folder.config)
    model, chain = build_in(folder.config, dtype)
    names = _names(chain.blocks, chain.num_blocks)
    items = tuple(_describe(model, chain, names[index], index) for index in range(chain.num_items))
    held = {name: tensor for index in range(chain.num_items) for name, tensor in item_state(model, chain, index)}
    twice = {name for name, source in model.all_tied_weights_keys.items() if name in held and source in held}
    num_parameters = sum(t.numel() for name, t in held.items() if isinstance(t, torch.nn.Parameter) and name not in twice)
    missing = SliceLoader(model, chain, folder, torch_dtype(dtype)).why_incomplete()
    return Description(items, num_parameters, missing, why_not_exact(model, chain) if dtype == INT8 else "")


def _describe(model: PreTrainedModel, chain: Chain, name: str, index: int) -> Item:
    itemsize = model.dtype.itemsize
    kv = chain.kv[index - 1] if 0 < index <= chain.num_blocks else None
    tied_to, tied_bytes = _tie(model, chain, index)
    return Item(
        name=name,
        weight_bytes=sum(bytes_of(model, name, tensor) for name, tensor in item_state(model, chain, index)),
        kv_bytes_per_token=kv[1].num_elements * itemsize if kv else 0,
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
