"""What the load that is served makes of the nodes' measured times. Pure.

Workers measure one row behind a short context. Sessions share steps, so a plan is made for the rows and contexts that are really
served: the cost model carries a measured time there, and without one the rows that the worker was measured with.
Nodes of one host take turns where it has no cores for all of them, as the scheduler counts them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from engine.control.nodes.members import Member
from engine.control.sessions.batching import num_lanes, stages_at_once
from engine.control.sessions.served_load import LEAST_CONTEXT, Load
from engine.planning.load import MOST_ROWS, ByBatch, Host, Steps, host_load_s, steps_of
from engine.planning.problem import STREAMED, PlanningNode, Problem
from engine.profile.cost_model import CostModel
from engine.profile.point import DECODE
from engine.profile.row_law import RowLaw

MOST_COSTS = 10_000  # nodes x items^2: about a tenth of a second
BATCHES = (1, 2, 4, 8, 16, 32, 64, MOST_ROWS)


@dataclass(frozen=True, slots=True)
class LoadLaw:
    """By node: how items grow with the rows of a step (`rows_of`), the host if others share it (`host_of`), and that host where
    they compute on the same cores (`same_cores`). `cost_model` gives every item its shape.

    `rows` is how many rows a step of the running plan carries: periods of plans whose steps carry other numbers are
    compared as the time for so many tokens.
    """

    load: Load = field(default_factory=Load)
    rows: float = 1.0
    rows_of: tuple[tuple[str, RowLaw], ...] = ()
    host_of: tuple[tuple[str, str], ...] = ()
    hosts: tuple[Host, ...] = ()
    cost_model: CostModel | None = None
    same_cores: tuple[tuple[str, str], ...] = ()

    @property
    def is_measured(self) -> bool:
        """The load is where workers measure: their times stand as they are."""
        return self.load.sessions == 1 and self.load.context_tokens <= LEAST_CONTEXT

    def problem(self, problem: Problem) -> Problem:
        """`problem`, whose times are those of one row behind a short context, for the load.

        A large one is for the rows that steps carry where every node has a stage, whatever plan is asked about: to solve it for
        each number of stages would take longer than a cluster that serves may stand still.
        """
        if self.is_measured or any(node.stage_time_s for node in problem.nodes):
            return problem
        rows_of, host_of = dict(self.rows_of), dict(self.host_of)
        nodes = tuple(self._node(node, rows_of.get(node.node_id, RowLaw()), host_of.get(node.node_id, "")) for node in problem.nodes)
        used = {node.host_id for node in nodes}
        hosts = tuple(host for host in self.hosts if host.host_id in used)
        loaded = replace(problem, nodes=nodes, hosts=hosts, in_flight=self.load.sessions, link_cost=STREAMED)
        if len(problem.nodes) * len(problem.items) ** 2 <= MOST_COSTS:
            return loaded
        steps = self._largest(problem)
        times = [served.time_s for served in loaded.served(steps).nodes]
        plain = tuple(replace(node, time_s=each) for node, each in zip(problem.nodes, times, strict=True))
        return replace(problem, nodes=plain, in_flight=steps.in_flight)

    def _largest(self, problem: Problem) -> Steps:
        """How steps are shared where every node has a stage."""
        return steps_of(self.load.sessions, len(problem.nodes) + 1)

    def _node(self, node: PlanningNode, law: RowLaw, host_id: str) -> PlanningNode:
        batches = tuple(b for b in BATCHES if b // 2 < self.load.sessions)
        by_batch: ByBatch = tuple((b, self._times(node, b, law)) for b in batches)
        return replace(node, time_s=by_batch[0][1], time_s_by_batch=by_batch, host_id=host_id)

    def _times(self, node: PlanningNode, rows: int, law: RowLaw) -> tuple[float, ...]:
        if self.cost_model is None or self.cost_model.num_items != len(node.time_s):
            return tuple(t * law.factor(rows) for t in node.time_s)
        return tuple(t * self._growth(self.cost_model, item, rows) if t < math.inf else t for item, t in enumerate(node.time_s))

    def _growth(self, cost_model: CostModel, item: int, rows: int) -> float:
        least_s = cost_model.time_s(item, DECODE, 1, LEAST_CONTEXT, 1)
        return cost_model.time_s(item, DECODE, 1, self.load.context_tokens, rows) / least_s if least_s > 0.0 else 1.0

    def period_s(self, problem: Problem, cuts: Sequence[tuple[int, int, int]], hop_s: Sequence[float]) -> float:
        """Seconds for `rows` tokens on these stages, whose messages take `hop_s`; `problem` as for one row."""
        loaded, nodes = self.problem(problem), [u for u, _, _ in cuts]
        steps = loaded.steps(nodes)
        served = loaded.served(steps, nodes) if loaded.is_batched else loaded
        stage_s, trip_s = ([time_of(*cut) for cut in cuts] for time_of in (served.stage_s, served.trip_s))
        busy_s = host_load_s(loaded.hosts, [(loaded.nodes[u].host_id, s) for u, s in zip(nodes, stage_s, strict=True)])
        least_s = max(*stage_s, busy_s) if loaded.is_batched else max(*stage_s, *hop_s)
        is_plain = self.is_measured or loaded.is_batched
        per_token = steps.per_token if is_plain else self._largest(problem).per_token
        num_trips = steps.in_flight + (len(cuts) == 1)  # one step runs ahead of a single stage
        return max(least_s, (math.fsum(trip_s) + math.fsum(hop_s)) / num_trips) * per_token * self.rows


def law_of(members: Sequence[Member], load: Load, running: Sequence[str] = ()) -> LoadLaw:
    """For the eligible `members`, of which those `running` hold the present plan's stages."""
    on_host = Counter(m.spec.host for m in members)
    shared = {host: [m.spec for m in members if m.spec.host == host] for host, count in on_host.items() if count > 1 and host}
    law = LoadLaw(
        load,
        rows_of=tuple((m.spec.node_id, m.rows) for m in members),
        host_of=tuple((m.spec.node_id, m.spec.host) for m in members if m.spec.host in shared),
        hosts=tuple(Host(host, min(stages_at_once(specs), len(specs))) for host, specs in sorted(shared.items())),
        same_cores=tuple((m.spec.node_id, m.spec.host) for m in members if m.spec.host in shared and m.spec.device == "cpu"),
        cost_model=next((m.cost_model for m in members if m.cost_model is not None and has_decode(m.cost_model)), None),
    )
    lanes = max(1, num_lanes(m.spec for m in members if m.spec.node_id in running))
    return replace(law, rows=min(load.sessions / min(load.sessions, lanes), float(MOST_ROWS)))


def has_decode(cost_model: CostModel) -> bool:
    return any(laws.phase == DECODE for laws in cost_model.phases)
