"""Where a process finds tensors that others ask for: model folders it knows, and the weight cache. No torch, no network.

A request names a tensor by its hash and, to find it in a folder, by the model's name for it. Neither ever becomes a path: the
hash must have 32 bytes, and names are looked up in the headers of folders that this process opened by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine.data.errors import InvalidInput, NoodleError, NotFound
from engine.model.weights.tensor_files import TensorFolder, read_folder
from engine.model.weights.weight_cache import WeightCache
from protos import noodle_pb2 as pb


@dataclass(frozen=True, slots=True)
class Extent:
    """Bytes of a file."""

    file: Path
    offset_bytes: int
    num_bytes: int


class WeightLibrary:
    """Safe to ask from any thread. `folder_of` maps a fingerprint to the model folder that is here, or None."""

    def __init__(self, cache: WeightCache, folder_of: Callable[[str], Path | None]) -> None:
        self._cache, self._folder_of = cache, folder_of
        self._opened: TensorFolder | None = None

    def find(self, fingerprint: str, wanted: pb.WantedTensor) -> Extent | None:
        """Where the tensor is here; None if it is not. Its content is for the receiver to check. Raises InvalidInput."""
        if len(wanted.sha256) != 32:
            raise InvalidInput(f"a tensor is named by a sha-256 of 32 bytes, not {len(wanted.sha256)}")
        path = self._cache.path(wanted.sha256)
        try:
            if path.stat().st_size == wanted.num_bytes:
                return Extent(path, 0, wanted.num_bytes)
        except OSError:
            pass
        folder = self._folder(fingerprint)
        place = folder.tensors.get(wanted.name) if folder is not None else None
        if place is None or place.num_bytes != wanted.num_bytes:
            return None
        return Extent(place.file, place.offset_bytes, place.num_bytes)

    def get(self, fingerprint: str, wanted: pb.WantedTensor) -> Extent:
        """As `find`; raises NotFound too."""
        found = self.find(fingerprint, wanted)
        if found is None:
            raise NotFound(f"tensor {wanted.name[:80]!r} of {wanted.num_bytes} bytes is not here")
        return found

    def _folder(self, fingerprint: str) -> TensorFolder | None:
        if self._opened is None or self._opened.fingerprint != fingerprint:
            path = self._folder_of(fingerprint)
            try:
                opened = read_folder(path) if path is not None else None
            except NoodleError:
                return None
            if opened is None or opened.fingerprint != fingerprint:
                return None
            self._opened = opened
        return self._opened
