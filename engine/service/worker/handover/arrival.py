"""One step's hidden states in shared memory, from its message on. It lives on the compute thread."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from engine.data.errors import Corrupt
from engine.model.running.feeding import Arriving
from engine.service.worker import payload
from engine.service.worker.handover.inlet import Inlet
from engine.service.worker.handover.ring import Place
from protos import noodle_pb2 as pb


class Arrival:
    """`is_over` says that nobody needs the step any more. `on_arrival` is called once it is there, before it is computed with."""

    def __init__(self, frame: pb.StepFrame, inlet: Inlet, is_over: Callable[[], bool]) -> None:
        self._frame, self._inlet, self._is_over = frame, inlet, is_over
        self._place: Place | None = None
        self._states: torch.Tensor | None = None
        self.on_arrival: Callable[[], object] = lambda: None
        self.arrived_s = 0.0  # by the clock `perf_counter`
        self.ended_s = 0.0  # when its sender's computing ended, by the clock `monotonic`; 0: before the message left

    @classmethod
    def of(cls, frame: pb.StepFrame, inlet: Inlet | None, is_over: Callable[[], bool]) -> Arrival | None:
        """None if the message has the hidden states in it, or none at all. Raises Corrupt."""
        if not frame.HasField("slot"):
            return None
        if inlet is None:
            raise Corrupt(f"a step is said to lie in slot {frame.slot.sequence} of memory that nobody shares with this worker")
        return cls(frame, inlet, is_over)

    def hidden(self, expected_shape: tuple[int, int]) -> Arriving:
        """Raises InvalidInput or Corrupt if it cannot be what this stage expects."""
        frame = self._frame
        self._place = self._inlet.at(frame.slot, tuple(frame.shape), frame.dtype, expected_shape)
        self._states = self._inlet.memory.data(self._place.start, expected_shape, payload.dtype_of(frame.dtype))
        return Arriving(expected_shape, self._states.dtype, self._arrive)

    def _arrive(self, target: torch.Tensor) -> None:
        slot, place, states = self._frame.slot, self._place, self._states
        if place is None or states is None:
            raise AssertionError("`hidden` comes first")
        word = self._inlet.wait(place, slot.made_by, self._is_over)
        self.on_arrival()
        self._inlet.take(place, word, states, target)
        self.arrived_s = time.perf_counter()
        if slot.is_late:
            self.ended_s = time.monotonic()

    def correct(self) -> float:
        """Complete what the sender could not know yet of its own computing: as it says by now, or else as it was seen from here. Returns
        when that ended; 0 if its message left later."""
        if self._place is None or not self.ended_s or not self._frame.timings:
            return 0.0
        timing = self._frame.timings[-1]
        spent_s, self.ended_s = self._inlet.times(self._place) or (max(0.0, self.ended_s - timing.done_s), self.ended_s)
        timing.compute_s, timing.done_s = spent_s, self.ended_s
        return self.ended_s
