"""The sender's side of a link through shared memory. It lives on the compute thread.

A stage on a GPU does not wait for its own result: copies into the slot are queued behind the computing, the message leaves at once, and
its latency passes while the device works. The reader waits for the slot's mark. What only the sender can know later, how long its
device computed, it adds to the slot's header once it is known.

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


@dataclass(slots=True)
class Given:
    """A step's hidden states that are on their way: the slot for the message, and a copy in the host's memory, [T, D]."""

    slot: pb.Slot
    copy: torch.Tensor
    is_copied: torch.cuda.Event | None = None  # None: it is


@dataclass(frozen=True, slots=True)
class LateRows:
    """Rows of a step that nobody has waited for; a step that comes twice is answered with them."""

    given: Given
    start: int
    stop: int

    def settled(self) -> torch.Tensor:
        """[stop - start, D]. Raises Corrupt if they are not finite."""
        if self.given.is_copied is not None:
            self.given.is_copied.synchronize()
        rows = self.given.copy[self.start : self.stop]
        payload.check_finite(rows, self.given.slot.made_by)
        return rows


class Giving:
    """One step's output on its way to its place. `start` begins to time it."""

    def __init__(self, outlet: Outlet, place: Place, is_late: bool) -> None:
        self._outlet, self._place, self._is_late = outlet, place, is_late
        self._clock: DeviceTime | None = None

    def start(self) -> None:
        if self._is_late:
            self._clock = self._outlet.clock()

    def give(self, out: torch.Tensor) -> Given:
        """Raises Corrupt if it is known by now that it is not finite."""
        if self._clock is None:
            return self._outlet.fill(self._place, out)
        return self._outlet.fill_later(self._place, out, self._clock)


class Outlet:
    """`made_by` names the stage, for what its reader finds wrong."""

    def __init__(self, ring: Ring, device: str, made_by: str) -> None:
        self._ring, self._device, self._made_by = ring, device, made_by
        self.is_late = device.startswith("cuda")  # whether a step is handed over before it is computed
        self._is_usable = True
        self._word = torch.zeros(2, dtype=torch.int32, device=device) if self.is_late else torch.zeros(0)
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
        """Room for a step's output [T, D]; None: it takes the stream."""
        if self.is_late and self._is_usable and self._ring.is_read:
            self._is_usable = self._ring.memory.pin()
        place = self._ring.reserve(num_bytes_of(shape, dtype)) if self._is_usable else None
        return None if place is None else Giving(self, place, self.is_late and may_be_late)

    def fill(self, place: Place, out: torch.Tensor) -> Given:
        """Put an output [T, D] into its place, and wait for it. Raises Corrupt if it is not finite."""
        memory = self._ring.memory
        copy = payload.checked_on_host(out, self._made_by)
        memory.data(place.start, tuple(out.shape), out.dtype).copy_(copy)
        memory.marks[place.index] = word_of(place, 0.0)
        return Given(self._slot(place, is_late=False), copy)

    def fill_later(self, place: Place, out: torch.Tensor, clock: DeviceTime) -> Given:
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
        return Given(self._slot(place, is_late=True), copy, is_copied)

    def clock(self) -> DeviceTime:
        """Begin to time a step."""
        return DeviceTime(self._newest)

    def _slot(self, place: Place, is_late: bool) -> pb.Slot:
        return pb.Slot(sequence=place.sequence, start=place.start, made_by=self._made_by, is_late=is_late)

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
        if self.is_late:
            torch.cuda.current_stream(self._device).synchronize()
        self._ring.close()
