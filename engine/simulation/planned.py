"""What the planner is asked for the cluster and the load of a scenario, so that a plan and its simulation speak of the same."""

from __future__ import annotations

import math
from dataclasses import replace

from engine.data.measured_link import COORDINATOR
from engine.data.plan import Plan
from engine.planning.load import Host
from engine.planning.problem import STREAMED, CoordinatorLink, Link, PairLink, PlanningNode, Problem
from engine.planning.strategies import plan_of, solve
from engine.simulation.cost import StepShape
from engine.simulation.result import SimulationResult
from engine.simulation.scenario import NodeSetup, Scenario
from engine.simulation.simulator import StagedSimulator

BATCHES = (1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 24, 32, 48, 64, 96, 128)


def problem_of(scenario: Scenario, sessions: int, context_tokens: int) -> Problem:
    """`sessions` decode with so many tokens of context each; a hop costs the program's share beside the link's."""
    names = [node.node_id for node in scenario.nodes]
    same = not scenario.links
    pairs = tuple(PairLink(a, b, _link(scenario, a, b)) for a in names for b in names if a != b)
    return Problem(
        scenario.items,
        tuple(_node(scenario, setup, context_tokens) for setup in scenario.nodes),
        _link(scenario, names[0], names[0]) if same else pairs,
        link_cost=STREAMED,
        in_flight=sessions,
        hosts=tuple(_host(scenario, host.host_id) for host in scenario.hosts),
        coordinator=tuple(CoordinatorLink(n, _link(scenario, COORDINATOR, n), _link(scenario, n, COORDINATOR)) for n in names),
    )


def plan_for_load(scenario: Scenario, strategy: str) -> Plan:
    """The best plan for the scenario's own sessions; raises InvalidInput or Infeasible.

    Sessions that come all at once decode together. Of others a first simulation, planned for one, finds how many do on average.
    """
    arrivals = scenario.arrivals
    context_tokens = round(sum(a.prompt_tokens + a.new_tokens / 2 for a in arrivals) / len(arrivals))
    together = len(arrivals)
    if len({arrival.arrival_s for arrival in arrivals}) > 1:
        first = plan_of(solve(problem_of(scenario, 1, context_tokens), strategy), 1)
        together = _together(StagedSimulator(replace(scenario, plan=first)).run())
    return plan_of(solve(problem_of(scenario, together, context_tokens), strategy), 1)


def _together(result: SimulationResult) -> int:
    """Sessions that decode at one time, on average while any does."""
    spent_s = result.inter_token_s.mean * result.inter_token_s.count
    return max(1, round(spent_s / result.makespan_s)) if result.makespan_s > 0 else 1


def _link(scenario: Scenario, sender: str, receiver: str) -> Link:
    model = scenario.link_between(sender, receiver)
    return Link(model.latency_s + scenario.software.hop_s, model.bytes_per_s)


def _node(scenario: Scenario, setup: NodeSetup, context_tokens: int) -> PlanningNode:
    costs = [scenario.costs.stage(i, i + 1) for i in range(len(scenario.items))]

    def times(rows: int) -> tuple[float, ...]:
        shape = StepShape(rows, 0, rows * (context_tokens + 1), 0)
        return tuple(setup.slowdown * cost(shape) for cost in costs)

    by_batch = tuple((rows, times(rows)) for rows in BATCHES)
    room = float(setup.memory_bytes - setup.kv_budget_bytes)
    return PlanningNode(setup.node_id, room, by_batch[0][1], time_s_by_batch=by_batch, host_id=setup.host_id)


def _host(scenario: Scenario, host_id: str) -> Host:
    """As the scheduler counts: so many stages as their threads leave cores for."""
    host = next(host for host in scenario.hosts if host.host_id == host_id)
    threads = max((node.num_threads for node in scenario.nodes if node.host_id == host_id), default=1)
    return Host(host_id, max(1, math.floor(host.num_cores) // threads), scenario.software.neighbour_share, scenario.software.hop_s)
