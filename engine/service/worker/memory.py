"""Resident memory of this process, now and at its highest."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil

_STATUS = Path("/proc/self/status")


def resident_bytes() -> int:
    return int(psutil.Process().memory_info().rss)


def reset_peak() -> None:
    """Start a new high-water mark (Linux; elsewhere the mark covers the whole life of the process)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_resident_bytes() -> int:
    """The highest resident memory since `reset_peak`; the present one where the system does not tell."""
    with contextlib.suppress(OSError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    info = psutil.Process().memory_info()
    return int(getattr(info, "peak_wset", info.rss))
