"""What a model's configuration says by itself: whether its slices are known to answer exactly, how many blocks and tokens it has.

Imports neither torch nor transformers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from engine.data.errors import NotSupported
from engine.model.families import REFUSED, TEXT_PARTS, VERIFIED, WRAPPERS
from engine.model.formats.quantised import quantisation, refusal

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

UNLIMITED_CONTEXT_TOKENS = 1_000_000  # models without position tables name no limit; a request has smaller bounds
_OTHER_TASK = re.compile(r"For(SequenceClassification|TokenClassification|QuestionAnswering|MultipleChoice|MaskedLM|RewardModel|Reward)$")


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


def num_blocks(config: PreTrainedConfig) -> int:
    """How many decoder blocks the configuration asks for; models with two halves count their decoder's."""
    text = config.get_text_config(decoder=True)
    return int(getattr(text, "decoder_layers", None) or text.num_hidden_layers)
