"""How much a node may hold for the plan to stay clear of its memory's end.

What a node uses beside its stage (the runtime, other programs, a leak) is not the planner's to give: it is subtracted from the
share of the cap that may be used, together with what a trend will have taken by the time the gate looks ahead to.
"""

from __future__ import annotations

from collections.abc import Iterable

from engine.control.adaptation.watching.gates import AdaptationTrigger, Gates, TriggerKind, memory_triggers
from engine.control.adaptation.watching.memory import MemoryTrend
from engine.control.adaptation.watching.view import AdaptationView
from engine.data.plan import Stage

_AGAIN_S = 60.0  # a node in trouble is reported this often
_CALM_S = 300.0  # a node without trouble for so long may take more again


class MemoryRoom:
    """Rooms of the nodes whose memory is observed; the others have what they registered with."""

    def __init__(self, gates: Gates) -> None:
        self.gates = gates
        self._reported_s: dict[str, float] = {}

    def triggers(self, stages: tuple[Stage, ...], memory: dict[str, MemoryTrend], now_s: float) -> Iterable[AdaptationTrigger]:
        """Nodes in trouble that were not reported lately, and those whose trouble is long over."""
        for trigger in memory_triggers(stages, memory, self.gates):
            if now_s - self._reported_s.get(trigger.subject, float("-inf")) >= _AGAIN_S:
                self._reported_s[trigger.subject] = now_s
                yield trigger
        for node_id in [n for n, at_s in self._reported_s.items() if now_s - at_s >= _CALM_S]:
            del self._reported_s[node_id]
            yield AdaptationTrigger(TriggerKind.LOAD, node_id, f"{node_id} has had room for {_CALM_S:.0f} s")

    def room_bytes(self, view: AdaptationView, memory: dict[str, MemoryTrend]) -> dict[str, float]:
        """Bytes of weights and KV that each observed node may hold; without trouble never less than it holds."""
        rooms: dict[str, float] = {}
        for node in view.problem.nodes:
            trend, stage = memory.get(node.node_id), view.plan.stage_of(node.node_id)
            if trend is None or trend.newest is None:
                continue
            held_bytes = view.problem.stage_bytes(stage.start, stage.stop) + node.buffer_bytes if stage else 0.0
            other_bytes = max(0.0, trend.newest.used_bytes - held_bytes) + trend.growth_bytes_per_s * self.gates.exhaustion_s
            room = max(0.0, self.gates.memory_share * trend.newest.cap_bytes - other_bytes)
            in_trouble = trend.share > self.gates.memory_share or trend.exhaustion_s() < self.gates.exhaustion_s
            rooms[node.node_id] = room if in_trouble else max(room, held_bytes)
        return rooms
