"""A step function of time in bounded memory: exact integral, and a sketch of its course."""

from __future__ import annotations

_MAX_POINTS = 512


class Timeline:
    """`points` are (time_s, value) with the largest value of each interval; the interval doubles when they become too many."""

    def __init__(self) -> None:
        self.points: list[tuple[float, int]] = []
        self.integral = 0.0  # value times seconds
        self._interval_s = 0.0
        self._last = (0.0, 0)

    def add(self, time_s: float, value: int) -> None:
        """The value from `time_s` on; times must not fall."""
        last_s, last_value = self._last
        self.integral += last_value * (time_s - last_s)
        self._last = (time_s, value)
        points = self.points
        if points and time_s - points[-1][0] < self._interval_s:
            if value > points[-1][1]:
                points[-1] = (points[-1][0], value)
            return
        points.append((time_s, value))
        if len(points) > _MAX_POINTS:
            self._thin_out()

    def _thin_out(self) -> None:
        """Neighbours become one, with the larger of their values."""
        self._interval_s = max(2.0 * self._interval_s, 2.0 * (self.points[-1][0] - self.points[0][0]) / _MAX_POINTS)
        kept: list[tuple[float, int]] = []
        for time_s, value in self.points:
            if kept and time_s - kept[-1][0] < self._interval_s:
                kept[-1] = (kept[-1][0], max(kept[-1][1], value))
            else:
                kept.append((time_s, value))
        self.points = kept

    def finish(self) -> tuple[tuple[float, int], ...]:
        """The sketch with the final value at its end."""
        return (*self.points, self._last) if self.points and self.points[-1] != self._last else tuple(self.points)
