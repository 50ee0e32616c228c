"""Builds a model without its weights and finds its items: where it can be cut, and which tensors each item holds.

Item 0 is what runs before the blocks, items 1..L the decoder blocks, item L+1 the final norm and the head.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import torch

from engine.data.errors import InvalidInput
from engine.model.configuration import num_blocks
from engine.model.families import WRAPPERS
from engine.model.running import attention
from engine.model.running.buffers import compute_buffers
from engine.model.running.feeding import Feeding

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

    from engine.model.running.chain import Chain

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def torch_dtype(dtype: str) -> torch.dtype:
    """The torch dtype of that name. Raises InvalidInput for any other than the three floating types."""
    if dtype not in DTYPES:
        raise InvalidInput(f"dtype {dtype!r} is not allowed: use {', '.join(DTYPES)}")
    return DTYPES[dtype]


def build_chain(config: PreTrainedConfig, dtype: torch.dtype) -> tuple[PreTrainedModel, Chain]:
    """The whole model on the meta device and its chain, with the sessions of a step packed if the model allows it.

    Raises NotSupported if the model is not one chain of blocks.
    """
    for feeding in (Feeding.PACKED, Feeding.PACKED_WITH_MASK):
        with suppress(Exception):  # whatever a model objects to that has never heard of packed rows
            model = build_meta(config, dtype, feeding)
            return model, find_chain(model, feeding)
    model = build_meta(config, dtype, Feeding.ROW_BY_ROW)
    return model, find_chain(model, Feeding.ROW_BY_ROW)


def build_meta(config: PreTrainedConfig, dtype: torch.dtype, feeding: Feeding) -> PreTrainedModel:
    """The whole causal LM on the meta device, with the attention that the feeding needs."""
    from transformers.utils.generic import ContextManagers

    attention.register()
    model_class = _model_class(config)
    config = copy.deepcopy(config)
    config.dtype = dtype
    if feeding.is_packed:
        config._attn_implementation = attention.IMPLEMENTATION
    with ContextManagers(model_class.get_init_context(dtype, False, False, None)):
        return model_class(config).eval()


def _model_class(config: PreTrainedConfig) -> Any:
    """The class that generates text; of a text model inside an image model the whole, whose image part stays on the meta device."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    auto_class = AutoModelForImageTextToText if config.model_type in WRAPPERS else AutoModelForCausalLM
    return auto_class._model_mapping[type(config)]


def find_chain(model: PreTrainedModel, feeding: Feeding) -> Chain:
    """Trace a meta model. Raises NotSupported if it is not one chain of blocks, or cannot be fed like that."""
    from engine.model.running.chain import find_blocks, stations, trace

    blocks = find_blocks(model, num_blocks(model.config))
    compute_buffers(model, stations(model, blocks), "cpu")
    return trace(model, blocks, feeding)


def item_state(model: PreTrainedModel, chain: Chain, index: int) -> Iterator[tuple[str, torch.Tensor]]:
    """Names and tensors (parameters and saved buffers) of one item."""
    for prefix in chain.prefixes(index):
        yield from model.get_submodule(prefix).state_dict(keep_vars=True, prefix=f"{prefix}.").items()


def item_modules(config: PreTrainedConfig) -> tuple[tuple[str, ...], ...]:
    """The module paths of every item, from shapes alone; what belongs to no item (rotary tables, an image tower) is with the first.

    Raises NotSupported if the model is not one chain of blocks.
    """
    from engine.model.running.chain import stations

    model, chain = build_chain(config, torch.float32)
    items = [chain.prefixes(index) for index in range(chain.num_items)]
    beside = [path for path in stations(model, chain.blocks) if path not in (*items[0], *items[-1])]
    return ((*items[0], *beside), *items[1:])
