"""When one step came, began and was computed, as its worker's clock says, and what its message says of that."""

from __future__ import annotations

import time
from dataclasses import dataclass

from protos import noodle_pb2 as pb


@dataclass(slots=True)
class StepTimes:
    """By the clock `perf_counter`. A step that others still compute when its message comes `ended_s` later than that, by `monotonic`."""

    received_s: float
    started_s: float
    computing_s: float = 0.0
    computed_s: float = 0.0
    ended_s: float = 0.0  # 0: it was computed before its message left

    def write(self, timing: pb.StageTiming, *, is_computed: bool) -> None:
        """Fill in a message's entry; a step that is not computed yet has 0 there, and its reader learns it later."""
        now_s, clock_s = time.perf_counter(), time.monotonic()  # a wall clock jumps
        received_s, arrived_s = self.received_s, clock_s - (now_s - self.received_s)
        if (late_s := self.ended_s - arrived_s) > 0.0:
            received_s, arrived_s = received_s + late_s, self.ended_s
        timing.compute_s = max(0.0, self.computed_s - self.computing_s) if is_computed else 0.0
        timing.queue_s = max(0.0, self.started_s - received_s)
        timing.wire_in_s = max(0.0, self.computing_s - max(self.started_s, received_s))
        timing.wire_out_s = now_s - self.computed_s if is_computed else 0.0
        timing.arrived_s, timing.done_s = arrived_s, clock_s - timing.wire_out_s
