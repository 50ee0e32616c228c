"""Cuts a model into items: which tensors, how many bytes and how much KV each one holds. Reads no weights.

Item 0 is what runs before the blocks, items 1..L the decoder blocks, item L+1 the final norm and the head.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from engine.data.errors import InvalidInput, NotSupported
from engine.data.model import Item
from engine.model.families import REFUSED, TEXT_PARTS, VERIFIED, WRAPPERS
from engine.model.feeding import Feeding
from engine.model.formats.quantised import quantisation, refusal
from engine.model.weights import WeightFolder

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

    from engine.model.chain import Chain

UNLIMITED_CONTEXT_TOKENS = 1_000_000  # models without position tables name no limit; a request has smaller bounds
TOKEN_ID_BYTES = 4  # what the last item passes on: one sampled token id
_OTHER_TASK = re.compile(r"For(SequenceClassification|TokenClassification|QuestionAnswering|MultipleChoice|MaskedLM|RewardModel|Reward)$")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def torch_dtype(dtype: str) -> torch.dtype:
    """The torch dtype of that name. Raises InvalidInput for any other than the three floating types."""
    if dtype not in DTYPES:
        raise InvalidInput(f"dtype {dtype!r} is not allowed: use {', '.join(DTYPES)}")
    return DTYPES[dtype]


class UnsupportedFamily(NotSupported):
    """The whole family cannot be cut into a chain; its layers may still be measured."""


def check_supported(config: PreTrainedConfig) -> None:
    """Raise NotSupported, by name and with the reason, for every model whose slices are not known to answer exactly."""
    if _text_family(config) not in (*VERIFIED, *TEXT_PARTS):
        raise UnsupportedFamily(
            f"model family {config.model_type!r} is not supported: {_family_reason(config)}; `noodle-engine models` lists those that are"
        )
    _check_options(config)


def _text_family(config: PreTrainedConfig) -> str:
    """The family of the blocks: the text part's, of a wrapper that is verified with it."""
    return str(config.get_text_config(decoder=True).model_type if config.model_type in WRAPPERS else config.model_type)


def _family_reason(config: PreTrainedConfig) -> str:
    if getattr(config, "is_encoder_decoder", False):
        return "it is an encoder-decoder model, not a decoder-only one"
    if reason := REFUSED.get(config.model_type):
        return reason
    if config.model_type in WRAPPERS:
        return f"it joins an image or audio model with the text model {_text_family(config)!r}, which is not verified"
    parts = getattr(config, "sub_configs", {})
    if any(word in part for part in parts for word in ("vision", "image", "audio", "speech")):
        return "it joins a text model with an image or audio model, and its text part alone was not verified"
    return "its slices were not verified against generate()"


def _check_options(config: PreTrainedConfig) -> None:
    """Options that turn a supported family into something else."""
    reasons = {"is_encoder_decoder": "it is an encoder-decoder model", "add_cross_attention": "it attends to an encoder"}
    for option, reason in reasons.items():
        if getattr(config, option, None):
            raise NotSupported(f"model family {config.model_type!r} with {option} set is not supported: {reason}")
    if reason := refusal(quantisation_of(config)):
        raise NotSupported(f"this {config.model_type!r} model is not supported: {reason}")
    if other := _other_task(config):
        raise NotSupported(f"a {other!r} is not supported: it scores or embeds text and has no language-model head that continues it")
    if getattr(config, "is_causal", None) is False or getattr(config, "use_bidirectional_attention", None) in (True, "all"):
        raise NotSupported(f"model family {config.model_type!r} is not supported with attention to later tokens: use a causal model")
    if getattr(config, "keep_window_size", None) and getattr(config, "sliding_window", None):
        raise NotSupported(
            f"model family {config.model_type!r} is not supported with both keep_window_size {config.keep_window_size} and sliding_window "
            f"{config.sliding_window}: its own generate() then depends on how a text is cut into calls; use a model without sliding_window"
        )
    if "dynamic" in rope_types(config.get_text_config(decoder=True)):
        raise NotSupported(
            f"model family {config.model_type!r} with rope_type 'dynamic' is not supported: its positions depend on the longest text seen "
            f"so far, so sessions would change each other; use another rope_type"
        )


def quantisation_of(config: PreTrainedConfig) -> Mapping[str, Any] | None:
    """What `quantised.quantisation` says of it."""
    return quantisation({**vars(config), "text_config": vars(config.get_text_config(decoder=True))})


