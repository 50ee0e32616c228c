"""Configs for models with random weights: a family's own defaults, or a tiny one with the same structure.

A tiny config keeps every structural choice of its family (norms, gating, grouped heads, sliding windows, experts) and
shrinks only sizes, so that it exercises the same code as the real model in about a megabyte.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from engine.data.errors import InvalidInput, NotSupported

_HIDDEN, _HEADS, _LAYERS = 64, 4, 4
_TINY_SIZES: dict[str, int] = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "word_embed_proj_dim", "embedding_size", "lru_width"), _HIDDEN),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers"), _LAYERS),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads"), _HEADS),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads"), 2),
    **dict.fromkeys(("head_dim", "rotary_dim", "v_head_dim", "qk_nope_head_dim", "qk_head_dim", "attention_head_dim"), 16),
    **dict.fromkeys(("qk_rope_head_dim", "index_head_dim"), 8),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank"), 32),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "decoder_ffn_dim", "shared_expert_intermediate_size", "ffn_hidden_size"), 128),
    **dict.fromkeys(("moe_intermediate_size", "expert_ffn_hidden_size"), 32),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_k", "moe_topk", "experts_per_token", "num_experts_per_token"), 2),
    **dict.fromkeys(("n_group", "topk_group", "first_k_dense_replace", "n_shared_experts", "num_nextn_predict_layers"), 1),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"), 1024),
    **dict.fromkeys(("sliding_window", "attention_window_size", "window_size"), 32),
    "vocab_size": 512,
    "vocab_size_per_layer_input": 512,
}
# Left out by the defaults of a few families, which then build no model at all.
_NEEDED = {"head_dim", "num_key_value_heads", "n_routed_experts", "num_experts_per_tok"}


def random_config(model_type: str, *, tiny: bool) -> PreTrainedConfig:
    """The config to give random weights to. Raises InvalidInput for an unknown name, NotSupported if none can be made."""
    if model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or model_type not in CONFIG_MAPPING:
        near = [name for name in sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) if name[:3] == model_type[:3]][:8]
        raise InvalidInput(
            f"{model_type!r} is not an architecture that transformers can generate text with"
            f"{'; near it: ' + ', '.join(near) if near else ''}; `noodle-engine models` lists them all"
        )
    config_class: Any = CONFIG_MAPPING[model_type]
    try:
        config = config_class()
        if tiny:
            sizes = tiny_arguments(text := config.get_text_config())
            config = config_class(**sizes) if text is config else config_class(text_config=sizes)
    except Exception as error:  # whatever a config class of some family objects to
        raise NotSupported(f"no {'tiny' if tiny else 'default'} config of {model_type!r} can be made: {error}") from error
    _drop_special_tokens(config)
    return config


def empty_model(config: PreTrainedConfig) -> PreTrainedModel:
    """The causal language model of `config` on the meta device: names and shapes, no memory."""
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    except Exception as error:  # whatever a family objects to, such as an optional package that is not installed
        raise NotSupported(f"transformers cannot build {config.model_type!r} from its config: {error}") from error


def tiny_arguments(default: PreTrainedConfig) -> dict[str, Any]:
    names = default.to_dict()
    sizes: dict[str, Any] = {}
    for name, size in _TINY_SIZES.items():
        current = names.get(name)  # not getattr: some families keep sizes per layer and raise
        # A size that is off (0) stays off, and nothing grows; aliases such as GPT-2's hidden_size are not in names.
        if isinstance(current, int) and current >= 1:
            sizes[name] = min(current, size)
        elif name in _NEEDED and name in names and current is None:
            sizes[name] = size
    # One head stays one head: multi-query families mean it. Full attention stays ungrouped.
    if isinstance(kv := names.get("num_key_value_heads"), int) and kv == names.get("num_attention_heads"):
        sizes["num_key_value_heads"] = _HEADS
    if "qk_rope_head_dim" in sizes:
        sizes.pop("head_dim", None)  # latent attention derives it
    if isinstance(kinds := names.get("layer_types"), list):
        sizes["layer_types"] = _both_kinds(kinds)
    if isinstance(kinds := names.get("attention_types"), list):
        sizes["attention_types"] = [[kinds[0][0], _LAYERS // len(kinds[0][0])]]  # GPT-Neo: kinds, and how often
    return sizes


def _both_kinds(kinds: list[str]) -> list[str]:
    """Four layer types that keep the family's mixture: every kind that it has, in its order of first use."""
    distinct = list(dict.fromkeys(kinds))
    return [distinct[i % len(distinct)] for i in range(_LAYERS)] if len(distinct) > 1 else distinct * _LAYERS


def _drop_special_tokens(config: PreTrainedConfig) -> None:
    # Untrained weights have no notion of an end: a stop at a random token would only look like a fault.
    for part in {id(c): c for c in (config, config.get_text_config())}.values():
        part.eos_token_id = None if _may_be_none(part, "eos_token_id") else 0
        for name in ("bos_token_id", "pad_token_id"):
            if isinstance(token := getattr(part, name, None), int) and not 0 <= token < part.get_text_config().vocab_size:
                setattr(part, name, None if _may_be_none(part, name) else 0)


def _may_be_none(config: PreTrainedConfig, name: str) -> bool:
    declared = [str(field.type) for field in dataclasses.fields(config) if field.name == name]
    return all("None" in kind for kind in declared)  # a family that declares `int` refuses to load anything else
