"""The best plan under what is believed now, beside the running one: gain, cost, and whether there is a choice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from engine.control.adaptation.cost import MigrationCost, MigrationRates
from engine.control.adaptation.probation import Tabu
from engine.control.adaptation.watching.beliefs import Beliefs, HeterogeneousPlan, plan_under
from engine.control.adaptation.watching.gates import AdaptationTrigger, TriggerKind
from engine.control.adaptation.watching.problem import corrected, knows_all, with_slower_links
from engine.control.adaptation.watching.view import AdaptationView
from engine.data.plan import Plan
from engine.planning.live_plan import loaded_plan
from engine.planning.problem import Infeasible

_SURE = 2.0  # standard errors


@dataclass(frozen=True, slots=True)
class Proposal:
    """`before` is None when the running plan names a node that may hold nothing any more."""

    trigger: AdaptationTrigger
    plan: Plan
    changes: bool
    before: HeterogeneousPlan | None
    after: HeterogeneousPlan
    cost: MigrationCost

    @property
    def forced(self) -> bool:
        """Staying is not possible, or the operator asked for another strategy."""
        return self.before is None or self.trigger.kind is TriggerKind.STRATEGY

    @property
    def saved_s(self) -> float:
        """Seconds per step."""
        return self.before.period_s - self.after.period_s if self.before else 0.0

    @property
    def gain(self) -> float:
        return self.saved_s / self.before.period_s if self.before and self.before.period_s > 0.0 else 0.0


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What proposals are made from: believed levels and links, failed placements, memory limits, migration speeds."""

    beliefs: Beliefs
    tabu: Tabu
    rates: MigrationRates
    room_bytes: Mapping[str, float]


def running_plan(view: AdaptationView, beliefs: Beliefs) -> HeterogeneousPlan | None:
    """The view's plan as it is believed to run; None if a node of it is gone."""
    if not knows_all(view.problem, view.plan.stages):
        return None
    return plan_under(view.plan.stages, view.problem, beliefs, beliefs.levels, view.in_flight, view.law)


def sure_gain(proposal: Proposal, view: AdaptationView, beliefs: Beliefs, errors: Mapping[str, float]) -> float:
    """The gain that remains if nodes are `_SURE` standard errors better than believed where they give items, and worse where they take."""
    held, wanted = ({s.node_id: s.num_items for s in stages} for stages in (view.plan.stages, proposal.plan.stages))
    levels = dict(beliefs.levels)
    for node_id, error in errors.items():
        taken = wanted.get(node_id, 0) - held.get(node_id, 0)
        levels[node_id] = levels.get(node_id, 0.0) + _SURE * error * ((taken > 0) - (taken < 0))
    stages = view.plan.stages, proposal.plan.stages
    before, after = (plan_under(s, view.problem, beliefs, levels, view.in_flight, view.law) for s in stages)
    return 1.0 - after.period_s / before.period_s if before.period_s > 0.0 else 0.0


def propose(view: AdaptationView, trigger: AdaptationTrigger, know: Knowledge, now_s: float) -> Proposal:
    """Re-plan exactly; only if nothing fits otherwise, with more on a node than it is known to bear. Raises Infeasible."""
    levels, links = know.beliefs.levels, with_slower_links(view.problem, know.beliefs.link_factors())
    try:
        problem = corrected(links, levels, _smallest(know.room_bytes, know.tabu.room_bytes(view.problem, now_s)))
        plan = loaded_plan(problem, view.planned(problem), view.strategy, view.plan.plan_version + 1)
    except Infeasible:
        levels = know.tabu.cautious(levels, now_s)
        problem = corrected(links, levels, know.room_bytes)
        plan = loaded_plan(problem, view.planned(problem), view.strategy, view.plan.plan_version + 1)
    after = plan_under(plan.stages, view.problem, know.beliefs, levels, view.in_flight, view.law)
    cost = know.rates.cost(view.problem.items, view.plan.stages, plan.stages, view.kv_tokens)
    return Proposal(trigger, plan, plan.stages != view.plan.stages, running_plan(view, know.beliefs), after, cost)


def _smallest(*rooms: Mapping[str, float]) -> dict[str, float]:
    """By node, the least that any of them allows."""
    return {node: min(r[node] for r in rooms if node in r) for node in sorted({n for r in rooms for n in r})}
