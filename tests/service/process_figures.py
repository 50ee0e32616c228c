"""What a process holds: resident memory, threads, descriptors; and whether that stayed flat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import psutil

MOST_GROWTH = 0.05
SLACK_BYTES = 8 * 2**20  # what an allocator keeps of a burst
SLACK_THREADS = 8  # pools have a limit, and fill as they are needed
SLACK_DESCRIPTORS = 8


@dataclass(frozen=True, slots=True)
class ProcessFigures:
    resident_bytes: int
    num_threads: int
    num_descriptors: int

    def __str__(self) -> str:
        return f"{self.resident_bytes / 2**20:.1f} MiB, {self.num_threads} threads, {self.num_descriptors} descriptors"


def figures_of(pids: Mapping[str, int]) -> dict[str, ProcessFigures]:
    """Of those of the processes that are alive, by name."""
    found = {}
    for name, pid in pids.items():
        try:
            process = psutil.Process(pid)
            found[name] = ProcessFigures(process.memory_info().rss, process.num_threads(), process.num_fds())
        except psutil.NoSuchProcess:
            continue
    return found


def growth(before: Mapping[str, ProcessFigures], after: Mapping[str, ProcessFigures]) -> list[str]:
    """A sentence for each figure that is not flat."""
    said = []
    for name, was in before.items():
        now = after.get(name)
        if now is None:
            said.append(f"{name} is gone")
            continue
        most_bytes = was.resident_bytes * (1 + MOST_GROWTH) + SLACK_BYTES
        if (
            now.resident_bytes > most_bytes
            or now.num_threads > was.num_threads + SLACK_THREADS
            or now.num_descriptors > was.num_descriptors + SLACK_DESCRIPTORS
        ):
            said.append(f"{name} grew: {was}; then {now}")
    return said
