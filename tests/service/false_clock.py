"""A wall clock that jumps, for the processes that a test starts: libfaketime in front of the C library, if this machine has it.

The monotonic clock stays true, as it does when an administrator or NTP sets the time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LIBRARIES = ("/usr/lib", "/usr/local/lib", "/opt/homebrew/lib")
NAME = "libfaketimeMT.so.1"


class FalseClock:
    """`jump` sets how far the clock of the processes is off, in seconds."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.jump(0.0)

    def jump(self, by_s: float) -> None:
        fresh = self._path.with_suffix(".new")
        fresh.write_text(f"{by_s:+.0f}\n")
        fresh.replace(self._path)  # whoever reads it finds it whole


def library() -> Path | None:
    return next((path for folder in LIBRARIES for path in Path(folder).rglob(NAME)), None)


@contextmanager
def false_clock(path: Path) -> Iterator[FalseClock | None]:
    """For processes that are started in the block; None without the library."""
    found = library()
    if found is None:
        yield None
        return
    clock = FalseClock(path)
    mine = {
        "LD_PRELOAD": str(found),
        "FAKETIME_TIMESTAMP_FILE": str(path),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    before = {name: os.environ.get(name) for name in mine}
    os.environ.update(mine)
    try:
        yield clock
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
