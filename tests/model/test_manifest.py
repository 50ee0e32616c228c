"""Manifests: what they say of a folder, that they are remade when it changes, and what another machine may not claim in one."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from engine.data.errors import Corrupt
from engine.model.weights.manifest import MAX_CONFIG_BYTES, Manifest, TensorEntry, manifest_of
from engine.model.weights.weight_folder import WeightFolder
from tests.model import tiny

HASH = bytes(32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpt2")
    tiny.random_model(tiny.tiny_config("gpt2")).save_pretrained(folder)
    return folder


def test_every_tensor_is_there_with_the_hash_of_its_bytes(folder: Path, tmp_path: Path) -> None:
    found = manifest_of(folder, tmp_path)
    tensors = load_file(folder / "model.safetensors")
    assert {t.name for t in found.tensors} == set(tensors) and found.fingerprint == WeightFolder(folder).fingerprint
    for entry in found.tensors:
        data = tensors[entry.name].contiguous().numpy().tobytes()
        assert (entry.sha256, entry.num_bytes, entry.shape) == (hashlib.sha256(data).digest(), len(data), tuple(tensors[entry.name].shape))


def test_hashes_are_kept_and_made_again_when_the_files_change(folder: Path, tmp_path: Path) -> None:
    """Other weights under the same headers have the same fingerprint; the hashes must not stay those of the old ones."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    said: list[str] = []
    first = manifest_of(copy, tmp_path, lambda done, text: said.append(text))
    assert said and said[0].startswith("hashing weights, 0 of")
    said.clear()
    assert manifest_of(copy, tmp_path, lambda done, text: said.append(text)) == first and not said
    tensors = load_file(copy / "model.safetensors")
    changed = "transformer.h.0.attn.c_attn.weight"
    tensors[changed] += 1
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    os.utime(copy / "model.safetensors", ns=(1, 1))
    second = manifest_of(copy, tmp_path, lambda done, text: said.append(text))
    assert said and second.fingerprint == first.fingerprint
    assert [a.name for a, b in zip(first.tensors, second.tensors, strict=True) if a != b] == [changed]


@pytest.mark.parametrize(
    "entry",
    [
        ("", "F32", (1,), 4, HASH),
        ("x" * 513, "F32", (1,), 4, HASH),
        ("a\x1b[2J", "F32", (1,), 4, HASH),
        ("a", "F4", (1,), 4, HASH),
        ("a", "F32", (-1, -1), 4, HASH),
        ("a", "F32", (2,), 4, HASH),
        ("a", "F32", (2**60, 2**60), 2**122, HASH),
        ("a", "F32", (1,) * 17, 4, HASH),
        ("a", "F32", (1,), 4, b"../../../etc/passwd"),
    ],
)
def test_an_entry_that_cannot_be_is_refused(entry: tuple[str, str, tuple[int, ...], int, bytes]) -> None:
    with pytest.raises(Corrupt, match="manifest"):
        TensorEntry(*entry)


def test_a_manifest_that_cannot_be_is_refused() -> None:
    one = TensorEntry("a", "F32", (1,), 4, HASH)
    with pytest.raises(Corrupt, match="twice"):
        Manifest("f", b"{}", (one, one))
    with pytest.raises(Corrupt, match=str(MAX_CONFIG_BYTES)):
        Manifest("f", b" " * (MAX_CONFIG_BYTES + 1), (one,))
