"""Keeps the traffic of weights below what would slow tokens: a bounded rate while steps run, none otherwise."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

BUSY_BYTES_PER_S = 64 * 2**20  # of one process, while it computes or schedules steps


class Pace:
    """Shared by all transfers of a process; `is_busy` says whether steps run now."""

    def __init__(self, is_busy: Callable[[], bool], busy_bytes_per_s: float = BUSY_BYTES_PER_S) -> None:
        self._is_busy, self._busy_bytes_per_s = is_busy, busy_bytes_per_s
        self._free_s = 0.0

    async def moved(self, num_bytes: int) -> None:
        """Return when the next bytes may follow these."""
        if not self._is_busy():
            return
        now_s = time.monotonic()
        self._free_s = max(self._free_s, now_s) + num_bytes / self._busy_bytes_per_s
        await asyncio.sleep(self._free_s - now_s)
