"""Finding model folders: local ones, the hub cache, and random weights that several processes want at once."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from engine.data.errors import Corrupt, Exhausted, InvalidInput, NotFound, NotSupported, Unavailable
from engine.data.model import ModelRef
from engine.folders import cache_folder
from engine.model.sources import hub, random_weights
from engine.model.sources.architectures import architecture_of
from engine.model.sources.source import default_ref, resolve

FAMILIES = ["gpt2", "llama", "qwen3", "mixtral", "qwen2_moe", "gemma2", "gemma3", "opt", "gpt_neox", "phi3", "falcon", "olmo2"]


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty hub cache, and no network: a test that would use it fails by name."""
    from huggingface_hub import constants

    cache = tmp_path / "hub"
    cache.mkdir()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(hub, "hub_cache_dir", lambda: cache)

    def refuse(repo_id: str) -> Path:
        raise Unavailable(f"downloading {repo_id!r} from the hub failed (ConnectError: no network in tests)")

    monkeypatch.setattr(hub, "download", refuse)
    return cache


def write_folder(folder: Path, config: object, weights: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    if weights:
        (folder / "model.safetensors").write_bytes(b"")
    return folder


def fake_snapshot(cache: Path, repo_id: str, files: dict[str, str]) -> Path:
    """A repository in the hub cache's layout: refs/main names the snapshot that is current."""
    root = cache / hub.repo_folder(repo_id)
    commit = hashlib.sha1(repo_id.encode()).hexdigest()
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(commit)
    snapshot = root / "snapshots" / commit
    snapshot.mkdir(parents=True)
    for name, text in files.items():
        (snapshot / name).write_text(text)
    return snapshot


def digest(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


# --- local folders ------------------------------------------------------------------------------------------------
def test_a_local_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "mine", {"model_type": "gpt2"})
    assert resolve(ModelRef(str(folder)), cache_dir=tmp_path) == folder.resolve()


@pytest.mark.parametrize("name", ["/no/such/place", "./nowhere", "../x", "~/nowhere-at-all", "~nobody-here/x", "a/b/c"])
def test_a_path_that_does_not_exist_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # what lies beside the folder that the tests run in is anybody's
    with pytest.raises(NotFound, match="does not exist: give a folder") as caught:
        resolve(ModelRef(name), cache_dir=tmp_path)
    assert repr(name) in str(caught.value)


def test_a_folder_without_config_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"has no config\.json"):
        resolve(ModelRef(str(tmp_path)), cache_dir=tmp_path)


@pytest.mark.parametrize(
    ("config", "index", "error", "text"),
    [
        ({"architectures": ["X"], "auto_map": {"AutoModel": "m.X"}}, None, NotSupported, "never run"),
        ([1, 2], None, Corrupt, "holds a list"),
        ({"model_type": "gpt2"}, {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}, Corrupt, "lacks 2 of 2"),
        ({"model_type": "gpt2"}, None, NotFound, "no safetensors files"),
    ],
)
def test_a_folder_that_cannot_be_a_model_is_refused(config: Any, index: object, error: type[Exception], text: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "m", config, weights=False)
    if index is not None:
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(error, match=text):
        resolve(ModelRef(str(folder)), cache_dir=tmp_path)


def test_a_broken_config_is_corrupt(tmp_path: Path) -> None:
    write_folder(tmp_path / "m", {})
    (tmp_path / "m" / "config.json").write_text('{"model_type": ')
    with pytest.raises(Corrupt, match="cannot be read as JSON"):
        resolve(ModelRef(str(tmp_path / "m")), cache_dir=tmp_path)


# --- the hub ------------------------------------------------------------------------------------------------------
WHOLE = {"config.json": '{"model_type": "gpt2"}', "model.safetensors": ""}


@pytest.mark.parametrize("spelling", ["gpt2", "openai-community/gpt2"])
def test_the_hub_cache_is_used_before_the_network(no_hub: Path, spelling: str, tmp_path: Path) -> None:
    snapshot = fake_snapshot(no_hub, spelling, WHOLE)
    assert resolve(ModelRef("gpt2"), cache_dir=tmp_path) == snapshot.resolve()
    assert default_ref() == ModelRef("gpt2")


