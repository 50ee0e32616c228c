"""The safetensors files of a model folder, read by their headers alone: what they hold, where it lies, one fingerprint for all.

Imports no torch, so that the coordinator can serve weights that it never loads. Pickle files are never opened.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.data.errors import Corrupt, NotFound, NotSupported
from engine.files import failure, read_bytes
from engine.model.formats import gguf_index
from engine.model.formats.file_kinds import mistaken, mistaken_weights, other_weights

CONFIG_FILE = "config.json"
SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors format
_SHARD = re.compile(r".+-(?P<number>\d+)-of-(?P<total>\d+)\.safetensors")
# Bytes of one number, by the format's name of its dtype.
NUMBER_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TensorPlace:
    """Where one tensor lies, row-major, in its file."""

    name: str
    file: Path
    offset_bytes: int
    num_bytes: int
    dtype: str  # what `stored_bytes` knows
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TensorFolder:
    """A model folder's configuration and tensor places. `fingerprint` is sha-256 over config.json and every header."""

    folder: Path
    config_text: bytes
    fingerprint: str
    tensors: Mapping[str, TensorPlace]


def stored_bytes(dtype: str, shape: tuple[int, ...]) -> int:
    """How many bytes a tensor takes as it is stored. Raises ValueError for a dtype that is not known, or a row of broken blocks."""
    num_numbers, num_bytes = gguf_index.BLOCKS.get(dtype) or (1, NUMBER_BYTES.get(dtype, 0))
    if not num_bytes or (num_numbers > 1 and (not shape or shape[-1] % num_numbers)):
        raise ValueError(f"no tensor of dtype {dtype[:16]} has the shape {shape[:16]}")
    return math.prod(shape) // num_numbers * num_bytes


def read_folder(folder: Path) -> TensorFolder:
    """Look at every header; reads no weights. Raises NotFound, NotSupported or Corrupt; the messages say the way out."""
    config_text = read_config(folder)
    digest = hashlib.sha256(config_text)
    tensors: dict[str, TensorPlace] = {}
    if (folder / gguf_index.INDEX).is_file():
        file, header_sha256, entries = gguf_index.read(folder)
        digest.update(header_sha256.encode())
        places = (TensorPlace(name, file, offset, stored_bytes(dtype, shape), dtype, shape) for name, dtype, shape, offset in entries)
        return TensorFolder(folder, config_text, digest.hexdigest(), {place.name: place for place in places})
    for file in weight_files(folder):
        header, found = _read_header(file)
        digest.update(file.name.encode() + b"\0" + header)
        tensors.update(found)
    _check_index(folder, tensors)
    return TensorFolder(folder, config_text, digest.hexdigest(), tensors)


def read_config(folder: Path) -> bytes:
    """The text of config.json. Raises NotFound, or NotSupported for a folder that is something else than a model."""
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "is not a folder"
        raise NotFound(f"{folder} {what}: give a folder with {CONFIG_FILE} and safetensors files")
    path = folder / CONFIG_FILE
    if not path.is_file():
        if other := other_weights(folder):
            raise NotSupported(f"{folder} {other}")
        raise NotFound(f"{folder} has no {CONFIG_FILE}: give the folder that save_pretrained wrote")
    return read_bytes(path)


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the model's tensors. Raises NotFound, NotSupported or Corrupt; opens no more than an index."""
    if (folder / gguf_index.INDEX).is_file():
        return [gguf_index.read(folder)[0]]
    if (folder / SINGLE_FILE).is_file():
        return [folder / SINGLE_FILE]
    if (folder / INDEX_FILE).is_file():
        return _indexed_files(folder)
    found = sorted(path for path in folder.glob("*.safetensors") if not path.name.startswith("adapter_"))
    if len(found) == 1 and not _SHARD.fullmatch(found[0].name):
        return found
    if found:
        return _shards(folder, found)
    if other := other_weights(folder):
        raise NotSupported(f"{folder} {other}")
    raise NotFound(f"{folder} has no safetensors files: fetch the weights, or use random weights")


def _shards(folder: Path, found: list[Path]) -> list[Path]:
    """The parts of a model without its index: their names say how many there must be, and their headers what they hold."""
    parts = {(int(match["number"]), int(match["total"])): path for path in found if (match := _SHARD.fullmatch(path.name))}
    totals = {total for _, total in parts}
    if len(totals) != 1:
        raise Corrupt(f"{folder} has {len(found)} safetensors files but no {INDEX_FILE} that says which belong to the model: fetch it too")
    total = totals.pop()
    if missing := [number for number in range(1, total + 1) if (number, total) not in parts]:
        numbers = ", ".join(map(str, missing[:3])) + (", ..." if len(missing) > 3 else "")
        raise Corrupt(f"{folder} lacks {len(missing)} of {total} weight files (number {numbers}): download it again")
    return [parts[number, total] for number in range(1, total + 1)]