def _other_task(config: PreTrainedConfig) -> str:
    """The class that the weights were trained for, where that is not one that generates text."""
    names = getattr(config, "architectures", None) or [""]
    return str(names[0]) if _OTHER_TASK.search(str(names[0])) else ""


def rope_types(config: PreTrainedConfig) -> set[str]:
    """The rotary embedding kinds that the configuration names, for all layer types together."""
    parameters = getattr(config, "rope_parameters", None) or {}
    nested = [value for value in parameters.values() if isinstance(value, dict)]
    return {str(value.get("rope_type", "default")) for value in [parameters, *nested]}


def context_tokens(config: PreTrainedConfig) -> int:
    """How many tokens one session may have.

    With `longrope` it is the original context: beyond it a model switches to other frequencies for the whole text, by
    the longest position of a call, so one long session would change the others of its step.
    """
    text = config.get_text_config(decoder=True)
    names = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_sequence_length")
    limit = next((int(value) for name in names if (value := getattr(text, name, None))), UNLIMITED_CONTEXT_TOKENS)
    if "longrope" in rope_types(text):
        original = (text.rope_parameters or {}).get("original_max_position_embeddings")
        return min(limit, int(original or getattr(text, "original_max_position_embeddings", None) or limit))
    return limit


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

    from engine.model import attention

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
    from engine.model.chain import find_blocks, stations, trace
    from engine.model.loading import compute_buffers

    blocks = find_blocks(model, num_blocks(model.config))
    compute_buffers(model, stations(model, blocks), "cpu")
    return trace(model, blocks, feeding)


def item_names(config: PreTrainedConfig) -> list[str]:
    """Names of all items, the blocks' taken from their place in the model, such as `layers.0`. Raises NotSupported."""
    from engine.model.chain import find_blocks

    check_supported(config)
    model = build_meta(config, torch.float32, Feeding.ROW_BY_ROW)
    return _names(find_blocks(model, num_blocks(config)), num_blocks(config))


def num_blocks(config: PreTrainedConfig) -> int:
    """How many decoder blocks the configuration asks for; models with two halves count their decoder's."""
    text = config.get_text_config(decoder=True)
    return int(getattr(text, "decoder_layers", None) or text.num_hidden_layers)


def _names(blocks: str, count: int) -> list[str]:
    return ["embed", *(f"{blocks.rpartition('.')[2]}.{index}" for index in range(count)), "head"]


@dataclass(frozen=True, slots=True)
class Description:
    """A model as its configuration and its folder's headers tell it. `missing` says what the folder lacks, empty if nothing."""

    items: tuple[Item, ...]
    num_parameters: int
    missing: str


def describe_model(folder: WeightFolder, dtype: str) -> Description:
    """All items with their bytes in `dtype`, from shapes alone. Raises NotSupported or InvalidInput."""
    from engine.model.loading import SliceLoader

    check_supported(folder.config)
    model, chain = build_chain(folder.config, torch_dtype(dtype))
    names = _names(chain.blocks, chain.num_blocks)
    items = tuple(_describe(model, chain, names[index], index) for index in range(chain.num_items))
    held = {name: tensor for index in range(chain.num_items) for name, tensor in item_state(model, chain, index)}
    twice = {name for name, source in model.all_tied_weights_keys.items() if name in held and source in held}
    num_parameters = sum(t.numel() for name, t in held.items() if isinstance(t, torch.nn.Parameter) and name not in twice)
    return Description(items, num_parameters, SliceLoader(model, chain, folder, torch_dtype(dtype)).why_incomplete())


def describe_items(folder: WeightFolder, dtype: str) -> tuple[Item, ...]:
    """The items alone."""
    return describe_model(folder, dtype).items


def _describe(model: PreTrainedModel, chain: Chain, name: str, index: int) -> Item:
    itemsize = model.dtype.itemsize
    kv = chain.kv[index - 1] if 0 < index <= chain.num_blocks else None
    tied_to, tied_bytes = _tie(model, chain, index)
    return Item(
        name=name,
        weight_bytes=sum(tensor.nbytes for _, tensor in item_state(model, chain, index)),
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
        if index in ends and None not in ends and ends[0] != ends[1]:
            return ends[1 - ends.index(index)], model.get_parameter(pair[0]).nbytes
    return None, 0


def item_state(model: PreTrainedModel, chain: Chain, index: int) -> Iterator[tuple[str, torch.Tensor]]:
    """Names and tensors (parameters and saved buffers) of one item."""
    for prefix in chain.prefixes(index):
        yield from model.get_submodule(prefix).state_dict(keep_vars=True, prefix=f"{prefix}.").items()
