"""What stages and hops of a plan should take for the steps that run now. Pure.

A plan is made for one row behind a short context, on nodes of their own. What runs are steps of several rows behind long contexts, on
cores that neighbours use too. The cost model carries the planned time there; without one, the rows that the worker was
measured with. Neighbours cost as much as half of the stages of their host are above that, but never more than taking turns
would: what slows one of them alone, or all of them by more, is not planned.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from engine.control.nodes.members import Member, Members
from engine.control.sessions.hops import planned_hops
from engine.control.sessions.metrics import StepLoad
from engine.data.plan import Plan, Stage
from engine.profile.cost_model import CostModel
from engine.profile.point import DECODE, Point

NO_LOAD = StepLoad(0, 0)
_Host = tuple[str, str]  # and the device
MEASURED_AT = Point(DECODE, 1, 16, 1)  # the point that workers' item times, and so plans, stand for


@dataclass(frozen=True, slots=True)
class Expected:
    """Seconds; `hop_s[k]` follows stage k, the last one leads back to the coordinator. Empty while nothing runs."""

    stage_s: tuple[float, ...] = ()
    hop_s: tuple[float, ...] = ()
    entry_s: float = 0.0

    @property
    def step_s(self) -> float:
        return math.fsum((*self.stage_s, *self.hop_s, self.entry_s))


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a step meets beside its stages: its load, by which factor most stages of a host are slower, how many stages compute at once."""

    load: StepLoad = NO_LOAD
    slower: Mapping[_Host, float] = field(default_factory=dict)
    at_once: int = 1


def circumstances(plan: Plan, members: Members, load: StepLoad, measured_s: Mapping[str, float], at_once: int) -> Circumstances:
    """Of the plan that serves; `measured_s` are medians by node, of which `at_once` stages at most compute at the same time."""
    if not load.rows or len(plan.stage_s) != len(plan.stages):
        return Circumstances()
    alone_s, slower = _alone_s(plan, members, load), dict[_Host, float]()
    for host, indices in _by_host(plan, members).items():
        ratios = sorted(measured_s.get(plan.stages[i].node_id, 0.0) / alone_s[i] for i in indices if alone_s[i] > 0.0)
        slower[host] = ratios[(len(ratios) - 1) // 2] if ratios else 1.0
    return Circumstances(load, slower, at_once)


def expected(plan: Plan, members: Members, now: Circumstances) -> Expected:
    """Of any plan for these nodes, for the steps that run now."""
    if not now.load.rows or len(plan.stage_s) != len(plan.stages):
        return Expected()
    stage_s = _alone_s(plan, members, now.load)
    for host, indices in _by_host(plan, members).items():
        for i in indices:
            stage_s[i] *= min(max(1.0, now.slower.get(host, 1.0)), float(max(1, min(now.at_once, len(indices)))))
    entry_s, *hops = planned_hops(plan.round_trip_s, plan.stage_s, plan.hop_s) or (0.0,) * (len(plan.stages) + 1)
    return Expected(tuple(stage_s), tuple(hops), entry_s)


def for_what_runs(plan: Plan, members: Members, now: Circumstances) -> Plan:
    """The plan with the times that it is expected to take for the steps that run now; as it is while none do."""
    due = expected(plan, members, now)
    if not due.stage_s:
        return plan
    told = replace(plan, stage_s=due.stage_s, round_trip_s=due.step_s)
    index, is_hop = told.slowest
    return replace(told, bottleneck_s=told.hop_s[index] if is_hop else told.stage_s[index])


def _alone_s(plan: Plan, members: Members, load: StepLoad) -> list[float]:
    """What the stages take for that load without neighbours."""
    nodes = [members.get(stage.node_id) for stage in plan.stages]
    cost_model = next((m.cost_model for m in nodes if m is not None and m.cost_model is not None), None)
    return [
        planned_s * _growth(stage, member, load, cost_model)
        for stage, member, planned_s in zip(plan.stages, nodes, plan.stage_s, strict=True)
    ]


def _growth(stage: Stage, member: Member | None, load: StepLoad, cost_model: CostModel | None) -> float:
    """How many times a step of one row after a short context this stage's step takes."""
    point = Point(DECODE, 1, max(1, load.context_tokens), load.rows)
    if cost_model is not None and any(laws.phase == DECODE for laws in cost_model.phases):
        least_s = cost_model.step_s(MEASURED_AT, stage.start, stage.stop)
        if least_s > 0.0:
            return max(1.0, cost_model.step_s(point, stage.start, stage.stop) / least_s)
    return member.rows.factor(load.rows) if member is not None else 1.0


def _by_host(plan: Plan, members: Members) -> dict[_Host, list[int]]:
    """The stages that share a host's device, by their place in the plan."""
    groups: dict[_Host, list[int]] = {}
    for index, stage in enumerate(plan.stages):
        member = members.get(stage.node_id)
        groups.setdefault((member.spec.host, member.spec.device) if member is not None else (stage.node_id, ""), []).append(index)
    return groups