def test_without_network_the_error_says_what_was_tried(no_hub: Path, tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as caught:
        resolve(ModelRef("Qwen/Qwen3-0.6B"), cache_dir=tmp_path)
    for part in ("'Qwen/Qwen3-0.6B'", str(no_hub), "ConnectError", "`qwen3 --random-weights 0`"):
        assert part in str(caught.value)


def test_an_unfinished_download_is_not_a_model(no_hub: Path, tmp_path: Path) -> None:
    fake_snapshot(no_hub, "gpt2", {"config.json": WHOLE["config.json"]})
    assert default_ref() == ModelRef("gpt2", random_weights=0)
    with pytest.raises(Unavailable, match="downloads are not allowed"):
        resolve(ModelRef("gpt2"), cache_dir=tmp_path, allow_download=False)


def test_the_offline_variable_is_obeyed_and_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(hub, "download", lambda _: pytest.fail("asked the network"))
    with pytest.raises(Unavailable, match="HF_HUB_OFFLINE forbids"):
        resolve(ModelRef("some/model"), cache_dir=tmp_path)


@pytest.mark.parametrize("name", ["", "a b", "x\x1b[2J", "a..b", "-rf", "models--a--b", "a" * 300, "a\0b"])
def test_names_that_cannot_be_hub_ids_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises((InvalidInput, NotFound)):
        resolve(ModelRef(name), cache_dir=tmp_path)


# --- random weights -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("family", FAMILIES)
def test_a_tiny_model_of_each_family_loads_and_talks(family: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(random_weights, "check_supported", lambda _: None)  # weights are the subject, not slicing
    folder = resolve(ModelRef(f"{family}:tiny", random_weights=0), cache_dir=tmp_path)
    model, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
    outputs = []
    for seed in range(3):
        ids = torch.randint(0, 512, (1, 8), generator=torch.Generator().manual_seed(seed))
        outputs.append(model.eval().generate(ids, max_new_tokens=24, do_sample=False, pad_token_id=0)[0, 8:].tolist())
    assert max(len(set(tokens)) for tokens in outputs) >= 5, "greedy output is stuck on a few tokens"
    assert len({tuple(tokens) for tokens in outputs}) == 3, "the prompt has no influence"


def test_the_seed_alone_decides_the_weights(tmp_path: Path) -> None:
    def made(seed: int, place: str) -> dict[str, str]:
        torch.manual_seed(hash(place))
        return digest(resolve(ModelRef("llama:tiny", random_weights=seed), cache_dir=tmp_path / place))

    assert made(3, "a") == made(3, "b")
    assert made(3, "a")["model.safetensors"] != made(4, "a")["model.safetensors"]


def test_building_leaves_the_global_generator_alone(tmp_path: Path) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    resolve(ModelRef("qwen3:tiny", random_weights=0), cache_dir=tmp_path)
    assert torch.equal(torch.rand(3), expected)


def test_racing_processes_build_once(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from engine.data.model import ModelRef; from engine.model.sources import source\n"
        "f = source.resolve(ModelRef('gpt2:tiny', 5), cache_dir=Path(sys.argv[1])); print((f / 'model.safetensors').stat().st_ino)"
    )

    def run(_: int) -> str:
        return subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True).stdout

    with ThreadPoolExecutor(3) as pool:
        inodes = set(pool.map(run, range(3)))
    assert len(inodes) == 1
    assert [path.name for path in (tmp_path / "random").iterdir() if path.is_dir()] == ["gpt2.tiny.seed-5.float32.v1"]


def test_a_builder_that_died_leaves_nothing_half_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ref = ModelRef("gpt2:tiny", random_weights=0)
    monkeypatch.setattr(random_weights, "save_file", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(Exhausted, match="No space left"):
        resolve(ref, cache_dir=tmp_path)
    monkeypatch.undo()
    assert (resolve(ref, cache_dir=tmp_path) / "model.safetensors").stat().st_size > 100_000
    assert not list((tmp_path / "random").glob("*.partial"))


def test_several_shards_hold_the_same_tensors_as_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(random_weights, "check_supported", lambda _: None)
    ref = ModelRef("mixtral:tiny", random_weights=0)
    whole = AutoModelForCausalLM.from_pretrained(resolve(ref, cache_dir=tmp_path / "one"))
    monkeypatch.setattr(random_weights, "_SHARD_BYTES", 200_000)
    folder = resolve(ref, cache_dir=tmp_path / "many")
    assert len(list(folder.glob("model-*-of-*.safetensors"))) > 3
    parts = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    assert all(torch.equal(parts[name], tensor) for name, tensor in whole.state_dict().items())


def test_half_precision_is_stored_as_such(tmp_path: Path) -> None:
    folder = resolve(ModelRef("llama:tiny", 0, "bfloat16"), cache_dir=tmp_path)
    assert AutoModelForCausalLM.from_pretrained(folder, dtype="auto").dtype == torch.bfloat16


def test_a_model_beyond_this_machine_is_refused_before_anything_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(random_weights, "cpu_memory_bytes", lambda: (2**34, 2**30))
    with pytest.raises(Exhausted, match=r"[\d,]+ bytes of float32 weights, more than .*`llama:tiny`"):
        resolve(ModelRef("llama", random_weights=0), cache_dir=tmp_path)
    assert not [path for path in (tmp_path / "random").iterdir() if path.is_dir()]


def test_a_family_that_cannot_be_sliced_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(NotSupported, match="'bert'"):
        resolve(ModelRef("bert", random_weights=0), cache_dir=tmp_path)
    assert not [path for path in (tmp_path / "random").iterdir() if path.is_dir()]


def test_tiny_means_tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(random_weights, "_MAX_TINY_PARAMETERS", 1000)
    with pytest.raises(NotSupported, match="no tiny config shrinks"):
        resolve(ModelRef("gpt2:tiny", random_weights=0), cache_dir=tmp_path)


@pytest.mark.parametrize(
    ("ref", "text"),
    [
        (ModelRef("openai-community/gpt2", 0), "architecture name, such as `gpt2`"),
        (ModelRef("../x", 0), "architecture name"),
        (ModelRef("lama", 0), "near it: .*lamb|not an architecture"),
        (ModelRef("gpt2", -1), "seed must lie"),
        (ModelRef("gpt2", 0, "int4"), "dtype 'int4'"),
        (ModelRef("gpt2:tiny"), "--random-weights 0"),
    ],
)
def test_requests_that_make_no_sense_say_the_way_out(ref: ModelRef, text: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=text):
        resolve(ref, cache_dir=tmp_path)


def test_familiar_spellings_name_the_family() -> None:
    names = ["GPT-2", "qwen2.5", "Llama-3:tiny", "gemma-2", "gpt_neox"]
    assert [architecture_of(name)[0] for name in names] == ["gpt2", "qwen2", "llama", "gemma2", "gpt_neox"]
    assert architecture_of("Llama-3:tiny")[1]


def test_the_cache_is_where_the_variable_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NOODLE_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("NOODLE_CACHE")
    assert cache_folder().name == "noodlecore"
