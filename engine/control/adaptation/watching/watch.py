"""Has anything changed that the plan should be looked at again for? Answers with the most serious trigger, or nothing.

It compares what is believed now with what was believed when the running plan was adopted, and this tick's nodes, strategy and
load with the last tick's. As long as nothing changes it costs a few microseconds and says nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from engine.control.adaptation.cost import MigrationRates
from engine.control.adaptation.watching.beliefs import Beliefs, HeterogeneousPlan, plan_under
from engine.control.adaptation.watching.gates import (
    AdaptationTrigger,
    Gates,
    TriggerKind,
    going,
    imbalance_trigger,
    latency_triggers,
    link_triggers,
)
from engine.control.adaptation.watching.metrics import RuntimeMetrics
from engine.control.adaptation.watching.problem import knows_all
from engine.control.adaptation.watching.room import MemoryRoom
from engine.control.adaptation.watching.view import AdaptationView

_STALE_S = 60.0


class Watch:
    """Metrics, beliefs and memory limits of one cluster, and what the running plan was made for."""

    def __init__(self, gates: Gates, rates: MigrationRates) -> None:
        self.gates = gates
        self.metrics = RuntimeMetrics()
        self.beliefs = Beliefs()
        self.room = MemoryRoom(gates, rates)
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
        for node_id in {n.node_id for n in before.problem.nodes} - {n.node_id for n in view.problem.nodes}:
            self.metrics.forget_links(node_id)
            self.beliefs.forget_links(node_id)
        if self.metrics.measured_anew(view.problem):
            self.start_plan(view, now_s)
        steps = max((alarm.num_steps for _, alarm in self.metrics.take_alarms()), default=0)
        triggers = list(_members(view, before))
        if self.metrics.memory:
            triggers += self.room.triggers(view, self.metrics.memory, now_s)
        if view.strategy != before.strategy:
            text = f"strategy {view.strategy} instead of {before.strategy}"
            triggers.append(AdaptationTrigger(TriggerKind.STRATEGY, view.strategy, text))
        if self.beliefs.update(self.metrics):
            triggers += self._times(view)
        load = load_trigger(view, before, self._look_again)
        if load:
            triggers.append(load)
        self._look_again = False
        order = list(TriggerKind)
        first = min(triggers, key=lambda t: order.index(t.kind), default=None)
        return replace(first, num_steps=steps) if first else None

    def _times(self, view: AdaptationView) -> Iterable[AdaptationTrigger]:
        """What a changed belief means for the running plan."""
        for link, hop_s in self.beliefs.link_s.items():
            self._planned_links.setdefault(link, hop_s)
        now = self._under(view, self.beliefs.levels, self.beliefs.link_s)
        planned = self._under(view, self._planned_levels, self._planned_links)
        if now is None or planned is None:
            return
        yield from latency_triggers(now, planned, self.metrics, self.gates)
        yield from link_triggers(now, planned, self.gates)
        imbalance = imbalance_trigger(now, self.gates)
        if imbalance:
            yield imbalance
        worst = max(range(len(now.stages)), key=lambda k: abs(now.stage_s[k] - planned.stage_s[k]))
        node_id, seen_s, planned_s = now.stages[worst].node_id, now.stage_s[worst], planned.stage_s[worst]
        if seen_s != planned_s:
            where = going(self.metrics.stage_track(node_id))
            text = f"{node_id} takes {1e3 * seen_s:.1f} ms, planned {1e3 * planned_s:.1f}, within the limits{where}"
            yield AdaptationTrigger(TriggerKind.LOSS, node_id, text, seen_s, planned_s)

    def _under(self, view: AdaptationView, levels: dict[str, float], link_s: dict[str, float]) -> HeterogeneousPlan | None:
        """The running plan under some beliefs; None if a node of it is gone."""
        if not knows_all(view.problem, view.plan.stages):
            return None
        believed = Beliefs()
        believed.link_s = link_s
        return plan_under(view.plan.stages, view.problem, believed, levels, view.in_flight, view.law)

    def doubtful(self, view: AdaptationView) -> tuple[str, ...]:
        """Nodes of the plan that may be changing right now."""
        tracks = ((s.node_id, self.metrics.stage_track(s.node_id)) for s in view.plan.stages)
        return tuple(node_id for node_id, track in tracks if track and track.detector.doubtful and track.trend is None)

    def trends(self, view: AdaptationView) -> dict[str, float]:
        """By node of the plan, how much its level rises in a block of 16 steps, where that is beyond doubt."""
        tracks = ((s.node_id, self.metrics.stage_track(s.node_id)) for s in view.plan.stages)
        return {node_id: track.trend.per_block for node_id, track in tracks if track and track.trend}

    def room_bytes(self, view: AdaptationView) -> dict[str, float]:
        """What observed nodes may hold; see adaptation_room."""
        return self.room.room_bytes(view, self.metrics.memory)

    # ------------------------------------------------------------------------------------------ membership
    def _drop_old_measurements(self, view: AdaptationView) -> None:
        for node_id in self.metrics.measured_anew(view.problem):
            self.metrics.forget(node_id)
            self.beliefs.forget(node_id)

    def stale_nodes(self, view: AdaptationView, now_s: float) -> tuple[str, ...]:
        """Eligible nodes outside the plan that were off when last seen, a minute or more ago."""
        unused = (n.node_id for n in view.problem.nodes if view.plan.stage_of(n.node_id) is None)
        old = now_s - self._plan_s >= _STALE_S
        return tuple(n for n in unused if old and abs(self.beliefs.factor(n) - 1.0) > self.gates.latency_error)


def load_trigger(view: AdaptationView, before: AdaptationView, always: bool = False) -> AdaptationTrigger | None:
    """Other sessions than before share the pipeline, or with other contexts."""
    if view.law is None or before.law is None:
        text, changed = f"{view.in_flight} steps are in flight", view.in_flight != before.in_flight
    else:
        changed = view.law.load != before.law.load
        text = f"the load is {view.law.load}" + (f" after {before.law.load}" if changed else "")
    return AdaptationTrigger(TriggerKind.LOAD, "plan", text) if changed or always else None


def _members(view: AdaptationView, before: AdaptationView) -> Iterable[AdaptationTrigger]:
    known, known_before = {n.node_id for n in view.problem.nodes}, {n.node_id for n in before.problem.nodes}
    for stage in view.plan.stages:
        if stage.node_id not in known and (stage.node_id in known_before or view is before):
            yield AdaptationTrigger(TriggerKind.LOST, stage.node_id, f"{stage.node_id} may hold no items any more")
    for node_id in sorted(known - known_before):
        yield AdaptationTrigger(TriggerKind.JOINED, node_id, f"{node_id} joined")
