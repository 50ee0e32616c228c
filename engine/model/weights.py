"""A folder with `config.json` and safetensors files, checked by its headers and read one tensor at a time.

Files are read with plain reads into the tensor's own memory, not mapped: mapped pages would count as resident memory
next to the copy, and a file replaced under a mapping would kill the process. Pickle files are never opened and code
from a checkpoint is never run.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from engine.data.errors import Corrupt, InvalidInput, NotSupported
from engine.model.tensor_files import CONFIG_FILE, read_config, read_folder

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

CHUNK_BYTES = 4 << 20
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


class DamagedTensor(Corrupt):
    """What was read is not what `tensor` should be; the copy is of no use."""

    def __init__(self, tensor: StoredTensor, why: str) -> None:
        super().__init__(f"{tensor.file}: tensor {tensor.name!r} {why}")
        self.tensor = tensor


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where one tensor lies; indexing it with `[...]` reads it, which is how transformers asks for its data."""

    name: str
    file: Path
    offset_bytes: int
    num_bytes: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    sha256: bytes = b""  # of its bytes, checked while they are read; empty where the folder itself is trusted

    def __getitem__(self, _: Any) -> torch.Tensor:
        return self.read()

    def read(self) -> torch.Tensor:
        """The tensor in its stored dtype, in fresh CPU memory. Raises Corrupt if the file ends early or holds something else."""
        tensor = torch.empty(self.shape, dtype=self.dtype)
        self._fill([tensor] if self.num_bytes else [])
        return tensor

    def read_into(self, target: torch.Tensor) -> None:
        """Read into a tensor of the same shape, whatever its dtype, strides or device, with a few MiB of extra memory."""
        if not self.shape or self.num_bytes <= CHUNK_BYTES:
            target.copy_(self.read())
            return
        num_rows = max(1, CHUNK_BYTES * self.shape[0] // self.num_bytes)
        chunk = torch.empty((num_rows, *self.shape[1:]), dtype=self.dtype)
        self._fill(_filled_chunks(target, chunk, num_rows))

    def _fill(self, parts: Iterable[torch.Tensor]) -> None:
        """Read into each part in turn; between them they make up the tensor."""
        digest = hashlib.sha256() if self.sha256 else None
        try:
            with self.file.open("rb", buffering=0) as stream:
                stream.seek(self.offset_bytes)
                for part in parts:
                    memory = part.reshape(-1).view(torch.uint8).numpy().data
                    self._read_exactly(stream, memory)
                    if digest is not None:
                        digest.update(memory)
        except FileNotFoundError as error:
            raise DamagedTensor(self, "is gone: fetch it again") from error
        if digest is not None and digest.digest() != self.sha256:
            raise DamagedTensor(self, "does not match its content hash: fetch it again")

    def _read_exactly(self, stream: FileIO, memory: memoryview) -> None:
        done = 0
        while done < len(memory):
            count = stream.readinto(memory[done:])
            if not count:
                raise DamagedTensor(self, "ends early: fetch the file again")
            done += count


def _filled_chunks(target: torch.Tensor, chunk: torch.Tensor, num_rows: int) -> Iterable[torch.Tensor]:
    """Yields room for the next rows; whoever takes the next one has filled the last, which goes to its place."""
    for rows in target.split(num_rows):
        yield chunk[: len(rows)]
        rows.copy_(chunk[: len(rows)])


class WeightFolder:
    """The configuration and the tensor headers of a local model folder; reads no weights by itself."""

    folder: Path
    config: PreTrainedConfig
    names: frozenset[str]
    fingerprint: str

    def __init__(self, folder: Path) -> None:
        """Raises NotFound, InvalidInput, NotSupported or Corrupt; see the messages for the way out."""
        found = read_folder(Path(folder))
        tensors = [StoredTensor(t.name, t.file, t.offset_bytes, t.num_bytes, DTYPES[t.dtype], t.shape) for t in found.tensors.values()]
        self._fill(found.folder, found.config_text, found.fingerprint, tensors)

    def _fill(self, folder: Path, config_text: bytes, fingerprint: str, tensors: Iterable[StoredTensor]) -> None:
        self.folder, self.fingerprint = folder, fingerprint
        self.config = _build_config(folder, config_text)
        self._tensors = {t.name: t for t in tensors}
        self.names = frozenset(self._tensors)

    @property
    def stored_dtype(self) -> str:
        """The dtype of most bytes of the weights; empty if there are none."""
        num_bytes: Counter[str] = Counter()
        for stored in self._tensors.values():
            num_bytes[str(stored.dtype).removeprefix("torch.")] += stored.num_bytes
        return num_bytes.most_common(1)[0][0] if num_bytes else ""

    def tensor(self, name: str) -> StoredTensor:
        """The place of one tensor. Raises Corrupt if the folder does not hold it."""
        stored = self._tensors.get(name)
        if stored is None:
            raise Corrupt(f"{self.folder} has no tensor {name!r}: fetch the model again")
        return stored


class ConfigOnly(WeightFolder):
    """A folder of which nothing but config.json is here: enough to describe and time a model."""

    def __init__(self, folder: Path) -> None:
        """Raises NotFound, InvalidInput or NotSupported."""
        self._fill(folder, read_config(folder), "", ())


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
