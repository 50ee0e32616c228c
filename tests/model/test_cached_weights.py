"""Models read from the cache: a slice needs exactly what it reads, answers the same, and takes no damaged tensor."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from engine.data.errors import NotSupported
from engine.data.model import ModelRef
from engine.model.profiling.workload import CausalWorkload
from engine.model.running.loading import names_needed
from engine.model.running.stage import StageModel
from engine.model.sources.card import describe
from engine.model.weights.cached_weights import CachedWeights
from engine.model.weights.manifest import Manifest, manifest_of
from engine.model.weights.stored_tensor import DamagedTensor, StoredTensor
from engine.model.weights.weight_cache import WeightCache
from engine.model.weights.weight_folder import WeightFolder
from tests.model import tiny

CUTS = (0, 2, 4, 6)


def saved(family: str, folder: Path) -> Path:
    tiny.random_model(tiny.tiny_config(family)).save_pretrained(folder)
    return folder


def fill(cache: WeightCache, folder: Path, manifest: Manifest, names: frozenset[str]) -> None:
    """What a fetch leaves: the named tensors as entries."""
    source = WeightFolder(folder)
    for entry in manifest.tensors:
        if entry.name in names and not cache.has(entry):
            place = source.tensor(entry.name)
            partial = cache.begin(entry)
            partial.append(place.file.read_bytes()[place.offset_bytes : place.offset_bytes + place.num_bytes])
            partial.finish()


# Plain; tied tables; experts stored one by one and merged; older names; a tied table under the head's name.
@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral", "gemma2", "opt", "qwen2_moe", "gpt_neox"])
def test_a_slice_reads_what_it_is_said_to_need_and_answers_like_the_whole(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = saved(family, tmp_path / "model")
    manifest = manifest_of(folder, tmp_path)
    read: set[str] = set()
    fill_memory = StoredTensor._fill
    monkeypatch.setattr(StoredTensor, "_fill", lambda self, parts: (read.add(self.name), fill_memory(self, parts))[1])
    stages = []
    for start, stop in itertools.pairwise(CUTS):
        cache = WeightCache(tmp_path / f"cache-{start}")
        weights = CachedWeights(manifest, cache)
        names = names_needed(weights, start, stop, "float32")
        fill(cache, folder, manifest, names)
        read.clear()
        stages.append(StageModel.load(weights, start, stop, kv_budget_bytes=tiny.KV_BYTES))
        assert read == names
    asked = tiny.prompts((5, 3))
    assert tiny.sliced(stages, asked, 6) == tiny.sliced(tiny.load_slices(folder, (0, 6)), asked, 6)


def test_items_in_memory_need_nothing(tmp_path: Path) -> None:
    folder = saved("gpt2", tmp_path / "model")
    manifest = manifest_of(folder, tmp_path)
    cache = WeightCache(tmp_path / "cache")
    weights = CachedWeights(manifest, cache)
    fill(cache, folder, manifest, names_needed(weights, 0, 3, "float32"))
    first = StageModel.load(weights, 0, 3, kv_budget_bytes=tiny.KV_BYTES)
    held = first.items_for(manifest.fingerprint, "float32", "cpu")
    assert held == range(0, 3) and first.items_for(manifest.fingerprint, "bfloat16", "cpu") == range(0)
    more = names_needed(weights, 0, 4, "float32", held)
    assert more == {name for name in weights.names if ".h.2." in name}
    fill(cache, folder, manifest, more)
    second = StageModel.load(weights, 0, 4, kv_budget_bytes=tiny.KV_BYTES, reuse=first)
    head = names_needed(weights, 0, 6, "float32", range(0, 5))
    assert head == {"transformer.ln_f.weight", "transformer.ln_f.bias"}, "the head shares the table that is in memory"
    assert second.bytes_beyond(first) == sum(t.num_bytes for t in manifest.tensors if t.name in more)


@pytest.mark.parametrize("damage", ["flip", "short", "gone"])
def test_a_damaged_entry_never_becomes_a_weight(tmp_path: Path, damage: str) -> None:
    folder = saved("llama", tmp_path / "model")
    manifest = manifest_of(folder, tmp_path)
    cache = WeightCache(tmp_path / "cache")
    weights = CachedWeights(manifest, cache)
    fill(cache, folder, manifest, weights.names)
    victim = next(t for t in manifest.tensors if "layers.1" in t.name and "up_proj" in t.name)
    path = cache.path(victim.sha256)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()
    if damage != "gone":
        path.write_bytes(data if damage == "flip" else data[:-4])
    with pytest.raises(DamagedTensor) as found:
        StageModel.load(weights, 0, 6, kv_budget_bytes=tiny.KV_BYTES)
    assert found.value.tensor.sha256 == victim.sha256


def test_code_of_another_machine_is_not_run(tmp_path: Path) -> None:
    config_text = b'{"model_type": "llama", "auto_map": {"AutoModelForCausalLM": "evil.Model"}}'
    with pytest.raises(NotSupported, match="auto_map"):
        CachedWeights(Manifest("f", config_text, ()), WeightCache(tmp_path))


def test_a_model_of_which_only_the_configuration_is_here_can_be_timed(tmp_path: Path) -> None:
    """Same items, same number of parameters, and it takes a step."""
    ref = ModelRef("gpt2")
    folder = saved("gpt2", tmp_path / "model")
    config = WeightCache(tmp_path / "cache").config_folder((folder / "config.json").read_bytes())
    made_up, real = CausalWorkload.made_up(config, ref, device="cpu"), describe(folder, ref)
    assert (made_up.card.items, made_up.card.num_parameters) == (real.items, real.num_parameters)
    point = made_up.probe_point(4)
    made_up.reserve([point])
    assert made_up.step_at(point)().shape == (1, tiny.VOCABULARY)
