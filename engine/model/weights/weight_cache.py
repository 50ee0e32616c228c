"""The worker's cache of tensors, named by the sha-256 of their bytes: equal tensors of any model are kept once.

Several processes may share the folder. An entry appears by a rename, after its bytes were hashed and synced, so whatever
carries an entry's name was whole when it was written; readers check it again (`StoredTensor`). What is being fetched
lies in a file named after its process; the files of processes that died are taken over, so a fetch goes on where it broke.
Imports no torch and knows no network.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import time
from collections.abc import Callable, Collection, Container, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from engine.data.errors import Exhausted, NoodleError
from engine.files import replace_whole
from engine.model.weights.manifest import TensorEntry
from engine.model.weights.partial_entry import PartialEntry, unwritable

CACHE_FOLDER = "weights"  # inside the cache directory
IN_USE_S = 300.0  # an entry that anybody used so recently is not removed: it may be about to be loaded
ABANDONED_S = 86_400.0  # an unfinished file of another host that nobody has written to for so long
DISK_MARGIN_BYTES = 64 << 20
_ENTRY = re.compile(r"[0-9a-f]{64}")
_HOST = re.sub(r"[^A-Za-z0-9-]", "-", platform.node())[:40] or "host"


@dataclass(frozen=True, slots=True)
class CacheSize:
    num_entries: int
    num_bytes: int


class WeightCache:
    """`limit_bytes` bounds the entries together, None leaves it to the disk. The folder is made on first use."""

    def __init__(self, folder: Path, limit_bytes: int | None = None, clock: Callable[[], float] = time.time) -> None:
        self.folder, self._limit_bytes, self._clock = folder, limit_bytes, clock

    def path(self, sha256: bytes) -> Path:
        """Where the entry is, or would be."""
        name = sha256.hex()
        return self.folder / "tensors" / name[:2] / name

    def has(self, entry: TensorEntry) -> bool:
        """Whether the cache holds the entry, by name and size; one of the wrong size is removed."""
        path = self.path(entry.sha256)
        try:
            if path.stat().st_size == entry.num_bytes:
                return True
        except OSError:
            return False
        self.remove(entry.sha256)
        return False

    def is_whole(self, entry: TensorEntry) -> bool:
        """Whether the cache holds the entry and its content is right; any other content is removed."""
        if not self.has(entry):
            return False
        with suppress(OSError), self.path(entry.sha256).open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").digest() == entry.sha256:
                return True
        self.remove(entry.sha256)
        return False

    def touch(self, sha256: bytes) -> None:
        """Say that the entry is in use; the least recently used ones go first."""
        with suppress(OSError):
            os.utime(self.path(sha256), (self._clock(), self._clock()))

    def remove(self, sha256: bytes) -> None:
        with suppress(OSError):
            self.path(sha256).unlink()

    def config_folder(self, config_text: bytes) -> Path:
        """A folder with that config.json, as transformers wants to read it. Raises Exhausted if it cannot be written."""
        folder = self.folder / "configs" / hashlib.sha256(config_text).hexdigest()
        path = folder / "config.json"
        with suppress(OSError):
            if path.read_bytes() == config_text:
                return folder
        try:
            replace_whole(path, config_text)
        except NoodleError as error:
            raise unwritable(self.folder, error) from error
        return folder

    # ------------------------------------------------------------------------------------------ room
    def size(self) -> CacheSize:
        found = list(self._entries())
        return CacheSize(len(found), sum(num_bytes for _, num_bytes, _ in found))

    def make_room(self, wanted: Collection[TensorEntry]) -> None:
        """Remove what was used longest ago until `wanted` fits beside the rest; entries of `wanted` stay. Raises Exhausted."""
        self._remove_abandoned()
        needed = {e.sha256: e for e in wanted}
        missing_bytes = sum(e.num_bytes for e in needed.values() if not self.has(e))
        if self._limit_bytes is not None and (needed_bytes := sum(e.num_bytes for e in needed.values())) > self._limit_bytes:
            text = f"this stage needs {needed_bytes} bytes of weights, --cache-limit allows {self._limit_bytes}"
            raise Exhausted(f"{text}: raise it, or give this worker fewer items")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._evict(self._excess_bytes(missing_bytes), needed)
            free_bytes = shutil.disk_usage(self.folder).free
        except OSError as error:
            raise unwritable(self.folder, error) from error
        if missing_bytes and missing_bytes + DISK_MARGIN_BYTES > free_bytes:
            text = f"{missing_bytes} bytes of weights are missing here, the disk of the weight cache {self.folder} has {free_bytes} free"
            raise Exhausted(f"{text}: free some space, or choose another --cache-dir")

    def _excess_bytes(self, missing_bytes: int) -> int:
        """How many bytes must go before `missing_bytes` may come."""
        excess = missing_bytes + DISK_MARGIN_BYTES - shutil.disk_usage(self.folder).free if missing_bytes else 0
        if self._limit_bytes is not None:
            excess = max(excess, self.size().num_bytes + missing_bytes - self._limit_bytes)
        return excess

    def _evict(self, excess_bytes: int, needed: Container[bytes]) -> None:
        for path, num_bytes, used_s in sorted(self._entries(), key=lambda found: found[2]):
            if excess_bytes <= 0 or self._clock() - used_s < IN_USE_S:
                return
            if bytes.fromhex(path.name) not in needed:
                path.unlink(missing_ok=True)
                excess_bytes -= num_bytes

    def _entries(self) -> Iterator[tuple[Path, int, float]]:
        """Path, bytes and time of last use of every entry."""
        for path in (self.folder / "tensors").glob("??/*"):
            if _ENTRY.fullmatch(path.name):
                with suppress(OSError):
                    stat = path.stat()
                    yield path, stat.st_size, stat.st_mtime

    def _remove_abandoned(self) -> None:
        """Unfinished files that nobody can be writing to any more."""
        for path in (self.folder / "tensors").glob("??/*.partial"):
            with suppress(OSError):
                if self._clock() - path.stat().st_mtime > ABANDONED_S:
                    path.unlink()

    # ------------------------------------------------------------------------------------------ writing
    def begin(self, entry: TensorEntry) -> PartialEntry:
        """Start writing an entry, or go on with what this process or one that died left of it. Raises Exhausted."""
        target = self.path(entry.sha256)
        own = target.with_name(f"{target.name}.{_HOST}-{os.getpid()}.partial")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if not own.exists():
                _adopt(own, target)
            return PartialEntry(self.folder, entry, own, target)
        except OSError as error:
            raise unwritable(self.folder, error) from error


def _adopt(own: Path, target: Path) -> None:
    """Take over what a dead process of this host left of `target`."""
    for other in target.parent.glob(f"{target.name}.{_HOST}-*.partial"):
        pid = other.name.removeprefix(f"{target.name}.{_HOST}-").removesuffix(".partial")
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            with suppress(OSError):  # somebody else was quicker
                os.rename(other, own)
                return
