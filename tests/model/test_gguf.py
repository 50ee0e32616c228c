"""GGUF files: read tensor by tensor, equal to what transformers makes of them, and refused where they say more than is restored."""

from __future__ import annotations

import builtins
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from engine.data.errors import Corrupt, InvalidInput, NoodleError, NotFound, NotSupported
from engine.data.model import ModelRef
from engine.model.formats import gguf_folder, gguf_index
from engine.model.running.loading import names_needed
from engine.model.running.stage import StageModel
from engine.model.sources import hub
from engine.model.sources.card import prepare, ready_card
from engine.model.sources.source import resolve
from engine.model.weights.cached_weights import CachedWeights
from engine.model.weights.manifest import TensorEntry, manifest_of
from engine.model.weights.stored_tensor import dequantised
from engine.model.weights.tensor_files import stored_bytes
from engine.model.weights.weight_cache import WeightCache
from engine.model.weights.weight_folder import WeightFolder
from tests.model import published, tiny
from tests.model.test_cached_weights import fill

CUTS = (0, 2, 4, 6)
MIXED = ("Q8_0", "Q4_0", "F16", "Q5_1", "BF16", "Q4_1", "Q5_0")
FAMILIES: dict[str, dict[str, Any]] = {
    **{family: {} for family in ("llama", "phi3", "qwen2", "qwen3", "starcoder2")},
    "gpt2": {"n_embd": 64},
    "qwen3_moe": {"norm_topk_prob": True},
}


def written(tmp_path: Path, family: str = "llama", kinds: tuple[str, ...] = ("F32",), **more: Any) -> tuple[Any, Path]:
    model = published.model_of(family, **FAMILIES[family])
    file = tmp_path / "m.gguf"
    published.write_gguf(model, file, kinds, **more)
    return model, file


def folder_of(file: Path, tmp_path: Path) -> Path:
    return Path(prepare(ModelRef(str(file)), tmp_path / "cache").folder)


def test_every_architecture_that_is_taken_is_tried_here() -> None:
    assert {family.replace("_", "") for family in FAMILIES} == set(gguf_folder.ARCHITECTURES)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_file_of_plain_numbers_answers_as_the_model_that_it_was_made_from(family: str, tmp_path: Path) -> None:
    model, file = written(tmp_path, family)
    card = prepare(ModelRef(str(file)), tmp_path / "cache")
    assert card.num_parameters == sum(p.numel() for p in model.parameters())
    stages = tiny.load_slices(Path(card.folder), CUTS)
    assert tiny.sliced(stages, tiny.prompts(), 6) == tiny.whole(model, tiny.prompts(), 6)


@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_become_the_numbers_that_transformers_makes_of_them(family: str, tmp_path: Path) -> None:
    model, file = written(tmp_path, family, MIXED)
    expected = load_gguf_checkpoint(str(file), return_tensors=True, model_to_load=model)["tensors"]
    stages = tiny.load_slices(folder_of(file, tmp_path), CUTS)
    held = [(name, tensor) for stage in stages for name, tensor in stage.module.state_dict().items() if not tensor.is_meta]
    tied = [name for name, _ in held if name not in expected]
    assert set(tied) <= {"lm_head.weight"} and len(held) > 20
    assert [name for name, tensor in held if name not in tied and not torch.equal(tensor, expected[name])] == []


def test_from_pretrained_itself_gives_the_same_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoModelForCausalLM

    monkeypatch.setattr("transformers.modeling_utils.is_accelerate_available", lambda *_: True)  # asked for and not used
    _, file = written(tmp_path, "llama", MIXED)
    whole = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=file.name, dtype=torch.float32).eval()
    stages = tiny.load_slices(folder_of(file, tmp_path), CUTS)
    assert tiny.sliced(stages, tiny.prompts(), 6) == tiny.whole(whole, tiny.prompts(), 6)


