"""Virtual time: a heap of timed calls. Calls of one instant run in the order in which they were asked for."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any


class VirtualClock:
    """`now_s` is the time of the call that runs; it never goes back."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._heap: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self._asked = 0

    def at(self, time_s: float, call: Callable[[Any], None], argument: Any) -> None:
        """Run `call(argument)` at `time_s`, which must not lie in the past."""
        if time_s < self.now_s:
            raise AssertionError(f"asked for {time_s}, it is {self.now_s} already")
        self._asked += 1
        heapq.heappush(self._heap, (time_s, self._asked, call, argument))

    def run(self) -> None:
        """Until nothing is left to do."""
        heap = self._heap
        while heap:
            self.now_s, _, call, argument = heapq.heappop(heap)
            call(argument)
