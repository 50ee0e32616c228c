"""Where the time between two stages went, though no two hosts have the same clock. Pure.

Every worker says by its own clock when a step arrived and when its computing was done, the coordinator when it sent the step and when
the report came. The difference of two clocks is in every such hop, and cancels once around: what all hops of a step took together is
exact. Which of them took it is told by how much each is above the least that it ever was, for that least holds the clocks' difference.
What was slow from the plan's first step on shows on no hop more than on others: it is shared out as the plan has it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from engine.data.generation import StageTiming

_LEAST_S = 1e-6


class Hops:
    """One plan's hops: from the coordinator, between its stages, and back. `planned_s` are theirs in that order; empty if nobody knows."""

    def __init__(self, planned_s: Sequence[float] = ()) -> None:
        self._planned_s = tuple(max(_LEAST_S, s) for s in planned_s)
        self._floor_s: list[float] = []

    def split(self, timings: Sequence[StageTiming], sent_s: float, now_s: float) -> tuple[float, ...]:
        """Seconds of each hop of a step that was sent and came back then; encoding, decoding and the wire are part of them."""
        total_s = max(0.0, now_s - sent_s - math.fsum(t.compute_s + t.queue_s for t in timings))
        count = len(timings) + 1
        shares = self._planned_s if len(self._planned_s) == count else (1.0,) * count
        even = tuple(total_s * share / math.fsum(shares) for share in shares)
        if not all(t.arrived_s and t.done_s for t in timings):
            return even
        left = [sent_s, *(t.done_s for t in timings)]
        came = [*(t.arrived_s + t.wire_in_s for t in timings), now_s]
        seen = [b - a for a, b in zip(left, came, strict=True)]
        self._floor_s = [min(pair) for pair in zip(self._floor_s, seen, strict=True)] if len(self._floor_s) == count else seen
        excess = [s - floor for s, floor in zip(seen, self._floor_s, strict=True)]
        beyond_s, known_s = math.fsum(excess), math.fsum(self._planned_s) if len(self._planned_s) == count else 0.0
        free_s = min(beyond_s, max(0.0, total_s - known_s)) if known_s else beyond_s
        if beyond_s <= 0.0 or free_s <= 0.0:
            return even
        rest = (total_s - free_s) / total_s if total_s > 0.0 else 0.0
        return tuple(e * rest + free_s * x / beyond_s for e, x in zip(even, excess, strict=True))


def planned_hops(round_trip_s: float, stage_s: Sequence[float], hop_s: Sequence[float]) -> tuple[float, ...]:
    """Of a plan: in from the coordinator, between its stages, and back; both ends are taken for equally long."""
    ends_s = max(0.0, round_trip_s - math.fsum(stage_s) - math.fsum(hop_s)) / 2
    return (ends_s, *hop_s[:-1], ends_s) if len(stage_s) == len(hop_s) else ()
