"""Values of the last seconds, and their quantiles. Pure; bounded; medians, never means."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

from engine.data.status import WINDOW_S

MAX_VALUES = 4096  # of one window: the newest, if there are ever more
T = TypeVar("T")


def quantile(values: list[float], fraction: float) -> float:
    """The nearest-rank quantile; 0.0 of nothing."""
    if not values:
        return 0.0
    return sorted(values)[min(len(values) - 1, int(fraction * len(values)))]


def over_time(values: list[tuple[float, float]], fraction: float = 0.5) -> float:
    """Of (value, seconds that it lasted): for that part of the time the value was at most this. A change for the worse shows in the median
    after half a window, for the few slow steps count for as long as the many fast ones. 0.0 of nothing."""
    ordered, left_s = sorted(values), sum(lasted_s for _, lasted_s in values) * fraction
    for value, lasted_s in ordered:
        left_s -= lasted_s
        if left_s <= 0.0:
            return value
    return ordered[-1][0] if ordered else 0.0


class Window(Generic[T]):
    """What was added in the `length_s` before the last `forget_old`."""

    def __init__(self, length_s: float = WINDOW_S) -> None:
        self._length_s = length_s
        self._values: deque[tuple[float, T]] = deque(maxlen=MAX_VALUES)

    def add(self, value: T, now_s: float) -> None:
        self._values.append((now_s, value))

    def forget_old(self, now_s: float) -> None:
        while self._values and now_s - self._values[0][0] > self._length_s:
            self._values.popleft()

    def clear(self) -> None:
        self._values.clear()

    def __iter__(self) -> Iterator[T]:
        return (value for _, value in self._values)

    def __len__(self) -> int:
        return len(self._values)

    @property
    def newest_s(self) -> float | None:
        """When the newest value came; None without one."""
        return self._values[-1][0] if self._values else None
