"""Which families may be sliced: the stated list must equal what identity with `generate()` shows.

The families come from transformers itself. Each is built tiny with wide random weights and with the text lengths at
which it changes its behaviour made tiny too, saved, loaded in three slices, and run as a ragged batch (one prompt longer
than the sliding window, one session joining late). Tokens must equal those of `generate()`, and logits, which show what
tokens hide, those of `generate()` and of each prompt alone, but for rounding.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from engine.data.errors import InvalidInput, NotSupported
from engine.model import configuration, families
from engine.model.configuration import check_supported
from engine.model.running import attention, cut, slicing
from engine.model.running.feeding import Feeder, Feeding
from tests.model import tiny

NUM_NEW = 8
ROUNDING = 1e-4  # of the largest logit; all families stay below 1e-5, a position that is wrong by one is above 1e-2
CUTS = (0, 2, 4, tiny.NUM_LAYERS + 2)
CHUNKED = ("bloom", "deepseek_v3", "gemma2", "gpt2", "gpt_oss", "llama4_text", "mistral", "qwen2_moe")
# Their own attention or mask code, or a question for one text length, allows no packed row. All others must be packed:
# a family that falls out of it is several times slower in company.
ROW_BY_ROW = {
    "axk1", "bloom", "deepseek_v2", "deepseek_v3", "diffllama", "doge", "falcon", "gemma4_unified", "glm4_moe_lite",
    "gpt_neo", "gpt_neox_japanese", "llama4_text", "minicpm3", "mpt", "sarvam_mla", "xglm", "youtu",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def same(found: list[torch.Tensor], expected: list[torch.Tensor]) -> bool:
    scale = max(float(logits.abs().max()) for logits in expected)
    return all(float((a - b).abs().max()) < ROUNDING * scale for a, b in zip(found, expected, strict=True))


def equals_whole(folder: Path, expected: tiny.Answers, chunk: int | None = None) -> bool:
    found = tiny.sliced_answers(tiny.load_slices(folder, CUTS), tiny.prompts(), NUM_NEW, chunk)
    return found.tokens == expected.tokens and same(found.logits, expected.logits)


def is_sliced_exactly(family: str, model: Any, folder: Path) -> bool:
    """Whether the family answers over slices, in company and alone, as its `generate()` does."""
    expected = tiny.whole_answers(model, tiny.prompts(), NUM_NEW)
    assert len({token for tokens in expected.tokens for token in tokens}) >= 3, "the weights are degenerate: every slice would look right"
    stages = tiny.load_slices(folder, CUTS)
    alone = [tiny.sliced_answers(stages, [prompt], NUM_NEW) for prompt in tiny.prompts()]
    return (
        [answer.tokens[0] for answer in alone] == expected.tokens
        and same([answer.logits[0] for answer in alone], expected.logits)
        and equals_whole(folder, expected)
        and (family not in CHUNKED or equals_whole(folder, expected, chunk=3))
    )


def verdict(family: str, folder: Path) -> str | None:
    """How the family's sessions reach it if it is sliced exactly; None if it is not, or cannot even be built and generate."""
    try:
        config = tiny.tiny_config(family)
        _, chain = slicing.build_chain(config, torch.float32)
        model = tiny.random_model(config)
        model.save_pretrained(folder)
        return ("packed" if chain.feeding.is_packed else "row by row") if is_sliced_exactly(family, model, folder) else None
    except AssertionError:
        raise
    except Exception:
        return None


