"""Lets a stage on a CPU hand its steps over as one on a GPU does: the message leaves first, and the numbers come later.

`install` is for the nursery's processes: there they come `DELAY_S` later, from a thread.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

from engine.service.worker.handover.outlet import Outlet
from engine.service.worker.handover.ring import Place, word_of

DELAY_S = 0.004


class Clock:
    """Of work that ends when `fill` has been called."""

    def __init__(self) -> None:
        self.ordered_s = time.monotonic()
        self.ended_s = 0.0

    def stop(self) -> None:
        pass

    def ended(self) -> tuple[float, float] | None:
        return (self.ended_s - self.ordered_s, self.ended_s) if self.ended_s else None


class Copied:
    """Stands for a device's event."""

    def synchronize(self) -> None:
        pass


class LateOutlet(Outlet):
    """`later` gets the function that fills a slot."""

    def __init__(self, outlet: Outlet, later: Callable[[Callable[[], None]], object]) -> None:
        super().__init__(outlet._ring, "cpu", outlet.made_by)
        self._may_be_late, self._least_bytes, self._later = True, 0, later
        self._ring.memory._pinned_at = 1  # a CPU needs no pinning

    def clock(self) -> Any:
        return Clock()

    def fill_later(self, place: Place, out: torch.Tensor, clock: Any) -> Any:
        here, memory = out.clone(), self._ring.memory

        def fill() -> None:
            memory.data(place.start, tuple(here.shape), here.dtype).copy_(here)
            clock.ended_s = time.monotonic()
            memory.marks[place.index] = word_of(place, float(torch.linalg.vector_norm(here.float(), float("inf"))))

        self._untold.append((place, clock))
        self._later(fill)
        return here, Copied()

    def close(self) -> None:
        self._ring.memory._pinned_at = 0
        self._ring.close()


def install() -> None:
    make = Outlet.make.__func__  # type: ignore[attr-defined]

    def late(cls: type[Outlet], *arguments: Any) -> Outlet | None:
        outlet = make(cls, *arguments)
        return None if outlet is None else LateOutlet(outlet, _Delayed())

    Outlet.make = classmethod(late)  # type: ignore[method-assign,assignment]


class _Delayed:
    """Fills in the order in which it was asked, and says once that it did."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._has_said = False

    def __call__(self, fill: Callable[[], None]) -> Future[None]:
        def job() -> None:
            time.sleep(DELAY_S)
            fill()
            if not self._has_said:
                print(f"worker {os.getpid()} gave a step late", file=sys.stderr, flush=True)
                self._has_said = True

        return self._thread.submit(job)
