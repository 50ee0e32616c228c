"""From the members' measurements to a plan: what the planner is asked, and an operator's own cut checked. Pure."""

from __future__ import annotations

from dataclasses import replace

from engine.control import commands as do
from engine.control.config import ClusterConfig
from engine.control.nodes.eligibility import binding_pools, planning_nodes
from engine.control.nodes.load_law import LoadLaw, law_of
from engine.control.nodes.members import NOTHING, Members, Supposed
from engine.control.sessions.served_load import Load
from engine.data.errors import InvalidInput, Refused
from engine.data.model import ModelCard
from engine.data.plan import GIVEN, Plan, Stage, ranges_text
from engine.data.status import NodeState, Severity
from engine.planning.live_plan import loaded_plan
from engine.planning.manual_plan import given_plan
from engine.planning.problem import Problem

ONE = LoadLaw()  # one session: times as workers measured them


def problem_of(card: ModelCard | None, members: Members, present: Plan | None = None, supposed: Supposed = NOTHING) -> Problem:
    """What the planner is asked for the eligible nodes, with the memory they share, the links between them and to the coordinator.

    The nodes may stand in any order; they are listed as in the `present` plan, behind them the others by name.
    Raises Refused until the model is known, Infeasible without a node.
    """
    if card is None:
        raise Refused("the model is not known yet: wait until the cluster is ready")
    eligible = sorted(members.eligible(supposed), key=lambda m: _place(present, m.spec.node_id))
    pools = binding_pools(eligible)
    nodes = planning_nodes(eligible, pools)
    node_ids = [node.node_id for node in nodes]
    links = members.links
    ends = links.coordinator_for_planning(node_ids)
    return Problem(card.items, nodes, links.for_planning(node_ids), pools=pools, coordinator=ends)


def law_for(members: Members, load: Load, present: Plan | None, supposed: Supposed = NOTHING) -> LoadLaw:
    """What that load makes of the eligible nodes' times, beside the `present` plan."""
    return law_of(members.eligible(supposed), load, [stage.node_id for stage in present.stages] if present is not None else ())


def _place(present: Plan | None, node_id: str) -> tuple[int, str]:
    stages = present.stages if present is not None else ()
    return next((k for k, stage in enumerate(stages) if stage.node_id == node_id), len(stages)), node_id


def plan_for(
    problem: Problem, config: ClusterConfig, strategy: str, plan_version: int, stages: tuple[Stage, ...], is_asked: bool, law: LoadLaw = ONE
) -> Plan:
    """The operator's own `stages`, else the cut that the cluster was started with unless `is_asked` for, else the planner's.

    Stages that a strategy `is_asked` with are what it once found: they are taken as they are, and the plan stays its own.
    """
    if stages:
        plan = given(problem, plan_version, stages)
        return replace(plan, strategy=strategy) if is_asked else plan
    if config.layers and not is_asked:
        order = config.order or tuple(sorted(node.node_id for node in problem.nodes))
        return given_plan(problem, config.layers, order, plan_version)
    return loaded_plan(problem, law.problem(problem), strategy, plan_version)


def given(problem: Problem, plan_version: int, stages: tuple[Stage, ...]) -> Plan:
    """An operator's own stages as a plan; raises InvalidInput for a wrong cut, Refused if a node cannot hold its part."""
    bounds = [0, *(s.stop for s in stages)]
    if [s.start for s in stages] != bounds[:-1] or bounds[-1] != len(problem.items) or any(s.num_items < 1 for s in stages):
        raise InvalidInput(f"the stages {ranges_text(stages)} do not cover the items 0-{len(problem.items) - 1} once and in order")
    return given_plan(problem, tuple(s.num_items for s in stages), tuple(s.node_id for s in stages), plan_version)


def loading(plan: Plan, members: Members) -> list[do.Command]:
    """What adopts a plan and loads it from scratch: its stages, and no stage anywhere else."""
    out: list[do.Command] = [do.AdoptPlan(plan), do.Record(Severity.INFO, "plan", f"#{plan.plan_version}", describe(plan))]
    following = {s.node_id: n.node_id for s, n in zip(plan.stages, plan.stages[1:], strict=False)}
    for member in members:
        node_id = member.spec.node_id
        if member.stage is not None:
            member.state = NodeState.LOADING
            out.append(do.LoadStage(node_id, member.generation, plan.plan_version, member.stage, following.get(node_id)))
        elif member.alive and member.ready:
            out.append(do.ReleaseStage(node_id, member.generation, 0))
    return out


def num_stages(plan: Plan) -> str:
    """How many stages it has, in words: `1 stage`, `3 stages`."""
    return f"{len(plan.stages)} stage{'' if len(plan.stages) == 1 else 's'}"


def describe(plan: Plan) -> str:
    """In one line. The present order of nodes is kept where another would gain little, or is not proven best: then by how much at most."""
    return f"{plan.strategy}: {ranges_text(plan.stages)}, bottleneck {1e3 * plan.bottleneck_s:.1f} ms{_doubt(plan)}"


def _doubt(plan: Plan) -> str:
    if plan.optimal or plan.strategy == GIVEN:
        return ""
    return f", at most {100 * plan.gap:.1f} % above the best of all orders" if plan.gap else ", not proven best"
