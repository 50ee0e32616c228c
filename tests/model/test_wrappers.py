"""Text models inside image models: the text part alone is loaded, in slices, and answers a text as the whole model does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from engine.data.errors import NotSupported
from engine.data.model import ModelRef
from engine.model import families
from engine.model.running.stage import StageModel
from engine.model.sources.card import describe
from engine.model.weights.weight_folder import WeightFolder
from tests.model import tiny

CUTS = (0, 2, 4, tiny.NUM_LAYERS + 2)
_SECTIONS = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}}
_QWEN_EYES = {"depth": 2, "hidden_size": 32, "num_heads": 4, "intermediate_size": 48, "patch_size": 4}
# What a few need beside tiny sizes, because their parts depend on each other.
PARTS: dict[str, dict[str, dict[str, Any]]] = {
    "glm4v": {"text_config": {"rope_parameters": {**_SECTIONS["rope_parameters"], "partial_rotary_factor": 1.0}}},
    "qwen3_vl_moe": {"text_config": {"sliding_window": None}},  # no option of the model: only the cache of generate() follows it
    "qwen2_vl": {"text_config": _SECTIONS, "vision_config": _QWEN_EYES | {"embed_dim": 32}},
    "qwen2_5_vl": {"text_config": _SECTIONS, "vision_config": _QWEN_EYES | {"out_hidden_size": 32, "fullatt_block_indexes": [1]}},
}


def tiny_wrapper(family: str) -> Any:
    config_class = CONFIG_MAPPING[family]
    arguments = tiny._small(config_class, config_class(), with_scales=True)
    for part, values in PARTS.get(family, {}).items():
        arguments[part] = arguments.get(part, {}) | values
    config = config_class(**arguments)
    for part in (config, config.get_text_config(decoder=True)):
        part.eos_token_id = None
    return config


def random_wrapper(family: str) -> PreTrainedModel:
    config = tiny_wrapper(family)
    torch.manual_seed(1)
    model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.1 if tiny.VOCABULARY in parameter.shape else 0.3) if parameter.dim() >= 2 else parameter.add_(
                torch.randn_like(parameter) * 0.1
            )
    return model


@pytest.mark.parametrize("family", families.WRAPPERS)
def test_the_text_part_answers_as_the_whole(family: str, tmp_path: Path) -> None:
    model = random_wrapper(family)
    expected = tiny.whole(model, tiny.prompts(), 6)
    assert len({token for tokens in expected for token in tokens}) >= 3
    model.save_pretrained(tmp_path)
    card = describe(tmp_path, ModelRef("m"))
    assert card.missing == "" and card.num_parameters < sum(p.numel() for p in model.parameters())
    assert tiny.sliced(tiny.load_slices(tmp_path, CUTS), tiny.prompts(), 6) == expected


def test_llama4_is_loaded_as_transformers_loads_its_text_model(tmp_path: Path) -> None:
    random_wrapper("llama4").save_pretrained(tmp_path)
    whole = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    assert type(whole).__name__ == "Llama4ForCausalLM"
    assert tiny.sliced(tiny.load_slices(tmp_path, CUTS), tiny.prompts(), 6) == tiny.whole(whole, tiny.prompts(), 6)
    assert describe(tmp_path, ModelRef("m")).missing == ""


def test_every_text_part_is_one_that_is_verified() -> None:
    known = {*families.VERIFIED, *families.TEXT_PARTS}
    kinds = {family: CONFIG_MAPPING[family]().get_text_config(decoder=True).model_type for family in families.WRAPPERS}
    assert {family: kind for family, kind in kinds.items() if kind not in known} == {}
    assert set(families.TEXT_PARTS) <= set(kinds.values())
    assert not {*families.WRAPPERS, *families.TEXT_CLASSES} & {*families.VERIFIED, *families.REFUSED}


def test_an_image_model_around_another_text_model_is_refused(tmp_path: Path) -> None:
    """LLaVA around Mamba: the wrapper is known, its text model keeps a recurrent state."""
    text = {"model_type": "mamba", "hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 97}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llava", "text_config": text}))
    tiny.random_model(tiny.tiny_config("gpt2")).save_pretrained(tmp_path / "other")
    (tmp_path / "other" / "model.safetensors").rename(tmp_path / "model.safetensors")
    with pytest.raises(NotSupported, match="'llava' is not supported: it joins an image or audio model with the text model 'mamba'"):
        StageModel.load(tmp_path, 0, 1, kv_budget_bytes=0)


def test_a_wrapper_that_does_not_say_its_text_model_is_refused(tmp_path: Path) -> None:
    random_wrapper("llava").save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llava"}')
    with pytest.raises(NotSupported, match="image or audio model, and it does not say which"):
        WeightFolder(tmp_path)
