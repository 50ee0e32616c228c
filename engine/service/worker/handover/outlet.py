"""The sender's side of a link through shared memory. It lives on the compute thread.

A stage on a GPU does not wait for its own result: copies into the slot are queued behind the computing, the message leaves at once, and
its latency passes while the device works; the reader waits for the slot's mark. (To send it before the device has its orders is slower:
the threads that send and that give orders share one interpreter.) What only the sender can know later, how long its device
computed, it adds to the slot's header once it is known.

Shapes: T tokens of a step, D hidden size.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import torch

from engine.service.worker import payload
from engine.service.worker.handover.device_time import DeviceTime
from engine.service.worker.handover.ring import Place, Ring, num_bytes_of, word_of
from protos import noodle_pb2 as pb

STEP_TOKENS = 2048  # of the steps on their way there is room for so many together; others take the stream
LEAST_BYTES_ON_CPU = 256 * 1024  # smaller outputs are cheaper within the message


class Giving:
    """One step's output [T, D] and the slot that it goes to. With `is_late` nobody waits until it is there."""

    def __init__(self, outlet: Outlet, place: Place, shape: tuple[int, int], dtype: torch.dtype, is_late: bool) -> None:
        self._outlet, self._place, self.shape, self.dtype, self.is_late = outlet, place, shape, dtype, is_late
        self.slot = pb.Slot(sequence=place.sequence, start=place.start, made_by=outlet.made_by, is_late=is_late)
        self.copy: torch.Tensor | None = None  # in the host's memory, once `is_copied` says so
        self.is_copied: torch.cuda.Event | None = None  # None: it is
        self._clock: DeviceTime | None = None

    def start(self) -> None:
        """The device begins with it."""
        if self.is_late:
            self._clock = self._outlet.clock()

    def give(self, out: torch.Tensor) -> torch.Tensor:
        """Put it into its place; returns it in the host's memory, or on its way there. Raises Corrupt if it is known by now that it is
        not finite; what is late is checked by its reader."""
        if self._clock is None:
            self.copy = self._outlet.fill(self._place, out)
        else:
            self.copy, self.is_copied = self._outlet.fill_later(self._place, out, self._clock)
        return self.copy


@dataclass(frozen=True, slots=True)
class LateRows:
    """Rows of a step that nobody has waited for; a step that comes twice is answered with them."""

    giving: Giving
    start: int
    stop: int

    def settled(self) -> torch.Tensor:
        """[stop - start, D]. Raises Corrupt if they are not finite."""
        giving = self.giving
        if giving.copy is None:
            raise AssertionError("what was not given is nobody's reply")
        if giving.is_copied is not None:
            giving.is_copied.synchronize()
        rows = giving.copy[self.start : self.stop]
        payload.check_finite(rows, giving.slot.made_by)
        return rows


class Outlet:
    """`made_by` names the stage, for what its reader finds wrong."""

    def __init__(self, ring: Ring, device: str, made_by: str) -> None:
        self._ring, self._device, self.made_by = ring, device, made_by
        self._may_be_late = device.startswith("cuda")
        self._least_bytes = 0 if self._may_be_late else LEAST_BYTES_ON_CPU
        self._is_usable = True
        self._word = torch.zeros(2, dtype=torch.int32, device=device) if self._may_be_late else torch.zeros(0)
        self._untold: deque[tuple[Place, DeviceTime]] = deque()
        self._newest: DeviceTime | None = None

    @classmethod
    def make(cls, device: str, hidden_size: int, dtype: torch.dtype, made_by: str) -> Outlet | None:
        """None where workers share no memory."""
        ring = Ring.make(num_bytes_of((STEP_TOKENS, hidden_size), dtype)) if device.startswith(("cpu", "cuda")) else None
        return None if ring is None else cls(ring, device, made_by)

    @property
    def offer(self) -> str:
        return self._ring.offer

    def begin(self, shape: tuple[int, int], dtype: torch.dtype, may_be_late: bool) -> Giving | None:
        """Room for a step's output; None: it takes the stream."""
        if self._may_be_late and self._is_usable and self._ring.is_read:
            self._is_usable = self._ring.memory.pin()
        num_bytes = num_bytes_of(shape, dtype)
        place = self._ring.reserve(num_bytes) if self._is_usable and num_bytes >= self._least_bytes else None
        return None if place is None else Giving(self, place, shape, dtype, self._may_be_late and may_be_late)

    def fill(self, place: Place, out: torch.Tensor) -> torch.Tensor:
        """Put an output [T, D] into its place, and wait for it; returns it in the host's memory. Raises Corrupt if it is not finite."""
        memory = self._ring.memory
        copy = payload.checked_on_host(out, self.made_by)
        memory.data(place.start, tuple(out.shape), out.dtype).copy_(copy)
        memory.marks[place.index] = word_of(place, 0.0)
        return copy

    def fill_later(self, place: Place, out: torch.Tensor, clock: DeviceTime) -> tuple[torch.Tensor, torch.cuda.Event]:
        """The same without waiting; whether it is finite, its reader finds out. Stops the clock."""
        clock.stop()
        memory = self._ring.memory
        memory.data(place.start, tuple(out.shape), out.dtype).copy_(out, non_blocking=True)
        self._word[0].fill_(place.mark)
        torch.linalg.vector_norm(out, math.inf, dtype=torch.float32, out=self._word[1].view(torch.float32))
        memory.words[place.index].copy_(self._word, non_blocking=True)  # behind the bytes, 8 bytes at once
        copy = torch.empty(out.shape, dtype=out.dtype, pin_memory=True)
        copy.copy_(out, non_blocking=True)
        is_copied = torch.cuda.Event()
        is_copied.record()
        self._untold.append((place, clock))
        self._newest = clock
        return copy, is_copied

    def clock(self) -> DeviceTime:
        """Begin to time a step."""
        return DeviceTime(self._newest)

    def tell_times(self) -> list[float]:
        """Write down how long steps were computed that have ended since; returns those seconds."""
        told = []
        while self._untold and (ended := self._untold[0][1].ended()) is not None:
            place, _ = self._untold.popleft()
            self._ring.tell(place, *ended)
            told.append(ended[0])
        return told

    @property
    def has_untold(self) -> bool:
        return bool(self._untold)

    def close(self) -> None:
        """No step is given any more; waits for those on their way."""
        if self._may_be_late:
            torch.cuda.current_stream(self._device).synchronize()
        self._ring.close()
