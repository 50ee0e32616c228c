"""One tensor in a file: where it lies, and how it is read.

Files are read with plain reads into the tensor's own memory, not mapped: mapped pages would count as resident memory
next to the copy, and a file replaced under a mapping would kill the process.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import torch

from engine.data.errors import Corrupt, NotSupported
from engine.model.formats.gguf_index import BLOCKS, GGUF_INSTALL
from engine.model.weights.manifest import TensorEntry
from engine.model.weights.tensor_files import TensorPlace

CHUNK_BYTES = 4 << 20
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "F8_E8M0": torch.float8_e8m0fnu,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8, "BOOL": torch.bool,
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
    blocks: str = ""  # the GGUF type whose blocks hold its numbers, which then come out in `dtype`; empty for plain numbers

    def __getitem__(self, _: Any) -> torch.Tensor:
        return self.read()

    def read(self) -> torch.Tensor:
        """The tensor in its own dtype, in fresh CPU memory. Raises Corrupt if the file ends early or holds something else."""
        stored = self._room(self.shape[:1])
        self._fill([stored] if self.num_bytes else [])
        return self._numbers(stored)

    def read_into(self, target: torch.Tensor) -> None:
        """Read into a tensor of the same shape, whatever its dtype, strides or device, with a few MiB of extra memory."""
        if not self.shape or self.num_bytes <= CHUNK_BYTES:
            target.copy_(self.read())
            return
        num_rows = max(1, CHUNK_BYTES * self.shape[0] // self.num_bytes)
        self._fill(self._filled_chunks(target, self._room((num_rows,)), num_rows))

    def _room(self, num_rows: tuple[int, ...]) -> torch.Tensor:
        """Memory for that many rows as they are stored; () is for a tensor without rows."""
        if not self.blocks:
            return torch.empty((*num_rows, *self.shape[1:]), dtype=self.dtype)
        return torch.empty((*num_rows, self.num_bytes // max(1, self.shape[0])), dtype=torch.uint8)

    def _numbers(self, stored: torch.Tensor) -> torch.Tensor:
        """What the stored rows hold."""
        return dequantised(stored, self.blocks, self.shape[1:]) if self.blocks else stored

    def _filled_chunks(self, target: torch.Tensor, chunk: torch.Tensor, num_rows: int) -> Iterable[torch.Tensor]:
        """Yields room for the next rows; whoever takes the next one has filled the last, which goes to its place."""
        for rows in target.split(num_rows):
            yield chunk[: len(rows)]
            rows.copy_(self._numbers(chunk[: len(rows)]))

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


def dequantised(rows: torch.Tensor, blocks: str, shape: Sequence[int]) -> torch.Tensor:
    """The float32 numbers [n, *shape] in `rows` [n, bytes] of blocks of that GGUF type, by the `gguf` package's own arithmetic."""
    try:
        import gguf
    except ImportError as error:
        raise NotSupported("the model is a GGUF file, and this machine lacks the package that reads it: " + GGUF_INSTALL) from error
    width = BLOCKS[blocks][1] * (shape[-1] // BLOCKS[blocks][0]) if shape else rows.shape[-1]
    numbers = gguf.dequantize(rows.reshape(-1, width).numpy(), gguf.GGMLQuantizationType[blocks])
    return torch.from_numpy(numbers).reshape(len(rows), *shape) if shape else torch.from_numpy(numbers).reshape(-1)


def stored_tensor(place: TensorPlace | TensorEntry, file: Path, offset_bytes: int, sha256: bytes = b"") -> StoredTensor:
    """The tensor of a header or a manifest, at its place in a file."""
    blocks = place.dtype if place.dtype in BLOCKS else ""
    dtype = torch.float32 if blocks else DTYPES[place.dtype]
    return StoredTensor(place.name, file, offset_bytes, place.num_bytes, dtype, place.shape, sha256, blocks)
