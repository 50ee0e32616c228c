"""Has anything changed that the plan should be looked at again for? Answers with the most serious trigger, or nothing.

It compares what is believed now with what was believed when the running plan was adopted, and this tick's nodes, strategy and
load with the last tick's. As long as nothing changes it costs a few microseconds and says nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from engine.control.adaptation_gates import (
    AdaptationTrigger,
    Gates,
    TriggerKind,
    excess_bytes,
    imbalance_trigger,
    latency_triggers,
    link_triggers,
    memory_triggers,
)
from engine.control.adaptation_metrics import RuntimeMetrics
from engine.control.adaptation_profile import Beliefs, HeterogeneousPlan, plan_under
from engine.control.adaptation_view import AdaptationView

_MEMORY_LIMIT_S = 1800.0  # how long a node keeps the smaller room that its memory trouble gave it
_STALE_S = 60.0


class Watch:
    """Metrics, beliefs and memory limits of one cluster, and what the running plan was made for."""

    def __init__(self, gates: Gates) -> None:
        self.gates = gates
        self.metrics = RuntimeMetrics()
        self.beliefs = Beliefs()
        self._room: dict[str, tuple[float, float]] = {}  # node: (bytes for weights and KV, until when)
        self._planned_levels: dict[str, float] = {}
        self._planned_links: dict[str, float] = {}
        self._view: AdaptationView | None = None
        self._plan_s = 0.0
        self._look_again = False

    def start_plan(self, view: AdaptationView, now_s: float) -> None:
        """`view.plan` runs from now on; what is believed now is what it was made for."""
        self._drop_old_measurements(view)
        self.metrics.start_plan(view)
        self._planned_levels, self._planned_links = dict(self.beliefs.levels), dict(self.beliefs.link_s)
        self._plan_s = now_s
        for trend in self.metrics.memory.values():
            trend.restart()
        if self._view is not None:
            self._view = replace(self._view, plan=view.plan, strategy=view.plan.strategy)

    def look_again(self) -> None:
        """The next look reports even if nothing changed."""
        self._look_again = True

    def look(self, view: AdaptationView, now_s: float) -> AdaptationTrigger | None:
        """The most serious trigger among the news; None if there are none."""
        before, self._view = self._view or view, view
        if self.metrics.measured_anew(view.problem):
            self.start_plan(view, now_s)
        moved, self._look_again = self.beliefs.update(self.metrics) or self._look_again, False
        for link, hop_s in self.beliefs.link_s.items():
            self._planned_links.setdefault(link, hop_s)
        alarms = self.metrics.take_alarms()
        triggers = [*_members(view, before), *self._memory(view, now_s)]
        if view.strategy != before.strategy:
            text = f"strategy {view.strategy} instead of {before.strategy}"
            triggers.append(AdaptationTrigger(TriggerKind.STRATEGY, view.strategy, text))
        if moved:
            triggers += self._times(view)
        elif view.in_flight != before.in_flight:
            triggers.append(AdaptationTrigger(TriggerKind.LOAD, "plan", f"{view.in_flight} steps in flight, before {before.in_flight}"))
        steps = max((alarm.num_steps for _, alarm in alarms), default=0)
        order = list(TriggerKind)
        first = min(triggers, key=lambda t: order.index(t.kind), default=None)
        return replace(first, num_steps=max(first.num_steps, steps)) if first else None

    def _times(self, view: AdaptationView) -> Iterable[AdaptationTrigger]:
        now, planned = self._under(view, None), self._under(view, self._planned_levels)
        if now is None or planned is None:
            return
        yield from latency_triggers(now, planned, self.metrics, self.gates)
        yield from link_triggers(now, planned, self.metrics, self.gates)
        imbalance = imbalance_trigger(now, self.gates)
        if imbalance:
            yield imbalance
        worst = max(range(len(now.stages)), key=lambda k: abs(now.stage_s[k] - planned.stage_s[k]))
        node_id, seen_s, planned_s = now.stages[worst].node_id, now.stage_s[worst], planned.stage_s[worst]
        text = f"{node_id} takes {1e3 * seen_s:.1f} ms, planned {1e3 * planned_s:.1f}, within the limits"
        yield AdaptationTrigger(TriggerKind.LOSS, node_id, text, seen_s, planned_s)

    def _under(self, view: AdaptationView, levels: dict[str, float] | None) -> HeterogeneousPlan | None:
        known = {n.node_id for n in view.problem.nodes}
        if any(s.node_id not in known for s in view.plan.stages):
            return None
        if levels is None:
            return plan_under(view.plan.stages, view.problem, self.beliefs, self.beliefs.levels, view.in_flight)
        believed = Beliefs()
        believed.link_s = self._planned_links
        return plan_under(view.plan.stages, view.problem, believed, levels, view.in_flight)

    # ------------------------------------------------------------------------------------------ memory
    def _memory(self, view: AdaptationView, now_s: float) -> Iterable[AdaptationTrigger]:
        """Nodes in trouble that have not been given less room yet; they get it now."""
        now = self._under(view, None)
        for trigger in memory_triggers(now, self.metrics.memory, self.gates) if now else ():
            if now_s < self._room.get(trigger.subject, (0.0, 0.0))[1]:
                continue
            stage = view.plan.stage_of(trigger.subject)
            held_bytes = view.problem.stage_bytes(stage.start, stage.stop) if stage else 0.0
            room_bytes = max(0.0, held_bytes - excess_bytes(self.metrics.memory[trigger.subject], self.gates))
            self._room[trigger.subject] = (room_bytes, now_s + _MEMORY_LIMIT_S)
            yield trigger

    def room_bytes(self, now_s: float) -> dict[str, float]:
        """Nodes that must hold less than their memory says."""
        return {node: room for node, (room, until_s) in self._room.items() if now_s < until_s}

    # ------------------------------------------------------------------------------------------ membership
    def _drop_old_measurements(self, view: AdaptationView) -> None:
        for node_id in self.metrics.measured_anew(view.problem):
            self.metrics.forget(node_id)
            self.beliefs.forget(node_id)
            self._room.pop(node_id, None)

    def stale_nodes(self, view: AdaptationView, now_s: float) -> tuple[str, ...]:
        """Eligible nodes outside the plan that were off when last seen, a minute or more ago."""
        unused = (n.node_id for n in view.problem.nodes if view.plan.stage_of(n.node_id) is None)
        old = now_s - self._plan_s >= _STALE_S
        return tuple(n for n in unused if old and abs(self.beliefs.factor(n) - 1.0) > self.gates.latency_error)


def _members(view: AdaptationView, before: AdaptationView) -> Iterable[AdaptationTrigger]:
    known, known_before = {n.node_id for n in view.problem.nodes}, {n.node_id for n in before.problem.nodes}
    for stage in view.plan.stages:
        if stage.node_id not in known and (stage.node_id in known_before or view is before):
            yield AdaptationTrigger(TriggerKind.LOST, stage.node_id, f"{stage.node_id} may hold no items any more")
    for node_id in sorted(known - known_before):
        yield AdaptationTrigger(TriggerKind.JOINED, node_id, f"{node_id} joined")
