"""What the cache folder holds: models with random weights, converted GGUF files, tensors that were fetched. Tokens of clusters lie
elsewhere in it and are none of this.

Imports no torch. What was used in the last minutes is never removed, whatever is asked for: a cluster may be loading it.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.files import failure
from engine.model.weights.weight_cache import CACHE_FOLDER, IN_USE_S

_FOLDERS = {"random": "random weights", "gguf": "from GGUF", CACHE_FOLDER: "fetched"}


@dataclass(frozen=True, slots=True)
class Kept:
    """One folder or file of the cache, which can be made or fetched again; `used_s` is the time of its last use, as far as files tell."""

    kind: str
    name: str
    path: Path
    num_bytes: int
    used_s: float


def kept_in(cache_dir: Path) -> Iterator[Kept]:
    """Everything that `prune` may remove, by kind and name."""
    for folder, kind in _FOLDERS.items():
        root = cache_dir / folder
        for path in sorted(root.iterdir()) if root.is_dir() else ():
            found = [f.stat() for f in (path, *path.rglob("*")) if not f.is_symlink()]
            used_s = max(max(s.st_mtime, s.st_atime if not path.is_dir() else 0.0) for s in found)
            yield Kept(kind, path.name, path, sum(s.st_size for s in found), used_s)


def prune(cache_dir: Path, older_than_s: float) -> list[Kept]:
    """Remove what was not used for so long, at least for some minutes; returns what was removed. Raises what `failure` says."""
    before_s = time.time() - max(older_than_s, IN_USE_S)
    removed = [kept for kept in kept_in(cache_dir) if kept.used_s < before_s]
    for kept in removed:
        try:
            if kept.path.is_dir():
                shutil.rmtree(kept.path)
            else:
                kept.path.unlink(missing_ok=True)
        except OSError as error:
            raise failure(error, kept.path) from error
    return removed
