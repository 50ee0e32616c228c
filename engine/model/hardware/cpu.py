"""The CPU as the system describes it: name, cores, caches, vector units, power limit. Linux tells most, others less.

Imports no torch. What the system does not tell is empty, 0 or None, never a guess.
"""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from engine.model.hardware.limits import cpu_memory_bytes, num_cores

_CPU = Path("/sys/devices/system/cpu")
_POWERCAP = Path("/sys/class/powercap")
_CPUINFO = Path("/proc/cpuinfo")
# Those that change the speed of matrix products, by the names that Linux gives them on x86 and ARM.
_VECTOR_UNITS = (
    "sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "avx512_fp16",
    "amx_tile", "amx_bf16", "amx_int8", "amx_fp16", "asimd", "asimdhp", "asimddp", "bf16", "i8mm", "sve", "sve2", "sme",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cache:
    """One level of cache as one core sees it."""

    level: int
    kind: str  # data, instruction, unified
    size_bytes: int
    num_sharing: int  # logical CPUs that share it


@dataclass(frozen=True, slots=True)
class Cpu:
    """The machine's processor, and what this process may use of it."""

    name: str
    architecture: str
    num_logical: int
    num_physical: int  # 0 where the system does not tell
    num_usable: int  # by affinity and by the container's quota
    caches: tuple[Cache, ...]
    vector_units: tuple[str, ...]
    memory_total_bytes: int
    memory_free_bytes: int
    power_w: float | None


def read_cpu() -> Cpu:
    """One look; never raises for what a system keeps to itself."""
    total, free = cpu_memory_bytes()
    return Cpu(
        name=cpu_name(),
        architecture=platform.machine(),
        num_logical=psutil.cpu_count() or 1,
        num_physical=psutil.cpu_count(logical=False) or 0,
        num_usable=num_cores(),
        caches=caches(),
        vector_units=_vector_units(),
        memory_total_bytes=total,
        memory_free_bytes=free,
        power_w=_power_w(),
    )


def cpu_name() -> str:
    """The name that its maker gave it."""
    return _cpuinfo("model name", "Model") or platform.processor() or platform.machine() or "CPU"


def caches(cpu: int = 0) -> tuple[Cache, ...]:
    """The caches of one core, smallest level first; empty where the system does not tell."""
    found = []
    for folder in sorted((_CPU / f"cpu{cpu}" / "cache").glob("index*")):
        with suppress(OSError, ValueError):
            size_bytes = size_in_bytes((folder / "size").read_text())
            kind = (folder / "type").read_text().strip().lower()
            found.append(Cache(int((folder / "level").read_text()), kind, size_bytes, _num_cpus((folder / "shared_cpu_list").read_text())))
    return tuple(sorted(found, key=lambda cache: (cache.level, cache.kind)))


def size_in_bytes(text: str) -> int:
    """`491520K` as a number of bytes. Raises ValueError for anything else."""
    number, unit = text.strip()[:-1], text.strip()[-1:]
    return int(number) * {"K": 2**10, "M": 2**20, "G": 2**30}[unit] if unit in "KMG" else int(text)


def _num_cpus(listed: str) -> int:
    """How many CPUs a list such as `0-3,8` names."""
    spans = [part.partition("-") for part in listed.strip().split(",") if part]
    return sum(int(last or first) - int(first) + 1 for first, _, last in spans)


def _vector_units() -> tuple[str, ...]:
    flags = set((_cpuinfo("flags", "Features") or "").split())
    return tuple(name for name in _VECTOR_UNITS if name in flags)


def _cpuinfo(*keys: str) -> str:
    """The value of the first line that carries one of the keys."""
    with suppress(OSError):
        for line in _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in keys:
                return value.strip()
    return ""


def _power_w() -> float | None:
    """What the packages together may draw for long, by their RAPL limits; most virtual machines do not tell."""
    limits = []
    for folder in sorted(_POWERCAP.glob("intel-rapl:*")) if os.name == "posix" else ():
        if folder.name.count(":") == 1:  # a package, not a part of one
            with suppress(OSError, ValueError):
                limits.append(int((folder / "constraint_0_power_limit_uw").read_text()) / 1e6)
    return sum(limits) or None


def cache_bytes() -> int:
    """Size of the largest CPU cache as Linux reports it; elsewhere a guess on the large side."""
    return min(max((cache.size_bytes for cache in caches()), default=64 * 2**20), 512 * 2**20)
