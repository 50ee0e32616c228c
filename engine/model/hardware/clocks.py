"""Clocks for hooks: they put marks on a list as cheaply as the device allows and turn them into seconds afterwards.

On a CPU a mark is `perf_counter_ns`. On CUDA it is an event in the stream: kernels run behind the program's back, and
only the stream knows when. Events are read after one synchronise at the end of the step, never between layers.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns
from typing import Any, Protocol

import torch

from engine.data.errors import NotSupported

Mark = tuple[int, float]  # a code and a time in seconds; what the codes mean is up to the caller
Hook = Callable[..., None]


class Clock(Protocol):
    """`mark` and the hooks run inside the step; everything else runs outside it."""

    def mark(self, code: int) -> None: ...
    def hook(self, code: int) -> Hook:
        """A forward hook or pre-hook that marks `code` and leaves the module's values alone."""
        ...

    def synchronise(self) -> None: ...
    def take(self) -> list[Mark]:
        """The marks since the last call, in seconds, and forget them."""
        ...

    def forget(self) -> None: ...


def clock_for(device: str) -> Clock:
    """Raises NotSupported for a device whose queue this program cannot time."""
    if device == "cpu":
        return CpuClock()
    if device.startswith("cuda"):
        return CudaClock(device)
    raise NotSupported(f"layers on {device!r} cannot be timed one by one: profile on the CPU or a CUDA GPU")


class CpuClock:
    """One flat list of code, nanoseconds, code, nanoseconds: extending it by a pair costs 60 ns."""

    def __init__(self) -> None:
        self._marks: list[int] = []

    def mark(self, code: int) -> None:
        self._marks.extend((code, perf_counter_ns()))

    def hook(self, code: int) -> Hook:
        extend, now_ns = self._marks.extend, perf_counter_ns

        def mark(*_: Any) -> None:
            extend((code, now_ns()))

        return mark

    def synchronise(self) -> None:
        pass  # a CPU call has ended when it returns

    def take(self) -> list[Mark]:
        marks = [(code, 1e-9 * at_ns) for code, at_ns in zip(self._marks[::2], self._marks[1::2], strict=True)]
        self.forget()
        return marks

    def forget(self) -> None:
        self._marks.clear()  # in place: the hooks hold this list


class CudaClock:
    """CUDA events, reused from step to step because creating one costs more than recording it."""

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)
        self._free: list[torch.cuda.Event] = []
        self._marks: list[tuple[int, torch.cuda.Event]] = []
        self._stream: torch.cuda.Stream | None = None

    def mark(self, code: int) -> None:
        event = self._free.pop() if self._free else torch.cuda.Event(enable_timing=True)
        event.record(self._stream)
        self._marks.append((code, event))

    def hook(self, code: int) -> Hook:
        mark = self.mark

        def record(*_: Any) -> None:
            mark(code)

        return record

    def synchronise(self) -> None:
        torch.cuda.synchronize(self._device)
        self._stream = torch.cuda.current_stream(self._device)  # looked up here, because that costs as much as an event

    def take(self) -> list[Mark]:
        self.synchronise()
        first = self._marks[0][1] if self._marks else None
        marks = [(code, 1e-3 * first.elapsed_time(event)) for code, event in self._marks if first is not None]
        self.forget()
        return marks

    def forget(self) -> None:
        self._free.extend(event for _, event in self._marks)
        self._marks.clear()
