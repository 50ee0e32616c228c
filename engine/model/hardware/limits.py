"""The memory and cores that this process may really use: the machine's, or a container's limits where those bind.

A worker that plans with the host's memory inside a container is killed. Linux cgroups v1 and v2 are read; imports no
torch, so that machines without it can be examined too.
"""

from __future__ import annotations

import os
import platform
import zlib
from contextlib import suppress
from pathlib import Path

import psutil

_CGROUP = Path("/sys/fs/cgroup")


def num_cores() -> int:
    """Cores that this process may run on, by affinity and by the container's quota."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else psutil.cpu_count() or 1
    quota = _cpu_quota()
    return allowed if quota is None else max(1, min(allowed, int(quota)))


def cpu_memory_bytes() -> tuple[int, int]:
    """(total, free) bytes of main memory, by the machine and by the container, whichever is less."""
    machine = psutil.virtual_memory()
    total, free = machine.total, machine.available
    for limit, used in _cgroup_memory():
        total, free = min(total, limit), min(free, max(0, limit - used))
    return total, free


def host_pool_id() -> str:
    """A name for the main memory that this process allocates from, the same for all processes that share it.

    The kernel's boot id tells machines of one name apart; a container with a limit of its own is a memory of its own.
    """
    kernel = ""
    with suppress(OSError):
        kernel = Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]
    limited = [str(folder) for folder in _cgroup_folders() if _number(folder / "memory.max") is not None]
    inside = f"-{zlib.crc32(limited[0].encode()):08x}" if limited else ""
    return f"{platform.node() or 'host'}-{kernel}{inside}" if kernel else platform.node() or "host"


def _cgroup_folders() -> list[Path]:
    """The process's own cgroup and all above it: each may carry a limit."""
    with suppress(OSError, IndexError):
        entries = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
        own = next((path for _, controllers, path in entries if controllers in ("", "memory")), "/")
        parts = [part for part in own.split("/") if part and part != ".."]
        return [_CGROUP.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1)]
    return [_CGROUP]


def _cgroup_memory() -> list[tuple[int, int]]:
    """(limit, used) bytes of every cgroup that limits this process, without the file cache, which gives way."""
    found = []
    for folder in _cgroup_folders():
        limit, used = _number(folder / "memory.max"), _number(folder / "memory.current")
        if limit is not None and used is not None:
            found.append((limit, max(0, used - _inactive_file_bytes(folder))))
    legacy = _CGROUP / "memory"
    limit, used = _number(legacy / "memory.limit_in_bytes"), _number(legacy / "memory.usage_in_bytes")
    if limit is not None and used is not None:
        found.append((limit, max(0, used - _inactive_file_bytes(legacy))))
    return found


def _inactive_file_bytes(folder: Path) -> int:
    with suppress(OSError, ValueError):
        for line in (folder / "memory.stat").read_text().splitlines():
            name, _, value = line.partition(" ")
            if name in ("inactive_file", "total_inactive_file"):
                return int(value)
    return 0


def _cpu_quota() -> float | None:
    """Cores' worth of time that the tightest cgroup grants; None without a limit."""
    quotas = []
    for folder in _cgroup_folders():
        with suppress(OSError, ValueError):
            granted, period = (folder / "cpu.max").read_text().split()
            quotas.append(int(granted) / int(period))  # "max" is not a number: no limit
    return min(quotas, default=None)


def _number(path: Path) -> int | None:
    with suppress(OSError, ValueError):
        return int(path.read_text())
    return None
