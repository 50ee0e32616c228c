"""Tiny random models of every architecture that transformers can build, and their tokens with and without slices."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from engine.model.running.stage import StageModel

NUM_LAYERS = 4
WINDOW = 8
VOCABULARY = 97
KV_BYTES = 1 << 24
MAX_PARAMETERS = 8_000_000
# Sizes that families spell in their own ways; a name a config does not know is left out.
SIZES: dict[str, Any] = {
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input"), VOCABULARY),
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "word_embed_proj_dim", "embedding_size"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers"), NUM_LAYERS),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads"), 2),
    **dict.fromkeys(("head_dim", "rotary_dim", "v_head_dim", "qk_nope_head_dim", "qk_rope_head_dim", "attention_head_dim"), 8),
    "qk_head_dim": 16,
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank"), 16),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "decoder_ffn_dim", "ffn_hidden_size", "shared_expert_intermediate_size"), 48),
    **dict.fromkeys(("moe_intermediate_size", "expert_ffn_hidden_size", "moe_shared_expert_intermediate_size"), 24),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_k", "moe_topk", "num_experts_per_token"), 2),
    **dict.fromkeys(("n_group", "topk_group", "first_k_dense_replace", "n_shared_experts"), 1),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"), 256),
    **dict.fromkeys(("sliding_window", "attention_chunk_size", "window_size"), WINDOW),
    **dict.fromkeys(("intermediate_size_mlp", "dense_intermediate_size", "shared_intermediate_size"), 48),
    "is_decoder": True,
}
# Scales at which a family changes its behaviour, small enough that the prompts cross them.
SCALES: dict[str, Any] = {
    "local_attention": 2 * WINDOW,
    "floor_scale": 4,
    "keep_window_size": WINDOW // 2,
    "original_max_position_embeddings": WINDOW,
    "use_sliding_window": True,
    "max_window_layers": NUM_LAYERS // 2,
    **dict.fromkeys(("no_rope_layer_interval", "interleave_moe_layer_step", "moe_layer_interval", "decoder_sparse_step"), 2),
    **dict.fromkeys(("index_block_size", "index_topk_blocks"), 2),
    "attn_logit_softcapping": 1.0,
    "query_pre_attn_scalar": 8,
}
# What a few families need besides, because their sizes depend on each other.
EXTRA: dict[str, dict[str, Any]] = {
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10_000.0},
        "ffn_config": {"ffn_hidden_size": 48, "moe_num_experts": 4, "moe_top_k": 2, "ffn_act_fn": {"name": "silu"}},
    },
    "doge": {"sliding_window": None},  # with both windows its generate() depends on how a text is cut into calls
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "mamba2": {"num_heads": 8},
    "zaya": {"num_experts_per_tok": 1},
    "phi4_multimodal": {"original_max_position_embeddings": 256},  # at that length its generate() loses the text before
    "deepseek_v2": {"num_experts_per_tok": 2},
    "dots1": {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1, "first_k_dense_replace": 1},
    "cohere_compass_text": {
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "rope_parameters": {kind: {"rope_type": "default", "rope_theta": 1e4} for kind in ("sliding_attention", "full_attention")},
    },
}
OFTEN_NONE = ("head_dim", "num_key_value_heads")  # set even where the default is None, which a tiny size cannot derive
WINDOWED = "sliding_window"  # None by default in families whose published models have one
ROTARY = ("rope_parameters", "rope_scaling")
LONGROPE = "longrope"  # held to its original context, which must hold the prompts then
PROMPT_LENGTHS = (5, 1, 2 * WINDOW + 5, 3)


def causal_families() -> list[str]:
    """Every model type that AutoModelForCausalLM knows."""
    return sorted(name for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if name in CONFIG_MAPPING)


def tiny_config(family: str, *, with_scales: bool = True) -> PreTrainedConfig:
    """A config of the family with all its structure and small sizes; raises whatever the family objects to.

    Without scales it changes its behaviour only where the family's default does.
    """
    config_class = CONFIG_MAPPING[family]
    config = config_class(**_small(config_class, config_class(), with_scales) | EXTRA.get(family, {}))
    for part in (config, config.get_text_config(decoder=True)):
        part.eos_token_id = None
    return config


def _small(config_class: type, default: PreTrainedConfig, with_scales: bool) -> dict[str, Any]:
    """Constructor arguments that shrink whatever the config and its parts know under a name of SIZES and SCALES."""
    known = set(inspect.signature(config_class.__init__).parameters) | set(default.to_dict())
    values = default.to_dict()
    sizes, may_be_none = (SIZES | SCALES, {*OFTEN_NONE, WINDOWED}) if with_scales else (SIZES, OFTEN_NONE)
    arguments = {name: size for name, size in sizes.items() if name in known and (values.get(name) is not None or name in may_be_none)}
    if with_scales:
        arguments |= {name: _short_ropes(values[name]) for name in ROTARY if isinstance(values.get(name), dict)}
    if values.get("layer_types") and "max_window_layers" not in arguments:  # every kind of layer of the family, in few layers
        kinds = list(dict.fromkeys(values["layer_types"]))
        arguments["layer_types"] = [kinds[i % len(kinds)] for i in range(NUM_LAYERS)]
    if "kv_lora_rank" in known:  # latent attention expands one latent to keys for every query head
        arguments["num_key_value_heads"] = SIZES["num_attention_heads"]
    if (values.get("pad_token_id") or 0) >= VOCABULARY:
        arguments["pad_token_id"] = 0
    for name, part_class in default.sub_configs.items():
        part = getattr(default, name, None)
        if isinstance(part, PreTrainedConfig) and isinstance(part_class, type):
            arguments[name] = _small(type(part), part, with_scales) | {"model_type": part.model_type}
    return arguments | {"is_decoder": True}


def _short_ropes(parameters: dict[str, Any]) -> dict[str, Any]:
    """The rotary parameters, of one kind or per layer type, with the text length at which they change made small."""
    if parameters.get("rope_type") == LONGROPE:
        return parameters
    short = {name: SCALES[name] for name in ("original_max_position_embeddings",) if parameters.get(name)}
    return {name: _short_ropes(value) if isinstance(value, dict) else value for name, value in parameters.items()} | short


def random_model(config: PreTrainedConfig) -> PreTrainedModel:
    """The model with weights wide enough that tokens differ by position, so that a wrong slice shows."""
    torch.manual_seed(1)
    with torch.device("meta"):
        num_parameters = sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
    if num_parameters > MAX_PARAMETERS:
        raise ValueError(f"the tiny config has {num_parameters} parameters")
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.normal_(0, 0.1 if VOCABULARY in parameter.shape else 0.3)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def prompts(lengths: Sequence[int] = PROMPT_LENGTHS) -> list[list[int]]:
    generator = torch.Generator().manual_seed(2)
    return [torch.randint(3, VOCABULARY, (n,), generator=generator).tolist() for n in lengths]


class Answers(NamedTuple):
    """What was generated after each prompt."""

    tokens: list[list[int]]
    logits: list[torch.Tensor]  # per prompt [new tokens, V]


def whole(model: PreTrainedModel, asked: list[list[int]], num_new: int) -> list[list[int]]:
    """Greedy tokens of single-process `generate()`, prompt by prompt."""
    return whole_answers(model, asked, num_new).tokens


def whole_answers(model: PreTrainedModel, asked: list[list[int]], num_new: int) -> Answers:
    """The same with the logits of each new token."""
    settings: dict[str, Any] = {"max_new_tokens": num_new, "min_new_tokens": num_new, "do_sample": False, "pad_token_id": 0}
    settings |= {"output_logits": True, "return_dict_in_generate": True}
    found = [model.generate(torch.tensor([p]), attention_mask=torch.ones(1, len(p)), **settings) for p in asked]
    tokens = [f.sequences[0, len(p) :].tolist() for f, p in zip(found, asked, strict=True)]
    return Answers(tokens, [torch.cat(f.logits) for f in found])


def load_slices(folder: Path, cuts: Sequence[int], **options: Any) -> list[StageModel]:
    return [StageModel.load(folder, a, b, kv_budget_bytes=KV_BYTES, **options) for a, b in pairwise(cuts)]


def sliced(stages: list[StageModel], asked: list[list[int]], num_new: int, chunk: int | None = None, late: int = 1) -> list[list[int]]:
    """Greedy tokens over the stages. The last `late` sessions join after two steps; `chunk` splits prompts into pieces."""
    return sliced_answers(stages, asked, num_new, chunk, late).tokens


def sliced_answers(stages: list[StageModel], asked: list[list[int]], num_new: int, chunk: int | None = None, late: int = 1) -> Answers:
    """The same with the logits of each new token."""
    tokens = {str(i): list(p) for i, p in enumerate(asked)}
    logits: dict[str, list[torch.Tensor]] = {session: [] for session in tokens}
    done = dict.fromkeys(tokens, 0)
    for stage in stages:
        for session, prompt in tokens.items():
            stage.open(session, len(prompt) + num_new)
    wanted = {session: len(prompt) + num_new for session, prompt in tokens.items()}
    for step in range(1000):
        joined = list(tokens)[: None if step >= 2 or len(tokens) == 1 else -late]
        rows = [(s, tokens[s][done[s] :][:chunk]) for s in joined if len(tokens[s]) < wanted[s]]
        if not rows:
            break
        hidden = None
        for stage in stages:
            hidden = stage.forward(rows, hidden)
        for (session, ids), row in zip(rows, hidden, strict=True):
            done[session] += len(ids)
            if done[session] == len(tokens[session]):
                tokens[session].append(int(row.argmax()))
                logits[session].append(row)
    for stage in stages:
        for session in tokens:
            stage.close(session)
        stage.kv.check()
    return Answers([tokens[str(i)][len(p) :] for i, p in enumerate(asked)], [torch.stack(found) for found in logits.values()])
