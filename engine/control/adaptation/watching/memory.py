"""Is a node running out of memory? Its share of the cap now, and a robust trend of the last minutes.

The slope is the median of the slopes between all pairs of samples (Theil 1950, Sen 1968): one loading stage or one
released session does not bend it. It counts as a trend only if nearly all pairs agree on its sign.
"""

from __future__ import annotations

from collections import deque

from engine.control.adaptation.watching.view import MemorySample

_NUM_SAMPLES = 24
_MIN_SAMPLES = 12
_SPACING_S = 5.0
_AGREEMENT = 0.9  # of all pairs that must rise
_MIN_RISE = 0.01  # of the cap over the window


class MemoryTrend:
    """The last two minutes of one node; KV is left out of the trend, for the scheduler bounds it."""

    def __init__(self) -> None:
        self.newest: MemorySample | None = None
        self.growth_bytes_per_s = 0.0  # the trend, 0 unless it is a clear and sizeable rise
        self._samples: deque[tuple[float, float]] = deque(maxlen=_NUM_SAMPLES)  # (seconds, bytes without KV)

    def add(self, sample: MemorySample, now_s: float) -> None:
        self.newest = sample
        if not self._samples or now_s - self._samples[-1][0] >= _SPACING_S:
            self._samples.append((now_s, float(sample.used_bytes - sample.kv_used_bytes)))
            if len(self._samples) >= _MIN_SAMPLES:
                self.growth_bytes_per_s = self._growth(sample.cap_bytes)

    def restart(self) -> None:
        """The node's stage changed: what it uses is another story now, what leaks beside the stage goes on until samples say otherwise."""
        self._samples.clear()

    @property
    def share(self) -> float:
        """Used part of the cap, 0 before the first sample or without a cap."""
        return self.newest.used_bytes / self.newest.cap_bytes if self.newest and self.newest.cap_bytes > 0 else 0.0

    @property
    def kv_share(self) -> float:
        return self.newest.kv_used_bytes / self.newest.kv_budget_bytes if self.newest and self.newest.kv_budget_bytes > 0 else 0.0

    def _growth(self, cap_bytes: float) -> float:
        samples = list(self._samples)
        slopes = sorted((b1 - b0) / (t1 - t0) for i, (t0, b0) in enumerate(samples) for t1, b1 in samples[i + 1 :])
        slope, rises = slopes[len(slopes) // 2], sum(s > 0.0 for s in slopes)
        rise = slope * (samples[-1][0] - samples[0][0])
        return slope if rises >= _AGREEMENT * len(slopes) and rise >= _MIN_RISE * cap_bytes else 0.0

    def exhaustion_s(self) -> float:
        """Seconds until the cap is reached if the trend goes on; infinite without a trend."""
        if self.newest is None or self.growth_bytes_per_s <= 0.0:
            return float("inf")
        return max(0.0, (self.newest.cap_bytes - self.newest.used_bytes) / self.growth_bytes_per_s)
