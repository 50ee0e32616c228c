"""The safetensors files of a model folder, read by their headers alone: what they hold, where it lies, one fingerprint for all.

Imports no torch, so that the coordinator can serve weights that it never loads. Pickle files are never opened.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.data.errors import Corrupt, NotFound, NotSupported

CONFIG_FILE = "config.json"
SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors format
# Bytes of one number, by the format's name of its dtype.
NUMBER_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}


@dataclass(frozen=True, slots=True)
class TensorPlace:
    """Where one tensor lies, row-major, in its file."""

    name: str
    file: Path
    offset_bytes: int
    num_bytes: int
    dtype: str  # a key of NUMBER_BYTES
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TensorFolder:
    """A model folder's configuration and tensor places. `fingerprint` is sha-256 over config.json and every header."""

    folder: Path
    config_text: bytes
    fingerprint: str
    tensors: Mapping[str, TensorPlace]


def read_folder(folder: Path) -> TensorFolder:
    """Look at every header; reads no weights. Raises NotFound, NotSupported or Corrupt; the messages say the way out."""
    config_text = read_config(folder)
    digest = hashlib.sha256(config_text)
    tensors: dict[str, TensorPlace] = {}
    for file in _weight_files(folder):
        header, found = _read_header(file)
        digest.update(file.name.encode() + b"\0" + header)
        tensors.update(found)
    _check_index(folder, tensors)
    return TensorFolder(folder, config_text, digest.hexdigest(), tensors)


def read_config(folder: Path) -> bytes:
    """The text of config.json. Raises NotFound."""
    if not folder.is_dir():
        raise NotFound(f"{folder} is not a folder: give a folder with {CONFIG_FILE} and safetensors files")
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise NotFound(f"{folder} has no {CONFIG_FILE}: give the folder that save_pretrained wrote")
    return path.read_bytes()


def _weight_files(folder: Path) -> list[Path]:
    index = folder / INDEX_FILE
    if (folder / SINGLE_FILE).is_file():
        return [folder / SINGLE_FILE]
    if index.is_file():
        return [_indexed_file(folder, name) for name in sorted(set(_read_index(index).values()))]
    found = sorted(folder.glob("*.safetensors"))
    if len(found) == 1:
        return found
    if found:
        raise Corrupt(f"{folder} has {len(found)} safetensors files but no {INDEX_FILE}: fetch the index too")
    pickles = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern))
    if pickles:
        raise NotSupported(
            f"{folder} holds only pickle weights ({pickles[0]}), which can run code when loaded: convert them to safetensors first"
        )
    raise NotFound(f"{folder} has no safetensors files: fetch the weights, or use random weights")


def _read_index(index: Path) -> dict[str, str]:
    try:
        weight_map = json.loads(index.read_bytes())["weight_map"]
        return {str(name): str(file) for name, file in weight_map.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Corrupt(f"{index} is not a weight index ({error}): fetch it again") from error


def _indexed_file(folder: Path, name: str) -> Path:
    if os.path.basename(name) != name or not (folder / name).is_file():
        raise Corrupt(f"{folder / INDEX_FILE} names {name!r}, which is not a file of that folder: fetch the missing file")
    return folder / name


def _check_index(folder: Path, tensors: Mapping[str, TensorPlace]) -> None:
    index = folder / INDEX_FILE
    if (folder / SINGLE_FILE).is_file() or not index.is_file():
        return
    for name, file in _read_index(index).items():
        if name not in tensors or tensors[name].file.name != file:
            raise Corrupt(f"{index} says that {file} holds {name!r}, but it does not: fetch index and files of one version")


def _read_header(file: Path) -> tuple[bytes, dict[str, TensorPlace]]:
    """The raw header and its tensors; the lengths in it must account for every byte of the file."""
    file_bytes = file.stat().st_size
    with file.open("rb") as stream:
        prefix = stream.read(8)
        header_bytes = int.from_bytes(prefix, "little")
        if len(prefix) < 8 or not 2 <= header_bytes <= min(MAX_HEADER_BYTES, file_bytes - 8):
            raise Corrupt(f"{file} is not a whole safetensors file ({file_bytes} bytes): fetch it again")
        header = stream.read(header_bytes)
    try:
        entries = {name: entry for name, entry in json.loads(header).items() if name != "__metadata__"}
        tensors = {name: _place(file, name, entry, 8 + header_bytes) for name, entry in entries.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Corrupt(f"{file} has a damaged header ({error}): fetch it again") from error
    end = max((t.offset_bytes + t.num_bytes for t in tensors.values()), default=8 + header_bytes)
    if end != file_bytes:
        raise Corrupt(f"{file} has {file_bytes} bytes, but its header describes {end}: it was cut short or damaged, fetch it again")
    return header, tensors


def _place(file: Path, name: str, entry: dict[str, Any], data_start: int) -> TensorPlace:
    dtype = entry["dtype"]
    if dtype not in NUMBER_BYTES:
        raise NotSupported(f"{file}: tensor {name!r} has dtype {dtype}, which is not supported: use {', '.join(NUMBER_BYTES)}")
    shape = tuple(int(size) for size in entry["shape"])
    begin, end = (int(offset) for offset in entry["data_offsets"])
    if min((begin, *shape), default=0) < 0 or end - begin != math.prod(shape) * NUMBER_BYTES[dtype]:
        raise ValueError(f"tensor {name!r} of shape {shape} cannot lie in bytes [{begin}, {end})")
    return TensorPlace(name, file, data_start + begin, end - begin, dtype, shape)