def _read_index(index: Path) -> dict[str, str]:
    content = read_json(index)
    weight_map = content.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise Corrupt(f"{index} has no weight_map, so it is not a weight index: fetch it again")
    return {str(name): str(file) for name, file in weight_map.items()}


def _indexed_files(folder: Path) -> list[Path]:
    names = sorted(set(_read_index(folder / INDEX_FILE).values()))
    if strange := next((name for name in names if os.path.basename(name) != name), None):
        raise Corrupt(f"{folder / INDEX_FILE} names {strange!r}, which is not a file of that folder: fetch the index again")
    if missing := [name for name in names if not (folder / name).is_file()]:
        unfinished = other_weights(folder)
        hint = f"; it {unfinished}" if "not finished" in unfinished else ": download it again"
        raise Corrupt(f"{folder} lacks {len(missing)} of {len(names)} weight files ({', '.join(missing[:3])}){hint}")
    return [folder / name for name in names]


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a model folder. Raises NotFound, or Corrupt saying what the file is instead."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise NotFound(f"{path} does not exist: a model folder needs it") from error
    except (OSError, ValueError) as error:
        what = mistaken(path) or f"cannot be read as JSON ({error}): download or copy the model again"
        raise Corrupt(f"{path} {what}") from error
    if not isinstance(content, dict):
        raise Corrupt(f"{path} holds a {type(content).__name__}, not an object: download or copy the model again")
    return content


def _check_index(folder: Path, tensors: Mapping[str, TensorPlace]) -> None:
    index = folder / INDEX_FILE
    if (folder / SINGLE_FILE).is_file() or not index.is_file():
        return
    for name, file in _read_index(index).items():
        if name not in tensors or tensors[name].file.name != file:
            raise Corrupt(f"{index} says that {file} holds {name!r}, but it does not: fetch index and files of one version")


def _read_header(file: Path) -> tuple[bytes, dict[str, TensorPlace]]:
    """The raw header and its tensors; the lengths in it must account for every byte of the file."""
    if what := mistaken_weights(file):
        raise Corrupt(f"{file} {what}")
    header, file_bytes = _raw_header(file)
    header_bytes = len(header)
    try:
        entries = {name: entry for name, entry in json.loads(header).items() if name != "__metadata__"}
        tensors = {name: _place(file, name, entry, 8 + header_bytes) for name, entry in entries.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Corrupt(f"{file} has a damaged header ({error}): fetch it again") from error
    end = max((t.offset_bytes + t.num_bytes for t in tensors.values()), default=8 + header_bytes)
    if end != file_bytes:
        raise Corrupt(f"{file} has {file_bytes} bytes, but its header describes {end}: it was cut short or damaged, fetch it again")
    return header, tensors


def _raw_header(file: Path) -> tuple[bytes, int]:
    """The header's text and the size of the file; raises Corrupt for a file that is cut short, or what `failure` says."""
    try:
        file_bytes = file.stat().st_size
        with file.open("rb") as stream:
            prefix = stream.read(8)
            header_bytes = int.from_bytes(prefix, "little")
            if len(prefix) < 8 or not 2 <= header_bytes <= min(MAX_HEADER_BYTES, file_bytes - 8):
                raise Corrupt(f"{file} is not a whole safetensors file ({file_bytes} bytes): fetch it again")
            return stream.read(header_bytes), file_bytes
    except OSError as error:
        raise failure(error, file) from error


def _place(file: Path, name: str, entry: dict[str, Any], data_start: int) -> TensorPlace:
    dtype = entry["dtype"]
    if dtype not in NUMBER_BYTES:
        raise NotSupported(f"{file}: tensor {name!r} has dtype {dtype}, which is not supported: use {', '.join(NUMBER_BYTES)}")
    shape = tuple(int(size) for size in entry["shape"])
    begin, end = (int(offset) for offset in entry["data_offsets"])
    if min((begin, *shape), default=0) < 0 or end - begin != math.prod(shape) * NUMBER_BYTES[dtype]:
        raise ValueError(f"tensor {name!r} of shape {shape} cannot lie in bytes [{begin}, {end})")
    return TensorPlace(name, file, data_start + begin, end - begin, dtype, shape)
