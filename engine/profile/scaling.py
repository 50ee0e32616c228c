"""Item times for a node that nobody measured, from a profile taken elsewhere and that node's micro-benchmark.

The roofline gives what an item needs at least on each machine: max(FLOPs / FLOP/s, bytes / bytes/s). Up to
`OVERHEAD_FACTOR` times that, its measured time is work that did not reach the roof, and changes as the roof does; what is
above it waited for something else (dispatch, launches), and changes as the cost of one tiny operation does.
S. Williams, A. Waterman, D. Patterson: Roofline, an insightful visual performance model (CACM 52(4), 2009).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from engine.data.errors import InvalidInput
from engine.profile.hardware import HardwareCapability
from engine.profile.point import Point
from engine.profile.profile import Profile, Roofline

OVERHEAD_FACTOR = 2.0  # an item that takes more than twice what bytes and FLOPs need is waiting for something else


@dataclass(frozen=True, slots=True)
class ItemWork:
    """One item at one point: what it took where it was measured, and what it has to compute and to move."""

    time_s: float
    flops: float
    moved_bytes: float

    def needed_s(self, roof: Roofline) -> float:
        """The least time under `roof`."""
        return max(self.flops / roof.flops_per_s, self.moved_bytes / roof.bytes_per_s)


def work_of(profile: Profile, point: Point) -> tuple[ItemWork, ...]:
    """The work of every item, from the profile's outermost layers. Raises InvalidInput for a point that was not measured."""
    item_of = {layer.path: layer.item for layer in profile.layers}
    flops, moved = [0.0] * len(profile.items), [0.0] * len(profile.items)
    for layer in profile.layers:
        figures, item = layer.at(point), layer.item
        is_outermost = layer.parent is None or item_of.get(layer.parent) != item
        if figures is not None and item is not None and is_outermost:
            flops[item] += figures.flops
            moved[item] += figures.moved_bytes
    return tuple(ItemWork(_time_s(profile, index, point), flops[index], moved[index]) for index in range(len(profile.items)))


def _time_s(profile: Profile, index: int, point: Point) -> float:
    figures = profile.items[index].at(point)
    if figures is None:
        raise InvalidInput(f"the profile has no point {point.label!r}: it has {', '.join(p.label for p in profile.points)}")
    return figures.time_s


def scaled_item_s(work: Sequence[ItemWork], measured_under: Roofline, node: HardwareCapability, dtype: str) -> tuple[float, ...]:
    """Seconds of every item on `node` in `dtype`, inf where the node cannot run it. On the reference itself: what was measured."""
    roof = node.rooflines.get(dtype)
    if roof is None:
        return (math.inf,) * len(work)
    return tuple(_scaled_s(item, measured_under, roof) for item in work)


def _scaled_s(item: ItemWork, before: Roofline, after: Roofline) -> float:
    needed_s = item.needed_s(before)
    working_s = min(item.time_s, OVERHEAD_FACTOR * needed_s)
    both_known = before.dispatch_s > 0 and after.dispatch_s > 0
    waiting_s = (item.time_s - working_s) * (after.dispatch_s / before.dispatch_s if both_known else 1.0)
    return waiting_s + (working_s * item.needed_s(after) / needed_s if needed_s > 0 else 0.0)
