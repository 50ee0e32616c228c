"""Weight folders: what is refused and how it is said, real-world layouts, and what a slice reads."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.data.errors import Corrupt, InvalidInput, NoodleError, NotFound, NotSupported
from engine.model.running.stage import StageModel
from engine.model.sources.description import describe_model
from engine.model.weights.stored_tensor import StoredTensor
from engine.model.weights.weight_folder import WeightFolder
from tests.model import tiny

FILE = "model.safetensors"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpt2")
    tiny.random_model(tiny.tiny_config("gpt2")).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    for file in pristine.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def edit_config(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def cut_file(folder: Path, num_bytes: int) -> None:
    (folder / FILE).write_bytes((folder / FILE).read_bytes()[:num_bytes])


def only_pickle(folder: Path) -> None:
    (folder / FILE).unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02")


def write_index(folder: Path, file: str) -> None:
    (folder / FILE).rename(folder / "model-00001-of-00001.safetensors")
    names = WeightFolder(folder).names
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": dict.fromkeys(names, file)}))


def wrong_offsets(folder: Path) -> None:
    raw = (folder / FILE).read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = re.sub(rb'"shape":\[\d+', lambda m: m.group()[:-1] + b"9", raw[8 : 8 + size], count=1)
    (folder / FILE).write_bytes(raw[:8] + header + raw[8 + size :])


BROKEN: dict[str, tuple[Callable[[Path], object], type[NoodleError], str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), NotFound, "config.json"),
    "config is not JSON": (lambda f: (f / "config.json").write_text("{"), InvalidInput, "not JSON"),
    "no model type": (lambda f: (f / "config.json").write_text("{}"), InvalidInput, "model_type"),
    "unknown model type": (lambda f: edit_config(f, model_type="made_up"), NotSupported, "made_up"),
    "own code": (lambda f: edit_config(f, auto_map={"AutoModel": "evil.Model"}), NotSupported, "auto_map"),
    "no weights": (lambda f: (f / FILE).unlink(), NotFound, "safetensors"),
    "pickle only": (only_pickle, NotSupported, "pytorch_model.bin"),
    "cut in the data": (lambda f: cut_file(f, -100), Corrupt, FILE),
    "cut in the header": (lambda f: cut_file(f, 200), Corrupt, FILE),
    "empty file": (lambda f: cut_file(f, 0), Corrupt, FILE),
    "shape and length differ": (wrong_offsets, Corrupt, "damaged"),
    "index names a missing file": (lambda f: write_index(f, "model-00002-of-00002.safetensors"), Corrupt, "00002"),
    "index leaves the folder": (lambda f: write_index(f, "../model.safetensors"), Corrupt, r"\.\./model"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_folders_are_refused_with_the_reason(name: str, folder: Path) -> None:
    damage, error, words = BROKEN[name]
    damage(folder)
    with pytest.raises(error, match=words):
        WeightFolder(folder)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="nowhere"):
        WeightFolder(tmp_path / "nowhere")


def test_fingerprint_depends_on_config_and_headers_only(folder: Path) -> None:
    before = WeightFolder(folder).fingerprint
    assert WeightFolder(folder).fingerprint == before
    edit_config(folder, layer_norm_epsilon=1e-3)
    assert WeightFolder(folder).fingerprint != before


@pytest.mark.parametrize("prefix_removed", [False, True])
def test_a_missing_tensor_of_the_slice_is_named_and_others_do_not_matter(folder: Path, prefix_removed: bool) -> None:
    tensors = load_file(folder / FILE)
    del tensors["transformer.h.2.mlp.c_fc.weight"]
    if prefix_removed:
        tensors = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    save_file(tensors, folder / FILE)
    StageModel.load(folder, 0, 3, kv_budget_bytes=0)
    with pytest.raises(Corrupt, match=r"h\.2\.mlp\.c_fc\.weight"):
        StageModel.load(folder, 2, 4, kv_budget_bytes=0)


def test_a_tensor_of_the_wrong_shape_is_named(folder: Path) -> None:
    tensors = load_file(folder / FILE)
    tensors["transformer.h.1.ln_1.weight"] = torch.ones(5)
    save_file(tensors, folder / FILE)
    with pytest.raises(Corrupt, match=r"h\.1\.ln_1\.weight.*\(5,\)"):
        StageModel.load(folder, 2, 3, kv_budget_bytes=0)


@pytest.mark.parametrize(
    ("family", "rename"),
    [
        ("gpt2", lambda name: name.removeprefix("transformer.")),
        ("llama", lambda name: name.removeprefix("model.")),
        ("mixtral", lambda name: name),  # save_pretrained writes the published layout: one tensor per expert
        ("qwen2_moe", lambda name: name),
    ],
)
def test_published_layouts_load(family: str, rename: Callable[[str], str], tmp_path: Path) -> None:
    model = tiny.random_model(tiny.tiny_config(family))
    model.save_pretrained(tmp_path)
    tensors = {rename(name): tensor for name, tensor in load_file(tmp_path / FILE).items()}
    assert family not in ("mixtral", "qwen2_moe") or any("experts.3." in name for name in tensors)
    save_file(tensors, tmp_path / FILE)
    asked = tiny.prompts()
    assert tiny.sliced(tiny.load_slices(tmp_path, (0, 2, 4, 6)), asked, 5) == tiny.whole(model, asked, 5)


def test_sharded_folders_load(tmp_path: Path) -> None:
    model = tiny.random_model(tiny.tiny_config("llama"))
    model.save_pretrained(tmp_path, max_shard_size="30KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 3
    asked = tiny.prompts()
    assert tiny.sliced(tiny.load_slices(tmp_path, (0, 3, 6)), asked, 5) == tiny.whole(model, asked, 5)


def test_only_the_slice_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    original = StoredTensor.read_into

    def spy(self: StoredTensor, target: torch.Tensor) -> None:
        read.append(self.name)
        original(self, target)

    monkeypatch.setattr(StoredTensor, "read_into", spy)
    stage = StageModel.load(folder, 2, 4, kv_budget_bytes=0)
    assert {name.split(".")[2] for name in read} == {"1", "2"}
    assert sum(WeightFolder(folder).tensor(name).num_bytes for name in read) == stage.weight_bytes
    read.clear()
    grown = StageModel.load(folder, 1, 5, kv_budget_bytes=0, reuse=stage)
    assert {name.split(".")[2] for name in read} == {"0", "3"}
    assert grown.weight_bytes == 2 * stage.weight_bytes


def test_items_describe_bytes_and_ties(folder: Path) -> None:
    weights = WeightFolder(folder)
    items = describe_model(weights, "float32").items
    assert [item.name for item in items] == ["embed", "h.0", "h.1", "h.2", "h.3", "head"]
    stages = [StageModel.load(folder, i, i + 1, kv_budget_bytes=0) for i in range(len(items))]
    assert [item.weight_bytes for item in items] == [stage.weight_bytes for stage in stages]
    assert [item.kv_bytes_per_token for item in items] == [stage.kv.bytes_per_token for stage in stages]
    assert (items[0].tied_to, items[5].tied_to, items[0].tied_bytes) == (5, 0, tiny.VOCABULARY * 32 * 4)
    whole = StageModel.load(folder, 0, 6, kv_budget_bytes=0)
    assert whole.weight_bytes == sum(item.weight_bytes for item in items) - items[0].tied_bytes
    assert describe_model(weights, "bfloat16").items[1].weight_bytes == items[1].weight_bytes // 2


def test_large_tensors_are_read_in_pieces_into_any_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.model.weights.stored_tensor.CHUNK_BYTES", 100)
    values = torch.randn(37, 11, dtype=torch.float16)
    save_file({"w": values}, tmp_path / FILE)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    target = torch.empty(11, 37).t()
    WeightFolder(tmp_path).tensor("w").read_into(target)
    assert torch.equal(target, values.float())
