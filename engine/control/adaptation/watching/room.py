"""How much a node may hold for the plan to stay clear of its memory's end.

What a node uses beside its stage (the runtime, other programs, a leak) is not the planner's to give: it is subtracted from the
share of the cap that may be used, together with what a trend will have taken by the time that the next move needs. Giving items away
sooner than it must be would cost steps for nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

from engine.control.adaptation.cost import MigrationRates
from engine.control.adaptation.watching.gates import AdaptationTrigger, Gates, TriggerKind, memory_triggers
from engine.control.adaptation.watching.memory import MemoryTrend
from engine.control.adaptation.watching.view import AdaptationView
from engine.data.plan import Stage

_AGAIN_S = 60.0  # a node in trouble is reported this often
_SETTLED_S = 10.0  # what a node gave away is free by then, and if that was not enough, the next move is due
_CALM_S = 300.0  # a node without trouble for so long may take more again


class MemoryRoom:
    """Rooms of the nodes whose memory is observed; the others have what they registered with."""

    def __init__(self, gates: Gates, rates: MigrationRates) -> None:
        self.gates, self.rates = gates, rates
        self._reported_s: dict[str, float] = {}
        self._plan = (0, 0.0)  # version and since when

    def triggers(self, view: AdaptationView, memory: dict[str, MemoryTrend], now_s: float) -> Iterable[AdaptationTrigger]:
        """Nodes in trouble that were not reported lately for this plan, and those whose trouble is long over."""
        if view.plan.plan_version != self._plan[0]:
            self._plan = view.plan.plan_version, now_s
        for trigger in memory_triggers(memory, {s.node_id: self._lead_s(view, s) for s in view.plan.stages}, self.gates):
            if self._is_due(self._reported_s.get(trigger.subject, float("-inf")), now_s):
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
            lead_s = self._lead_s(view, stage) if stage else self.gates.exhaustion_s
            held_bytes = view.problem.stage_bytes(stage.start, stage.stop) + node.buffer_bytes if stage else 0.0
            other_bytes = max(0.0, trend.newest.used_bytes - held_bytes) + trend.growth_bytes_per_s * lead_s
            room = max(0.0, self.gates.memory_share * trend.newest.cap_bytes - other_bytes)
            in_trouble = trend.share > self.gates.memory_share or trend.exhaustion_s() < lead_s
            rooms[node.node_id] = room if in_trouble else max(room, held_bytes)
        return rooms

    def _is_due(self, reported_s: float, now_s: float) -> bool:
        _, since_s = self._plan
        return now_s - reported_s >= _AGAIN_S or (reported_s < since_s and now_s - since_s >= _SETTLED_S)

    def _lead_s(self, view: AdaptationView, stage: Stage) -> float:
        """How long before a node is full it must begin to give items away, as though all of them had to be loaded elsewhere."""
        return self.gates.exhaustion_s + view.problem.stage_bytes(stage.start, stage.stop) / self.rates.load_bytes_per_s