@pytest.mark.parametrize("family", [name for name in tiny.causal_families() if name not in families.NOT_DECODER_ONLY])
def test_listed_families_are_those_that_pass(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = family in families.VERIFIED
    wanted = None if not listed else "row by row" if family in ROW_BY_ROW else "packed"
    monkeypatch.setattr(configuration, "VERIFIED", (family,))
    if listed or transformers.__version__.startswith(f"{families.VERIFIED_WITH}."):
        assert verdict(family, tmp_path) == wanted  # another release may do more than the list says, never less


def test_every_family_is_listed_once_or_refused_by_name() -> None:
    supported = families.VERIFIED
    assert len(supported) == len(set(supported)) >= 100
    assert not set(supported) & set(families.REFUSED)
    assert set(supported) <= set(tiny.causal_families())
    assert set(supported) >= ROW_BY_ROW
    for family in sorted(set(tiny.causal_families()) - set(supported)):
        config = type("Config", (), {"model_type": family})()
        with pytest.raises(NotSupported, match=f"'{family}'"):
            check_supported(config)


# Scales at which a family changes its behaviour: the tiny configs must make them matter to the tests' prompts.
SCALES = {
    "llama4_text": ("floor_scale", 8192),
    "ministral3": ("rope_parameters", "original_max_position_embeddings"),
    "qwen2": ("layer_types", ["full_attention"] * tiny.NUM_LAYERS),
    "qwen2_moe": ("layer_types", ["full_attention"] * tiny.NUM_LAYERS),
    "modernbert-decoder": ("sliding_window", 64),
    "phi3": ("sliding_window", None),
    "doge": ("keep_window_size", 2048),
    "gpt_neo": ("window_size", 256),
    "smollm3": ("no_rope_layers", [1, 1, 1, 0]),
    "gemma2": ("attn_logit_softcapping", 50.0),
}


@pytest.mark.parametrize("family", SCALES)
def test_the_prompts_cross_the_scales_at_which_a_family_changes(family: str) -> None:
    name, usual = SCALES[family]
    small, large = tiny.tiny_config(family), tiny.tiny_config(family)
    if name == "rope_parameters":
        large.rope_parameters = large.rope_parameters | {usual: 16384}
    else:
        setattr(large, name, usual)
    crossed, not_crossed = (tiny.whole_answers(tiny.random_model(config), tiny.prompts(), NUM_NEW) for config in (small, large))
    assert not same(crossed.logits, not_crossed.logits)


# Options of published models that the defaults of their families leave off.
OPTIONS: dict[str, tuple[str, dict[str, Any], Feeding]] = {
    "alibi": ("falcon", {"alibi": True}, Feeding.ROW_BY_ROW),
    "grouped heads of falcon": ("falcon", {"new_decoder_architecture": True}, Feeding.ROW_BY_ROW),
    "scores by layer": ("gpt2", {"scale_attn_by_inverse_layer_idx": True, "reorder_and_upcast_attn": True}, Feeding.PACKED),
    "no temperature": ("llama4_text", {"attn_temperature_tuning": False}, Feeding.PACKED),
    "experts of doge": ("doge", {"is_moe": True}, Feeding.ROW_BY_ROW),
    "one key head": ("gpt_bigcode", {"multi_query": False}, Feeding.PACKED),
    "parallel residual": ("stablelm", {"use_parallel_residual": True, "qk_layernorm": True}, Feeding.PACKED),
    "groups of experts": ("deepseek_v3", {"n_group": 2, "topk_group": 1}, Feeding.ROW_BY_ROW),
    "llama3 rope": ("llama", {"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8}}, Feeding.PACKED),
    "yarn": ("qwen3", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 8}},
        Feeding.PACKED),
    "linear rope": ("gemma3_text", {"rope_parameters": {"sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6}}}, Feeding.PACKED),
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIONS)
def test_options_of_published_models_are_sliced_exactly(name: str, tmp_path: Path) -> None:
    family, options, feeding = OPTIONS[name]
    config = type(tiny.tiny_config(family))(**tiny.tiny_config(family).to_dict() | options)
    assert slicing.build_chain(config, torch.float32)[1].feeding is feeding
    model = tiny.random_model(config)
    model.save_pretrained(tmp_path)
    assert is_sliced_exactly(family, model, tmp_path)


@pytest.mark.parametrize(
    ("family", "options", "reason"),
    [
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}, "dynamic"),
        ("gpt2", {"add_cross_attention": True}, "encoder"),
        ("llama", {"quantization_config": {"quant_method": "awq", "bits": 4}}, r"quantised \(AWQ, 4 bit\)"),
        ("llama", {"architectures": ["LlamaForSequenceClassification"]}, "no language-model head"),
        ("gemma3_text", {"use_bidirectional_attention": True}, "later tokens"),
        ("doge", {"sliding_window": 8}, "both keep_window_size"),
    ],
)
def test_options_that_change_a_family_are_refused(family: str, options: dict[str, Any], reason: str) -> None:
    config = tiny.tiny_config(family)
    for name, value in options.items():
        setattr(config, name, value)
    with pytest.raises(NotSupported, match=reason):
        check_supported(config)


def test_longrope_is_held_to_its_original_context(tmp_path: Path) -> None:
    config = tiny.tiny_config("phi3")
    factors = {"short_factor": [1.0] * 4, "long_factor": [9.0] * 4, "original_max_position_embeddings": 40}
    config.rope_parameters = {"rope_type": "longrope", "rope_theta": 1e4, "partial_rotary_factor": 1.0, **factors}
    config.original_max_position_embeddings = 40
    model = tiny.random_model(config)
    model.save_pretrained(tmp_path)
    stages = tiny.load_slices(tmp_path, CUTS)
    assert tiny.sliced(stages, tiny.prompts(), NUM_NEW) == tiny.whole(model, tiny.prompts(), NUM_NEW)
    with pytest.raises(InvalidInput, match="context of 40"):
        stages[0].open("long", 41)


def _no_window(self: Any, num_new: int, length: int, device: torch.device) -> None:
    return None


def _late_positions(self: Feeder, rows: Any, lengths: list[int], *arguments: Any, **options: Any) -> dict[str, Any]:
    return ARGUMENTS(self, rows, [length + 1 for length in lengths], *arguments, **options)


def _keep_input(self: Any, _: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
    return args, kwargs


ARGUMENTS = Feeder.arguments
SABOTAGE = {
    "a window ignored": ("mistral", attention.MaskRule, "mask", _no_window),
    "positions off by one": ("gpt2", Feeder, "arguments", _late_positions),
    "hidden states dropped": ("llama", cut.CutModel, "_inject", _keep_input),
    "sinks ignored": ("gpt_oss", attention, "softmax", lambda scores, **_: torch.softmax(scores[..., :-1], -1)),
}


@pytest.mark.parametrize("name", SABOTAGE)
def test_the_comparison_sees_a_broken_slice(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    family, owner, attribute, broken = SABOTAGE[name]
    model = tiny.random_model(tiny.tiny_config(family))
    expected = tiny.whole_answers(model, tiny.prompts(), NUM_NEW)
    model.save_pretrained(tmp_path)
    assert equals_whole(tmp_path, expected)
    monkeypatch.setattr(owner, attribute, broken)
    assert not equals_whole(tmp_path, expected)
