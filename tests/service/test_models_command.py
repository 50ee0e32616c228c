"""The list of models: what is in the caches, what can run, and why the rest cannot."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from engine.model.sources import hub
from engine.model.sources.inventory import list_architectures, list_models


def model_folder(folder: Path, config: object, weight_bytes: int = 100) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    if weight_bytes:
        (folder / "model.safetensors").write_bytes(b"x" * weight_bytes)


def hub_model(cache: Path, repo_id: str, config: object, weight_bytes: int = 100) -> None:
    root = cache / hub.repo_folder(repo_id)
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text("a" * 40)
    model_folder(root / "snapshots" / ("a" * 40), config, weight_bytes)


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub, "hub_cache_dir", lambda: tmp_path / "hub")
    return tmp_path


def test_nothing_here_is_an_empty_list(caches: Path) -> None:
    assert list_models(caches / "noodle") == []


def test_random_models_are_listed_as_they_are_typed(caches: Path) -> None:
    random = caches / "noodle" / "random"
    model_folder(random / "gpt2.tiny.seed-7.float32.v1", {"model_type": "gpt2", "dtype": "float32"}, 123)
    model_folder(random / "llama.full.seed-0.bfloat16.v1", {"model_type": "llama"})
    model_folder(random / "opt.full.seed-0.bfloat16.v1.partial", {"model_type": "opt"})
    (random / "gpt2.tiny.seed-7.float32.v1.lock").write_text("")
    tiny, full = list_models(caches / "noodle")
    assert (tiny.model, tiny.random_weights, tiny.dtype, tiny.size_bytes) == ("gpt2:tiny", 7, "float32", 123)
    assert tiny.supported and tiny.reason == "" and tiny.label == "gpt2:tiny (random weights, seed 7)"
    assert (full.model, full.random_weights) == ("llama", 0)


@pytest.mark.parametrize(
    ("config", "weight_bytes", "reason"),
    [
        ({"model_type": "gpt2"}, 100, ""),
        ({"model_type": "phi3", "auto_map": {"AutoConfig": "configuration_phi3.Phi3Config"}}, 100, ""),
        ({"model_type": "no_such_family", "auto_map": {"AutoConfig": "x.X"}}, 100, "'no_such_family' is not supported"),
        ({"model_type": "gpt2", "quantization_config": {"quant_method": "gptq", "bits": 4}}, 100, "GPTQ, 4 bit"),
        ({"model_type": "gpt_oss", "quantization_config": {"quant_method": "mxfp4"}}, 100, ""),
        ({"model_type": "no_such_family"}, 100, "'no_such_family' is not supported"),
        ({"model_type": "gpt2"}, 0, "safetensors"),
        ({}, 100, "model_type"),
    ],
)
def test_hub_models_say_whether_they_can_run(caches: Path, config: object, weight_bytes: int, reason: str) -> None:
    hub_model(caches / "hub", "some/model", config, weight_bytes)
    (caches / "hub" / "datasets--a--b").mkdir()
    (entry,) = list_models(caches / "noodle")
    assert (entry.model, entry.random_weights, entry.size_bytes) == ("some/model", None, weight_bytes)
    assert entry.supported == (reason == "")
    assert reason in entry.reason


def test_architectures_include_the_default_one() -> None:
    assert "gpt2" in list_architectures() and list_architectures() == sorted(list_architectures())


def test_listing_imports_no_torch(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from engine.model.sources.inventory import list_models, list_architectures\n"
        "list_models(Path(sys.argv[1])); list_architectures(); print('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    output = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True).stdout
    assert output.split() == ["False", "False"]
