"""The reader's side of a link through shared memory. Apart from `end`, it lives on the compute thread.

A message may come before the device of its sender has computed what it tells of: then the reader waits for the slot's mark, and knows
when to give up: the stream ended, another plan is due, or it takes too long.

Shapes: T tokens of a step, D hidden size.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator

import torch

from engine.data.errors import Corrupt, InvalidInput, Unavailable
from engine.service.worker import payload
from engine.service.worker.handover.ring import ALIGNMENT, DATA_START, NUM_SLOTS, Memory, Place, magnitude_of, num_bytes_of, opened
from protos import noodle_pb2 as pb

LOOKS_S = 4e-5  # a wait is long looks, which keep the interpreter, and short pauses, in which its other threads run
PAUSES_S = (5e-6, 2e-4)  # for as long as a decode step may take, and later on
SOON_S = 0.05
_SET_TIMER_SLACK = 29  # of prctl
LIMIT_S = 60.0  # a sender that still has its stream


def sleep_exactly() -> None:
    """Let short sleeps of this thread be short: Linux rounds them up by 50 us otherwise, which is as much as a hop may cost."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_SET_TIMER_SLACK, 1, 0, 0, 0)


class GivenUp(Exception):
    """Nobody needs the step any more."""


@contextlib.contextmanager
def reading(inlet: Inlet | None, sequence: int) -> Iterator[None]:
    """A step that may lie in a slot: whatever becomes of it, its sender gets the slot back. Raises Corrupt as `Inlet.give_back`."""
    try:
        yield
    finally:
        if inlet is not None:
            inlet.leave(sequence)


class Inlet:
    """One stream's memory, for a stage on `device`."""

    def __init__(self, memory: Memory, device: str) -> None:
        self.memory, self.device = memory, device
        self.has_ended = False
        self._is_pinned = device.startswith("cuda") and memory.pin()
        self._newest = 0
        self._copying: deque[tuple[Place, int, torch.cuda.Event | None]] = deque()  # with the word that its header had

    @classmethod
    def of(cls, offer: str | bytes | None, device: str) -> Inlet | None:
        """Read what a sender offers, and let it know; None if that cannot be read here."""
        memory = opened(str(offer)) if offer else None
        if memory is None:
            return None
        inlet = cls(memory, device)
        memory.state[0] = 1
        return inlet

    def end(self) -> None:
        """The stream ended: nothing that is not there yet will come. From any thread."""
        self.has_ended = True

    def at(self, slot: pb.Slot, shape: tuple[int, ...], dtype_number: int, expected_shape: tuple[int, ...]) -> Place:
        """The place of a message's hidden states. Raises InvalidInput or Corrupt if it cannot be that."""
        if shape != expected_shape:
            raise InvalidInput(f"hidden states of shape {shape} arrived, this stage expects {expected_shape}")
        num_bytes, room = num_bytes_of(shape, payload.dtype_of(dtype_number)), self.memory.num_bytes - DATA_START
        if slot.start + num_bytes > room or slot.start % ALIGNMENT:
            where = f"begins at {slot.start} and has {num_bytes} bytes"
            raise Corrupt(f"slot {slot.sequence} {where}: slots begin at multiples of {ALIGNMENT}, the shared memory has {room}")
        if not self._newest < slot.sequence < int(self.memory.state[1]) + NUM_SLOTS:
            raise Corrupt(f"slot {slot.sequence} cannot follow slot {self._newest}: it was read, or never given")
        return Place(slot.sequence, slot.start)

    def wait(self, place: Place, made_by: str, is_over: Callable[[], bool]) -> int:
        """The word of a slot's header once it is filled. Raises Corrupt, Unavailable or GivenUp."""
        began_s, looking_s = time.perf_counter(), None
        while (word := int(self.memory.marks[place.index])) == 0:
            spent_s = time.perf_counter() - began_s
            if is_over() or self.has_ended:
                raise GivenUp
            if spent_s > LIMIT_S:
                raise Unavailable(f"{made_by} gave a step before it was computed, and {LIMIT_S:.0f} s later it is not there")
            if looking_s is None:
                looking_s = spent_s
            elif spent_s - looking_s > LOOKS_S:
                time.sleep(PAUSES_S[spent_s > SOON_S])
                looking_s = None
        if word & 0xFFFFFFFF != place.mark:
            raise Corrupt(f"slot {place.sequence} has the mark of another one: it was written again before it was read")
        if not math.isfinite(magnitude_of(word)):
            payload.raise_non_finite(made_by)
        return word

    def take(self, place: Place, word: int, states: torch.Tensor, target: torch.Tensor) -> None:
        """Copy a slot's states [T, D], or let the device do so: `leave` says whether they stayed as they were meanwhile."""
        target.copy_(states, non_blocking=self._is_pinned)
        copied = None
        if self._is_pinned:
            copied = torch.cuda.Event()
            copied.record()
        self._newest = place.sequence
        self._copying.append((place, word, copied))

    def leave(self, sequence: int) -> None:
        """A step is over, whether its slot was taken or not; 0: it had none. Raises Corrupt as `give_back`."""
        if self._newest < sequence < int(self.memory.state[1]) + NUM_SLOTS:
            self._newest = sequence
            self._copying.append((Place(sequence, 0), 0, None))
        self.give_back()

    def give_back(self) -> None:
        """Let the sender write again what has been copied. Raises Corrupt if it did so before."""
        while self._copying and ((copied := self._copying[0][2]) is None or copied.query()):
            place, word, _ = self._copying.popleft()
            if word and int(self.memory.marks[place.index]) != word:
                raise Corrupt(f"slot {place.sequence} was written again while it was read")
            self.memory.state[1] = place.sequence

    def times(self, place: Place) -> tuple[float, float] | None:
        """Seconds that a late step was computed and when that ended, if its sender has said so."""
        spent_s, ended_s = (float(number) for number in self.memory.times[place.index])
        return (spent_s, ended_s) if 0.0 <= spent_s < math.inf and 0.0 < ended_s < math.inf else None

    def close(self) -> None:
        """No step is taken any more; waits for copies that are under way."""
        for _, _, copied in self._copying:
            if copied is not None:
                copied.synchronize()
        self._copying.clear()
        self.memory.unpin()
