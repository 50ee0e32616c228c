"""A folder with `config.json` and weight files, checked by their headers and read one tensor at a time.

Files are read with plain reads into the tensor's own memory, not mapped: mapped pages would count as resident memory
next to the copy, and a file replaced under a mapping would kill the process. Pickle files are never opened and code
from a checkpoint is never run.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from engine.data.errors import Corrupt, InvalidInput, NotSupported
from engine.model.families import TEXT_CLASSES, WRAPPERS
from engine.model.formats.file_kinds import mistaken
from engine.model.formats.gguf_index import BLOCKS
from engine.model.formats.quantised import quantisation
from engine.model.tensor_files import CONFIG_FILE, TensorPlace, read_config, read_folder

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from engine.model.manifest import TensorEntry

CHUNK_BYTES = 4 << 20
_TEXT_KEYS = ("text_config", "llm_config", "language_config", "hidden_size")  # what describes a text model inside another
GGUF_INSTALL = "install it with `pip install 'noodlecore[gguf]'`"
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


class WeightFolder:
    """The configuration and the tensor headers of a local model folder; reads no weights by itself."""

    folder: Path
    config: PreTrainedConfig
    names: frozenset[str]
    fingerprint: str

    def __init__(self, folder: Path) -> None:
        """Raises NotFound, InvalidInput, NotSupported or Corrupt; see the messages for the way out."""
        found = read_folder(Path(folder))
        tensors = (stored_tensor(place, place.file, place.offset_bytes) for place in found.tensors.values())
        self._fill(found.folder, found.config_text, found.fingerprint, tensors)

    def _fill(self, folder: Path, config_text: bytes, fingerprint: str, tensors: Iterable[StoredTensor]) -> None:
        self.folder, self.fingerprint = folder, fingerprint
        self.config = _build_config(folder, config_text)
        self._tensors = {t.name: t for t in tensors}
        self.names = frozenset(self._tensors)

    @property
    def stored_dtype(self) -> str:
        """The dtype of most bytes of the weights, or the method or block type that quantised them; empty if there are none."""
        stated = quantisation(self.config.to_dict())
        if stated is not None:
            return str(stated["quant_method"])
        num_bytes: Counter[str] = Counter()
        for stored in self._tensors.values():
            num_bytes[stored.blocks or str(stored.dtype).removeprefix("torch.")] += stored.num_bytes
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
    raw = _parsed(folder / CONFIG_FILE, text)
    from transformers import AutoConfig  # heavy, so only when a folder is opened

    if foreign := _foreign_class(raw):
        raise NotSupported(
            f"{folder / CONFIG_FILE}: the class {foreign!r} of its auto_map is the repository's own code, which is never run: "
            f"use a version of the model that transformers supports itself"
        )
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises many kinds for a bad value or an unknown model_type
        raise NotSupported(f"{folder / CONFIG_FILE}: {_unreadable(raw['model_type'], error)}") from error
    return _text_part(folder, raw, config)


def _text_part(folder: Path, raw: dict[str, Any], config: PreTrainedConfig) -> PreTrainedConfig:
    """The text model's configuration where transformers loads a wrapper's folder into a class for it alone, else the whole."""
    if config.model_type in (*WRAPPERS, *TEXT_CLASSES) and not any(name in raw for name in _TEXT_KEYS):
        raise NotSupported(
            f"{folder / CONFIG_FILE}: model family {config.model_type!r} joins a text model with an image or audio model, and it does not"
            f" say which text model: fetch the model's own {CONFIG_FILE}"
        )
    if config.model_type not in TEXT_CLASSES:
        return config
    text = config.get_text_config(decoder=True)
    text.architectures = config.architectures
    if getattr(config, "quantization_config", None) is not None:
        text.quantization_config = config.quantization_config
    return text


def _parsed(path: Path, text: bytes) -> dict[str, Any]:
    try:
        raw = json.loads(text)
    except ValueError as error:
        what = mistaken(path) or f"is not JSON ({error}): fetch it again"
        raise InvalidInput(f"{path} {what}") from error
    if not isinstance(raw, dict) or not isinstance(raw.get("model_type"), str):
        raise InvalidInput(f"{path} names no model_type: use a Hugging Face model folder")
    return raw


def _foreign_class(raw: dict[str, Any]) -> str:
    """The class of an auto_map that transformers does not have itself, or an empty text.

    Makers ship an auto_map long after transformers took their model in; then it is not needed. Class names are compared
    without case and underscores, which is where the two differ.
    """
    from transformers.models.auto import modeling_auto as native
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    auto_map = raw.get("auto_map")
    if not isinstance(auto_map, dict) or not auto_map:
        return ""
    family = raw["model_type"]
    tables: dict[str, Any] = {
        "AutoModelForCausalLM": native.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        "AutoModelForImageTextToText": native.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
        "AutoModel": native.MODEL_MAPPING_NAMES,
    }
    asked = next((str(auto_map[key]).rpartition(".")[2] for key in (*tables, "AutoConfig") if key in auto_map), family)
    if family not in CONFIG_MAPPING_NAMES:
        return asked
    if not tables.keys() & auto_map.keys():
        return ""  # at most its configuration class, which transformers has
    return "" if _plain(asked) in {_plain(str(table.get(family))) for table in tables.values()} else asked


def _plain(class_name: str) -> str:
    return class_name.replace("_", "").lower()


def _unreadable(family: str, error: Exception) -> str:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    if family not in CONFIG_MAPPING_NAMES:
        return f"transformers knows no model_type {family[:64]!r}: use a model that it supports itself, or a newer transformers"
    first_line = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    return f"transformers cannot read this {family!r} configuration: {first_line}"
