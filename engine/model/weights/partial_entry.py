"""An entry of the weight cache in the making: bytes are hashed as they are appended, and only whole ones become an entry."""

from __future__ import annotations

import errno
import hashlib
import os
from contextlib import suppress
from io import FileIO
from pathlib import Path

from engine.data.errors import Corrupt, Exhausted
from engine.model.weights.manifest import TensorEntry

_REHASH_BYTES = 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def unwritable(cache_folder: Path, error: Exception) -> Exhausted:
    """What to tell an operator whose cache cannot take more."""
    why = "the disk is full" if getattr(error, "errno", 0) in _FULL else str(error)
    return Exhausted(f"the weight cache {cache_folder} cannot be written ({why}): free some space, or choose another --cache-dir")


class PartialEntry:
    """An entry in the making: append until `num_bytes` is that of the tensor, then `finish`. One thread at a time."""

    def __init__(self, cache_folder: Path, entry: TensorEntry, path: Path, target: Path) -> None:
        self._cache_folder, self._entry, self._path, self._target = cache_folder, entry, path, target
        self._digest = hashlib.sha256()
        self._stream: FileIO = FileIO(path, "a+")
        self.num_bytes = self._take_over()
        self.resumed_bytes = self.num_bytes

    def _take_over(self) -> int:
        """Hash what is there; a file that is too long is of no use."""
        if self._stream.seek(0, os.SEEK_END) > self._entry.num_bytes:
            self._stream.truncate(0)
        self._stream.seek(0)
        num_bytes = 0
        while data := self._stream.read(_REHASH_BYTES):
            self._digest.update(data)
            num_bytes += len(data)
        return num_bytes

    def append(self, data: bytes) -> None:
        """Raises Corrupt for more bytes than the tensor has, Exhausted if the disk is full."""
        if self.num_bytes + len(data) > self._entry.num_bytes:
            raise Corrupt(f"tensor {self._entry.name!r}: more than its {self._entry.num_bytes} bytes arrived")
        self._digest.update(data)
        view = memoryview(data)
        try:
            while view:
                view = view[self._stream.write(view) :]
        except OSError as error:
            self.discard()
            raise unwritable(self._cache_folder, error) from error
        self.num_bytes += len(data)

    def finish(self) -> None:
        """Make it an entry; raises Corrupt, and keeps nothing, if its content is not what its hash says."""
        if self.num_bytes != self._entry.num_bytes or self._digest.digest() != self._entry.sha256:
            self.discard()
            raise Corrupt(f"tensor {self._entry.name!r} arrived with another content than its hash says")
        try:
            os.fsync(self._stream.fileno())
            self._stream.close()
            os.replace(self._path, self._target)
            _sync_folder(self._target.parent)
        except OSError as error:
            self.discard()
            raise unwritable(self._cache_folder, error) from error

    def close(self) -> None:
        """Leave what there is for the next attempt."""
        self._stream.close()

    def discard(self) -> None:
        self._stream.close()
        with suppress(OSError):
            self._path.unlink()


def _sync_folder(folder: Path) -> None:
    """Make a rename last; systems that cannot sync a folder do without."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