@pytest.mark.parametrize("kind", sorted({*gguf_index.BLOCKS} - {"MXFP4"}))
def test_every_block_type_is_read_in_pieces_as_at_once(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random bytes are blocks too; the few that mean infinity are left out."""
    assert gguf_index.BLOCKS[kind] == gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    raw = np.random.default_rng(1).integers(0, 60, (9, stored_bytes(kind, (512,))), dtype=np.uint8)
    expected = torch.from_numpy(gguf.dequantize(raw, gguf.GGMLQuantizationType[kind]))

    def add(writer: gguf.GGUFWriter) -> None:
        writer.add_tensor("odd", raw, raw_dtype=gguf.GGMLQuantizationType[kind])

    _, file = written(tmp_path, more=add)
    folder = Path(resolve(ModelRef(str(file)), cache_dir=tmp_path / "cache"))
    monkeypatch.setattr("engine.model.weights.stored_tensor.CHUNK_BYTES", 1000)
    stored, target = WeightFolder(folder).tensor("odd"), torch.empty(9, 512, dtype=torch.bfloat16)
    stored.read_into(target)
    assert torch.equal(stored.read(), expected) and torch.equal(target, expected.bfloat16())


def test_a_slice_travels_as_the_blocks_of_the_file(tmp_path: Path) -> None:
    _, file = written(tmp_path, "qwen3_moe", MIXED)
    folder = folder_of(file, tmp_path)
    manifest = manifest_of(folder, tmp_path)
    stages = []
    for start, stop in itertools.pairwise(CUTS):
        cache = WeightCache(tmp_path / f"weights-{start}")
        weights = CachedWeights(manifest, cache)
        names = names_needed(weights, start, stop, "float32")
        fill(cache, folder, manifest, names)
        stages.append(StageModel.load(weights, start, stop, kv_budget_bytes=tiny.KV_BYTES))
        assert cache.size().num_bytes <= sum(entry.num_bytes for entry in manifest.tensors if entry.name in names)
    asked = tiny.prompts((5, 3))
    assert tiny.sliced(stages, asked, 4) == tiny.sliced(tiny.load_slices(folder, (0, 6)), asked, 4)


def test_the_frequencies_of_llama_3_are_kept(tmp_path: Path) -> None:
    """llama.cpp stores what each rotary frequency is divided by as a tensor, which transformers leaves out."""
    config = tiny.tiny_config("llama")
    config.hidden_size, config.intermediate_size, config.max_position_embeddings = 64, 96, 4096
    scaling = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    config.rope_parameters = {"rope_type": "llama3", "rope_theta": 5e5, **scaling}
    plain = 1 / 5e5 ** (torch.arange(0, config.head_dim, 2) / config.head_dim)
    factors = plain / ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")[0]
    assert factors.max() > 2
    model, file = tiny.random_model(config), tmp_path / "m.gguf"
    published.write_gguf(model, file, more=lambda writer: writer.add_tensor("rope_freqs.weight", factors.numpy()))
    card = prepare(ModelRef(str(file)), tmp_path / "cache")
    assert card.context_tokens == 4096
    stages = tiny.load_slices(Path(card.folder), CUTS)
    assert tiny.sliced(stages, tiny.prompts(), 6) == tiny.whole(model, tiny.prompts(), 6)


def test_the_tokenizer_and_the_ends_of_an_answer_come_from_the_file(tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    def add(writer: gguf.GGUFWriter) -> None:
        letters = [chr(c) for c in range(33, 127)]
        writer.add_tokenizer_model("gpt2")
        writer.add_token_list([*letters, "ab", "<|end|>", "<|turn|>"])
        writer.add_token_types([1] * (len(letters) + 1) + [3, 3])
        writer.add_token_merges(["a b"])
        writer.add_eos_token_id(len(letters) + 1)
        writer.add_eot_token_id(len(letters) + 2)

    _, file = written(tmp_path, "qwen2", more=add)
    card = prepare(ModelRef(str(file)), tmp_path / "cache")
    assert card.eos_token_ids == (95, 96)
    tokenizer = Tokenizer.from_file(str(Path(card.folder) / "tokenizer.json"))
    assert tokenizer.encode("ab!").ids == [94, 0] and tokenizer.encode("<|turn|>").ids == [96]


def test_it_is_made_once_and_then_takes_no_torch(tmp_path: Path) -> None:
    _, file = written(tmp_path)
    ref = ModelRef(str(file))
    assert ready_card(ref, tmp_path / "cache") is None
    assert not (tmp_path / "cache").exists(), "a question that must be quick makes nothing"
    card = prepare(ref, tmp_path / "cache")
    assert ready_card(ref, tmp_path / "cache") == card
    assert [path.name for path in (tmp_path / "cache" / "gguf").iterdir()] == [Path(card.folder).name]


def test_a_folder_with_one_gguf_file_is_that_file_and_several_must_be_named(tmp_path: Path) -> None:
    _, file = written(tmp_path)
    assert resolve(ModelRef(str(tmp_path)), cache_dir=tmp_path / "cache") == folder_of(file, tmp_path)
    (tmp_path / "n.gguf").write_bytes(file.read_bytes())
    with pytest.raises(InvalidInput, match=r"2 GGUF files \(m\.gguf, n\.gguf\): name one"):
        resolve(ModelRef(str(tmp_path)), cache_dir=tmp_path / "cache")


def test_a_repository_of_the_hub_cache_may_hold_a_gguf_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, file = written(tmp_path)
    monkeypatch.setattr(hub, "cached_snapshot", lambda repo_id: tmp_path if repo_id == "someone/model-GGUF" else None)
    assert resolve(ModelRef("someone/model-GGUF"), cache_dir=tmp_path / "cache") == folder_of(file, tmp_path)


def test_a_file_that_changes_is_noticed(tmp_path: Path) -> None:
    _, file = written(tmp_path)
    folder = folder_of(file, tmp_path)
    other = published.model_of("llama")
    with torch.no_grad():
        other.lm_head.weight.add_(1)
    published.write_gguf(other, file)
    with pytest.raises(Corrupt, match="has changed"):
        WeightFolder(folder)
    assert folder_of(file, tmp_path) != folder
    file.unlink()
    with pytest.raises(NotFound, match=r"m\.gguf is gone"):
        WeightFolder(folder)


REFUSED: dict[str, tuple[Callable[[gguf.GGUFWriter], object], str]] = {
    "a key that is not restored": (lambda w: w.add_logit_scale(0.5), r"llama\.logit_scale = 0\.5"),
    "scaled positions": (lambda w: w.add_rope_scaling_type(gguf.RopeScalingType.YARN), r"rope\.scaling\.type = yarn"),
    "experts": (lambda w: w.add_expert_count(8), r"llama\.expert_count = 8"),
    "one part of several": (lambda w: w.add_uint16("split.count", 3), "llama-gguf-split --merge"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_nothing_in_a_file_is_passed_over(case: str, tmp_path: Path) -> None:
    more, said = REFUSED[case]
    _, file = written(tmp_path, more=more)
    with pytest.raises(NotSupported, match=said):
        prepare(ModelRef(str(file)), tmp_path / "cache")


def test_a_tensor_without_a_place_is_refused_and_one_that_lacks_is_named(tmp_path: Path) -> None:
    _, file = written(tmp_path, more=lambda w: w.add_tensor("blk.0.attn_q.bias", np.ones(64, np.float32)))
    with pytest.raises(NotSupported, match=r"no place for 1 of its tensors, such as 'blk\.0\.attn_q\.bias'"):
        prepare(ModelRef(str(file)), tmp_path / "cache")


def test_other_architectures_are_named(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(str(tmp_path / "g.gguf"), "gemma3")
    writer.add_tensor("x", np.ones(4, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(NotSupported, match="architecture 'gemma3', which is not read"):
        resolve(ModelRef(str(tmp_path / "g.gguf")), cache_dir=tmp_path / "cache")


@pytest.mark.parametrize("num_bytes", [4, 40, 900, -100])
def test_a_file_that_was_cut_short_is_corrupt(num_bytes: int, tmp_path: Path) -> None:
    _, file = written(tmp_path)
    file.write_bytes(file.read_bytes()[:num_bytes])
    with pytest.raises(Corrupt, match="cut short or damaged"):
        resolve(ModelRef(str(file)), cache_dir=tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("gguf/*"))


def test_without_the_package_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, file = written(tmp_path)
    real_import = builtins.__import__

    def without(name: str, *args: Any, **options: Any) -> Any:
        if name == "gguf":
            raise ImportError("No module named 'gguf'")
        return real_import(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(NotSupported, match=r"noodlecore\[gguf\]"):
        resolve(ModelRef(str(file)), cache_dir=tmp_path / "cache")
    with pytest.raises(NotSupported, match=r"noodlecore\[gguf\]"):
        dequantised(torch.zeros(1, 34, dtype=torch.uint8), "Q8_0", (32,))


@pytest.mark.parametrize(("dtype", "shape"), [("Q8_0", (33,)), ("Q8_0", ()), ("Q9_9", (32,)), ("Q8_0", (2, -32))])
def test_a_manifest_that_names_impossible_blocks_is_refused(dtype: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(NoodleError, match="cannot be one"):
        TensorEntry("w", dtype, shape, 34, b"x" * 32)


def test_the_index_is_checked_when_it_is_read(tmp_path: Path) -> None:
    _, file = written(tmp_path)
    folder = folder_of(file, tmp_path)
    content = json.loads((folder / gguf_index.INDEX).read_text())
    (folder / gguf_index.INDEX).write_text(json.dumps(content | {"tensors": [["x", "F32", "nonsense", 0]]}))
    with pytest.raises(Corrupt, match="is damaged"):
        WeightFolder(folder)
