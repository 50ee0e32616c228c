"""fp8 and mxfp4 folders: read slice by slice, equal to what transformers dequantises, and refused by name where not read."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Mxfp4Config, PreTrainedModel

from engine.data.errors import NotSupported
from engine.data.model import ModelRef
from engine.model.formats import quantised
from engine.model.running.loading import names_needed
from engine.model.running.stage import StageModel
from engine.model.sources.card import describe
from engine.model.sources.source import resolve
from engine.model.weights.cached_weights import CachedWeights
from engine.model.weights.manifest import manifest_of
from engine.model.weights.stored_tensor import StoredTensor
from engine.model.weights.weight_cache import WeightCache
from tests.model import published, tiny
from tests.model.test_cached_weights import fill

CUTS = (0, 2, 4, 6)


@pytest.fixture(autouse=True)
def _accelerate(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers asks for the package before it dequantises fp8 on a CPU, and does not use it for that."""
    monkeypatch.setattr("transformers.quantizers.quantizer_finegrained_fp8.is_accelerate_available", lambda *_: True)


def saved(family: str, folder: Path) -> Path:
    published.model_of(family, intermediate_size=64).save_pretrained(folder)
    return folder


def unequal(stages: list[StageModel], whole: PreTrainedModel) -> list[str]:
    """The held tensors of the stages that are not the whole model's, bit for bit."""
    state = whole.state_dict()
    held = [(name, tensor) for stage in stages for name, tensor in stage.module.state_dict().items() if not tensor.is_meta]
    assert len(held) > 20
    return [name for name, tensor in held if tensor.dtype != state[name].dtype or not torch.equal(tensor, state[name])]


# Plain; experts stored one by one and merged; latent attention; one exponent for 32 numbers.
@pytest.mark.parametrize(
    ("family", "stated"),
    [("llama", published.FP8), ("qwen3_moe", published.FP8), ("deepseek_v3", published.FP8), ("llama", published.MXFP8)],
)
def test_fp8_is_what_transformers_makes_of_it(family: str, stated: dict[str, Any], tmp_path: Path) -> None:
    folder = saved(family, tmp_path)
    published.to_fp8(folder, stated)
    whole = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    stages = tiny.load_slices(folder, CUTS)
    assert unequal(stages, whole) == []
    assert tiny.sliced(stages, tiny.prompts(), 6) == tiny.whole(whole, tiny.prompts(), 6)
    card = describe(folder, ModelRef("m"))
    assert (card.missing, card.num_parameters) == ("", sum(p.numel() for p in whole.parameters()))
    method = "mxfp8" if stated is published.MXFP8 else "fp8"
    assert card.precision.sentence.startswith(f"stored as {method}, computed as float32: `--dtype bfloat16` halves ")


def test_fp8_blocks_that_are_cut_off_are_read_too(tmp_path: Path) -> None:
    """DeepSeek-V3 has matrices of 576 rows in blocks of 128, which transformers refuses."""
    model = published.model_of("deepseek_v3", kv_lora_rank=12)
    model.save_pretrained(tmp_path)
    published.to_fp8(tmp_path, cut_blocks=True)
    stage = StageModel.load(tmp_path, 0, 6, kv_budget_bytes=0)
    name = "model.layers.1.self_attn.kv_a_proj_with_mqa.weight"
    read, original = stage.module.state_dict()[name], model.state_dict()[name]
    assert len(read) % 8 and read.shape == original.shape
    assert ((read - original).abs() <= original.abs() / 16 + 0.01).all()  # 3 bits of fraction


def test_fp8_scales_are_not_rounded_before_they_are_used(tmp_path: Path) -> None:
    folder = saved("llama", tmp_path)
    published.to_fp8(folder)
    whole = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    assert unequal(tiny.load_slices(folder, CUTS, dtype="bfloat16"), whole) == []


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_mxfp4_is_what_transformers_makes_of_it(dtype: str, tmp_path: Path) -> None:
    folder = saved("gpt_oss", tmp_path)
    published.to_mxfp4(folder)
    options = {"dtype": getattr(torch, dtype), "quantization_config": Mxfp4Config(dequantize=True)}
    whole = AutoModelForCausalLM.from_pretrained(folder, **options).eval()
    stages = tiny.load_slices(folder, CUTS, dtype=dtype)
    assert unequal(stages, whole) == []
    if dtype == "float32":
        assert tiny.sliced(stages, tiny.prompts(), 6) == tiny.whole(whole, tiny.prompts(), 6)


@pytest.mark.parametrize(("family", "quantise"), [("qwen3_moe", published.to_fp8), ("gpt_oss", published.to_mxfp4)])
def test_a_worker_without_the_folder_fetches_the_quantised_bytes_of_its_slice(
    family: str, quantise: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = saved(family, tmp_path / "model")
    quantise(folder)  # type: ignore[operator]
    manifest = manifest_of(folder, tmp_path)
    read: set[str] = set()
    fill_memory = StoredTensor._fill
    monkeypatch.setattr(StoredTensor, "_fill", lambda self, parts: (read.add(self.name), fill_memory(self, parts))[1])
    stages = []
    for start, stop in itertools.pairwise(CUTS):
        cache = WeightCache(tmp_path / f"cache-{start}")
        weights = CachedWeights(manifest, cache)
        names = names_needed(weights, start, stop, "float32")
        assert any(name.endswith(("_scale_inv", "_scales")) for name in names)
        fill(cache, folder, manifest, names)
        read.clear()
        stages.append(StageModel.load(weights, start, stop, kv_budget_bytes=tiny.KV_BYTES))
        assert read == names
    asked = tiny.prompts((5, 3))
    assert tiny.sliced(stages, asked, 4) == tiny.sliced(tiny.load_slices(folder, (0, 6)), asked, 4)


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, "GPTQ, 4 bit"),
        ({"quant_method": "awq", "bits": 4}, "AWQ, 4 bit"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes, 4 bit"),
        ({"load_in_8bit": True}, "bitsandbytes, 8 bit"),
        ({"quant_method": "compressed-tensors", "format": "pack-quantized"}, "compressed-tensors"),
        ({"quant_method": "fbgemm_fp8"}, "FBGEMM fp8"),
        ({"quant_method": "something-new"}, "something-new"),
    ],
)
@pytest.mark.parametrize("inside", [False, True])
def test_what_is_not_read_is_named_before_anything_is_loaded(stated: dict[str, object], said: str, inside: bool, tmp_path: Path) -> None:
    folder = saved("llama", tmp_path / "m")
    held = {"quantization_config": stated}
    published.edit_config(folder, **({"text_config": held} if inside else held))
    with pytest.raises(NotSupported, match="is not read") as caught:
        resolve(ModelRef(str(folder)), cache_dir=tmp_path)
    message = str(caught.value)
    assert f"({said})" in message and "GGUF" in message and len(message) < 300 + len(str(folder))


def test_mlx_is_named(tmp_path: Path) -> None:
    assert "MLX" in quantised.refusal(quantised.quantisation({"model_type": "llama", "quantization": {"group_size": 64, "bits": 4}}))
    assert quantised.refusal(quantised.quantisation({"model_type": "llama"})) == ""
