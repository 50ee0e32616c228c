"""What stages and hops of the plan should take for the steps that run now. Pure.

A plan is made for one row behind a short context, on nodes of their own. What runs are steps of several rows behind long contexts, on
cores that neighbours use too. The cost model carries the planned time there; without one, the rows that the worker was
measured with. Neighbours cost as much as half of the stages of their host are above that, but never more than taking turns
would: what slows one of them alone, or all of them by more, is not planned.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.control.nodes.members import Member, Members
from engine.control.sessions.hops import planned_hops
from engine.control.sessions.metrics import StepLoad
from engine.data.plan import Plan, Stage
from engine.profile.cost_model import CostModel
from engine.profile.point import DECODE, Point

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


def expected(plan: Plan, members: Members, load: StepLoad, measured_s: Mapping[str, float], at_once: int) -> Expected:
    """For steps of that load; `measured_s` are medians by node, of which `at_once` stages at most compute at the same time."""
    if not load.rows or len(plan.stage_s) != len(plan.stages):
        return Expected()
    nodes = [members.get(stage.node_id) for stage in plan.stages]
    cost_model = next((m.cost_model for m in nodes if m is not None and m.cost_model is not None), None)
    alone_s = [
        planned_s * _growth(stage, member, load, cost_model)
        for stage, member, planned_s in zip(plan.stages, nodes, plan.stage_s, strict=True)
    ]
    shared = _shared(plan, nodes, alone_s, measured_s, at_once)
    entry_s, *hops = planned_hops(plan.round_trip_s, plan.stage_s, plan.hop_s) or (0.0,) * (len(plan.stages) + 1)
    return Expected(tuple(s * factor for s, factor in zip(alone_s, shared, strict=True)), tuple(hops), entry_s)


def _growth(stage: Stage, member: Member | None, load: StepLoad, cost_model: CostModel | None) -> float:
    """How many times a step of one row after a short context this stage's step takes."""
    point = Point(DECODE, 1, max(1, load.context_tokens), load.rows)
    if cost_model is not None and any(laws.phase == DECODE for laws in cost_model.phases):
        least_s = cost_model.step_s(MEASURED_AT, stage.start, stage.stop)
        if least_s > 0.0:
            return max(1.0, cost_model.step_s(point, stage.start, stage.stop) / least_s)
    return member.rows.factor(load.rows) if member is not None else 1.0


def _shared(
    plan: Plan, nodes: Sequence[Member | None], alone_s: Sequence[float], measured_s: Mapping[str, float], at_once: int
) -> list[float]:
    """By which factor neighbours make each stage slower."""
    groups: dict[tuple[str, str], list[int]] = {}
    for index, member in enumerate(nodes):
        key = (member.spec.host, member.spec.device) if member is not None else (plan.stages[index].node_id, "")
        groups.setdefault(key, []).append(index)
    factors = [1.0] * len(plan.stages)
    for indices in groups.values():
        ratios = sorted(measured_s.get(plan.stages[i].node_id, 0.0) / alone_s[i] for i in indices if alone_s[i] > 0.0)
        common = ratios[(len(ratios) - 1) // 2] if ratios else 1.0
        for i in indices:
            factors[i] = min(max(1.0, common), float(max(1, min(at_once, len(indices)))))
    return factors
