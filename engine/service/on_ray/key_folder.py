"""Where an actor keeps the key of its worker: a folder that only this user can read, and that does not outlive the actor for long.

An actor that is killed removes nothing. It holds a lock in its folder, which the system gives back however a process ends, so the next
actor of this user on the node knows which folders have nobody any more, and removes them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from filelock import FileLock, Timeout

_PREFIX = "noodle-worker-"
_LOCK = "held"


class KeyFolder:
    """`path` is there, empty but for the lock, until `remove`. Those that nobody holds are removed first."""

    def __init__(self) -> None:
        remove_abandoned()
        made = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}"))
        self._lock = FileLock(made / _LOCK, mode=0o600)
        self._lock.acquire()
        self.path = made.with_name(made.name.removeprefix("."))  # under this name it is held from the beginning
        made.rename(self.path)

    def remove(self) -> None:
        """With all that it holds."""
        self._lock.release()
        shutil.rmtree(self.path, ignore_errors=True)


def remove_abandoned() -> None:
    """Remove this user's folders of actors that are gone. Whatever cannot be removed stays: the next actor tries again."""
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError, Timeout):
            if path.is_symlink() or not _is_own(path) or not (path / _LOCK).is_file():
                continue  # not one of these folders, whatever its name
            FileLock(path / _LOCK, timeout=0, mode=0o600).acquire().lock.release()
            shutil.rmtree(path, ignore_errors=True)


def _is_own(path: Path) -> bool:
    return not hasattr(os, "getuid") or path.stat().st_uid == os.getuid()
