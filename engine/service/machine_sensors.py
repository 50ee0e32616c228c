"""What the operating system says of the whole machine: cores and who has them, clock, swapping, memory, disk.

Shares of time are those of the last `WINDOW_S`: a look at one moment says nothing of a load. Missing or broken is None, never a fault.
"""

from __future__ import annotations

import shutil
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil

from engine.data.status import MachineGauges

WINDOW_S = 5.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Look:
    at_s: float
    total_s: float  # of all cores together
    idle_s: float
    stolen_s: float
    swapped_bytes: int


class MachineSensors:
    """`folder` is the one whose disk matters; it is used by one thread."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self._looks: deque[_Look] = deque()

    def read(self) -> MachineGauges:
        """One look, compared with the one of `WINDOW_S` ago."""
        memory, now = _or_none(psutil.virtual_memory), _look()
        busy = stolen = swapped = None
        if now is not None:
            self._looks.append(now)
            while len(self._looks) > 2 and now.at_s - self._looks[1].at_s >= WINDOW_S:
                self._looks.popleft()
            first = self._looks[0]
            if (total_s := now.total_s - first.total_s) > 0.0:
                busy = _share(total_s - (now.idle_s - first.idle_s), total_s)
                stolen = _share(now.stolen_s - first.stolen_s, total_s)
                swapped = max(0.0, (now.swapped_bytes - first.swapped_bytes) / max(1e-3, now.at_s - first.at_s))
        return MachineGauges(
            num_cores=psutil.cpu_count() or 0,
            busy=busy,
            stolen=stolen,
            clock=_or_none(_clock),
            swapped_bytes_per_s=swapped,
            free_bytes=memory.available if memory else None,
            total_bytes=memory.total if memory else None,
            disk_free_bytes=disk_free_bytes(self.folder) if self.folder is not None else None,
        )


def disk_free_bytes(folder: Path) -> int | None:
    """What the disk of a folder, which may not be there yet, still takes; None if nobody knows."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return _or_none(lambda: shutil.disk_usage(folder).free)


def _look() -> _Look | None:
    times, swap = _or_none(psutil.cpu_times), _or_none(psutil.swap_memory)
    if times is None:
        return None
    guests_s = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)  # user time counts them already
    idle_s = times.idle + getattr(times, "iowait", 0.0)
    swapped_bytes = swap.sin + swap.sout if swap else 0
    return _Look(time.monotonic(), sum(times) - guests_s, idle_s, getattr(times, "steal", 0.0), swapped_bytes)


def _share(part_s: float, whole_s: float) -> float:
    return min(1.0, max(0.0, part_s / whole_s))


def _clock() -> float | None:
    found = psutil.cpu_freq()
    return min(1.0, found.current / found.max) if found and found.max > 0 and found.current > 0 else None


def _or_none(read: Callable[[], T]) -> T | None:
    try:
        return read()
    except Exception:  # not on this system, or its files are unreadable
        return None
