"""A folder with `config.json` and safetensors files, checked by its headers and read one tensor at a time.

Files are read with plain reads into the tensor's own memory, not mapped: mapped pages would count as resident memory
next to the copy, and a file replaced under a mapping would kill the process. Pickle files are never opened and code
from a checkpoint is never run.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from engine.data import Corrupt, InvalidInput, NotFound, NotSupported

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

CONFIG_FILE = "config.json"
SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
CHUNK_BYTES = 4 << 20
MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors format
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where one tensor lies; indexing it with `[...]` reads it, which is how transformers asks for its data."""

    name: str
    file: Path
    offset_bytes: int
    num_bytes: int
    dtype: torch.dtype
    shape: tuple[int, ...]

    def __getitem__(self, _: Any) -> torch.Tensor:
        return self.read()

    def read(self) -> torch.Tensor:
        """The tensor in its stored dtype, in fresh CPU memory. Raises Corrupt if the file ends early."""
        tensor = torch.empty(self.shape, dtype=self.dtype)
        if self.num_bytes:
            with self.file.open("rb", buffering=0) as stream:
                stream.seek(self.offset_bytes)
                self._fill(stream, tensor)
        return tensor

    def read_into(self, target: torch.Tensor) -> None:
        """Read into a tensor of the same shape, whatever its dtype, strides or device, with a few MiB of extra memory."""
        if not self.shape or self.num_bytes <= CHUNK_BYTES:
            target.copy_(self.read())
            return
        num_rows = max(1, CHUNK_BYTES * self.shape[0] // self.num_bytes)
        with self.file.open("rb", buffering=0) as stream:
            stream.seek(self.offset_bytes)
            chunk = torch.empty((num_rows, *self.shape[1:]), dtype=self.dtype)
            for rows in target.split(num_rows):
                self._fill(stream, chunk[: len(rows)])
                rows.copy_(chunk[: len(rows)])

    def _fill(self, stream: FileIO, tensor: torch.Tensor) -> None:
        memory = tensor.reshape(-1).view(torch.uint8).numpy().data
        done = 0
        while done < len(memory):
            count = stream.readinto(memory[done:])
            if not count:
                raise Corrupt(f"{self.file} ends inside tensor {self.name!r}: fetch the file again")
            done += count


class WeightFolder:
    """The configuration and the tensor headers of a local model folder; reads no weights by itself."""

    config: PreTrainedConfig
    names: frozenset[str]
    fingerprint: str

    def __init__(self, folder: Path) -> None:
        """Raises NotFound, InvalidInput, NotSupported or Corrupt; see the messages for the way out."""
        self.folder = Path(folder)
        config_text = _read_config(self.folder)
        self.config = _build_config(self.folder, config_text)
        digest = hashlib.sha256(config_text)
        self._tensors: dict[str, StoredTensor] = {}
        for file in _weight_files(self.folder):
            header, tensors = _read_header(file)
            digest.update(file.name.encode() + b"\0" + header)
            self._tensors.update(tensors)
        _check_index(self.folder, self._tensors)
        self.names = frozenset(self._tensors)
        self.fingerprint = digest.hexdigest()

    def tensor(self, name: str) -> StoredTensor:
        """The place of one tensor. Raises Corrupt if the folder does not hold it."""
        stored = self._tensors.get(name)
        if stored is None:
            raise Corrupt(f"{self.folder} has no tensor {name!r}: fetch the model again")
        return stored


def _read_config(folder: Path) -> bytes:
    if not folder.is_dir():
        raise NotFound(f"{folder} is not a folder: give a folder with {CONFIG_FILE} and safetensors files")
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise NotFound(f"{folder} has no {CONFIG_FILE}: give the folder that save_pretrained wrote")
    return path.read_bytes()


def _build_config(folder: Path, text: bytes) -> PreTrainedConfig:
    try:
        raw = json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"{folder / CONFIG_FILE} is not JSON ({error}): fetch it again") from error
    if not isinstance(raw, dict) or not isinstance(raw.get("model_type"), str):
        raise InvalidInput(f"{folder / CONFIG_FILE} names no model_type: use a Hugging Face model folder")
    if "auto_map" in raw:
        raise NotSupported(
            f"{folder / CONFIG_FILE} has an auto_map, so the model brings its own code, which is never run here: "
            f"use a version of the model that transformers supports itself"
        )
    from transformers import AutoConfig  # heavy, so only when a folder is opened

    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises many kinds for a bad value or an unknown model_type
        raise NotSupported(f"{folder / CONFIG_FILE}: transformers cannot read this {raw['model_type']!r} configuration: {error}") from error


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


def _check_index(folder: Path, tensors: dict[str, StoredTensor]) -> None:
    index = folder / INDEX_FILE
    if (folder / SINGLE_FILE).is_file() or not index.is_file():
        return
    for name, file in _read_index(index).items():
        if name not in tensors or tensors[name].file.name != file:
            raise Corrupt(f"{index} says that {file} holds {name!r}, but it does not: fetch index and files of one version")


def _read_header(file: Path) -> tuple[bytes, dict[str, StoredTensor]]:
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
        tensors = {name: _stored(file, name, entry, 8 + header_bytes) for name, entry in entries.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Corrupt(f"{file} has a damaged header ({error}): fetch it again") from error
    end = max((t.offset_bytes + t.num_bytes for t in tensors.values()), default=8 + header_bytes)
    if end != file_bytes:
        raise Corrupt(f"{file} has {file_bytes} bytes, but its header describes {end}: it was cut short or damaged, fetch it again")
    return header, tensors


def _stored(file: Path, name: str, entry: dict[str, Any], data_start: int) -> StoredTensor:
    if entry["dtype"] not in DTYPES:
        raise NotSupported(f"{file}: tensor {name!r} has dtype {entry['dtype']}, which is not supported: use {', '.join(DTYPES)}")
    dtype = DTYPES[entry["dtype"]]
    shape = tuple(int(size) for size in entry["shape"])
    begin, end = (int(offset) for offset in entry["data_offsets"])
    if min((begin, *shape), default=0) < 0 or end - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"tensor {name!r} of shape {shape} cannot lie in bytes [{begin}, {end})")
    return StoredTensor(name, file, data_start + begin, end - begin, dtype, shape)
