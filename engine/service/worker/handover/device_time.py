"""How long a device computed, told afterwards by a host that did not wait for it."""

from __future__ import annotations

import time

import torch


class DeviceTime:
    """One stretch of work on the current stream of a CUDA device. By the host's monotonic clock it ends where its device says,
    counted from when it was ordered or, if that is later, from `after`'s end."""

    def __init__(self, after: DeviceTime | None = None) -> None:
        self._after = after
        self._first, self._last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self.ordered_s = time.monotonic()
        self._end_s = 0.0
        self._first.record()

    def stop(self) -> None:
        """What was ordered since it was made counts."""
        self._last.record()

    def ended(self) -> tuple[float, float] | None:
        """Seconds of work and when it ended; None while it goes on."""
        if not self._last.query():
            return None
        spent_s = self._first.elapsed_time(self._last) / 1e3
        if not self._end_s:
            before_s = 0.0 if self._after is None else (self._after.ended() or (0.0, 0.0))[1]
            self._end_s, self._after = max(self.ordered_s, before_s) + spent_s, None
        return spent_s, self._end_s
