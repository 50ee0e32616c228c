"""The manifest of a model: its configuration and every tensor with its content hash, so that copies can travel and be checked.

Imports no torch: the coordinator makes manifests and never loads weights. Hashing a folder reads all of it once (sha-256, 1 to 2
GB/s on one core); the result is kept in the cache directory for as long as the files stay the same.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.data.errors import Corrupt, NoodleError
from engine.data.json_text import json_text
from engine.files import replace_whole
from engine.model.progress import Progress
from engine.model.weights.tensor_files import TensorFolder, TensorPlace, read_folder, stored_bytes

MAX_CONFIG_BYTES = 4 << 20
MAX_NAME_CHARACTERS = 512
MAX_TENSORS = 1_000_000
MAX_TENSOR_BYTES = 2**40
_HASH_CHUNK_BYTES = 1 << 20
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor as others may ask for it. Building one that cannot be raises Corrupt: entries come from other machines."""

    name: str
    dtype: str  # what `stored_bytes` knows
    shape: tuple[int, ...]
    num_bytes: int
    sha256: bytes

    def __post_init__(self) -> None:
        shown = self.name[:80]
        if not self.name or len(self.name) > MAX_NAME_CHARACTERS or not self.name.isprintable():
            raise Corrupt(f"the manifest names a tensor {shown!r}: 1 to {MAX_NAME_CHARACTERS} printable characters are allowed")
        try:
            expected = stored_bytes(self.dtype, self.shape) if len(self.shape) <= 16 and min(self.shape, default=0) >= 0 else -1
        except ValueError:
            expected = -1
        if expected < 0:
            raise Corrupt(f"the manifest's tensor {shown!r} has dtype {self.dtype[:16]!r} and shape {self.shape[:17]}: it cannot be one")
        if self.num_bytes != expected or expected > MAX_TENSOR_BYTES:
            raise Corrupt(
                f"the manifest's tensor {shown!r} has {self.num_bytes} bytes, its shape asks for {expected} (at most {MAX_TENSOR_BYTES})"
            )
        if len(self.sha256) != 32:
            raise Corrupt(f"the manifest's tensor {shown!r} has a hash of {len(self.sha256)} bytes: a sha-256 has 32")


@dataclass(frozen=True, slots=True)
class Manifest:
    """`fingerprint` is the folder's, the same that every load is checked against."""

    fingerprint: str
    config_text: bytes
    tensors: tuple[TensorEntry, ...]

    def __post_init__(self) -> None:
        if len(self.config_text) > MAX_CONFIG_BYTES or len(self.tensors) > MAX_TENSORS:
            sizes = f"{len(self.config_text)} bytes of configuration and {len(self.tensors)} tensors"
            raise Corrupt(f"the manifest has {sizes}: at most {MAX_CONFIG_BYTES} and {MAX_TENSORS} are allowed")
        if len({t.name for t in self.tensors}) != len(self.tensors):
            raise Corrupt("the manifest names a tensor twice")


def manifest_of(folder: Path, cache_dir: Path, on_progress: Progress | None = None) -> Manifest:
    """The manifest of a local model folder, hashed now if no stored one still holds. Raises what `read_folder` raises, and Corrupt."""
    found = read_folder(folder)
    path, key = _stored_path(folder, cache_dir), _key(found)
    hashes = _stored_hashes(path, key)
    if hashes is None or set(hashes) != set(found.tensors):
        hashes = _hash_all(found, on_progress)
        if _key(found) == key:  # else the files changed meanwhile; whoever reads them next finds that their content does not match
            _store(path, key, hashes)
    entries = (TensorEntry(t.name, t.dtype, t.shape, t.num_bytes, hashes[t.name]) for t in found.tensors.values())
    return Manifest(found.fingerprint, found.config_text, tuple(entries))


def _hash_all(found: TensorFolder, on_progress: Progress | None) -> dict[str, bytes]:
    total = sum(t.num_bytes for t in found.tensors.values())
    hashes, done = {}, 0
    for place in sorted(found.tensors.values(), key=lambda t: (t.file.name, t.offset_bytes)):
        if on_progress is not None:
            on_progress(done / max(total, 1), f"hashing weights, {done / 1e6:.0f} of {total / 1e6:.0f} MB")
        hashes[place.name] = _hash(place)
        done += place.num_bytes
    return hashes


def _hash(place: TensorPlace) -> bytes:
    digest, left = hashlib.sha256(), place.num_bytes
    with place.file.open("rb", buffering=0) as stream:
        stream.seek(place.offset_bytes)
        while left:
            data = stream.read(min(left, _HASH_CHUNK_BYTES))
            if not data:
                raise Corrupt(f"{place.file} ends inside tensor {place.name!r}: fetch the file again")
            digest.update(data)
            left -= len(data)
    return digest.digest()


def _stored_path(folder: Path, cache_dir: Path) -> Path:
    return cache_dir / "manifests" / f"{hashlib.sha256(str(folder).encode()).hexdigest()[:24]}.json"


def _key(found: TensorFolder) -> dict[str, Any]:
    stats = {file.name: file.stat() for file in {t.file for t in found.tensors.values()}}
    files = {name: [stat.st_size, stat.st_mtime_ns] for name, stat in sorted(stats.items())}
    return {"format": _FORMAT, "folder": str(found.folder), "fingerprint": found.fingerprint, "files": files}


def _stored_hashes(path: Path, key: dict[str, Any]) -> dict[str, bytes] | None:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return {str(n): bytes.fromhex(h) for n, h in stored["hashes"].items()} if stored["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # a damaged cache entry costs a second look at the files, not an error


def _store(path: Path, key: dict[str, Any], hashes: dict[str, bytes]) -> None:
    document = json_text({"key": key, "hashes": {n: h.hex() for n, h in hashes.items()}})
    with suppress(NoodleError):  # a cache that cannot be written is no reason to fail
        replace_whole(path, document.encode("ascii"))
