"""What a solver returns: the chosen stages with everything they cost, and the proof of how good they are."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from engine.planning.load import ONE_STEP, Steps, host_load_s
from engine.planning.problem import STREAMED, Problem

Cut = tuple[int, int, int]  # node index, start, stop


@dataclass(frozen=True, slots=True)
class SolvedStage:
    """Items [start, stop) on a node; `hop_s` is the hop to the next stage, 0 after the last one, and `held_s` what it adds to the
    stage's cost, all of it where that is None."""

    node_id: str
    start: int
    stop: int
    time_s: float
    hop_s: float
    memory_bytes: float
    room_bytes: float
    held_s: float | None = None

    @property
    def link_s(self) -> float:
        """How long a step keeps the link busy."""
        return self.hop_s if self.held_s is None else self.held_s


@dataclass(frozen=True, slots=True)
class Proof:
    """How good a plan is: what its strategy minimises, and what no placement can be below; as in `Solution`."""

    objective: float
    lower_bound: float
    optimal: bool
    ties_searched: bool = True

    @property
    def gap(self) -> float:
        """How far the objective may be above the optimum, as a share of the bound; 0 when it is optimal, inf when nobody knows."""
        if self.optimal or self.objective <= self.lower_bound:
            return 0.0
        return (self.objective - self.lower_bound) / self.lower_bound if self.lower_bound > 0 else math.inf


@dataclass(frozen=True, slots=True)
class Search:
    """How a plan was found: by which solver, on which route (routing.py), why on that one, and how long it took."""

    method: str = ""
    route: str = ""
    why: str = ""
    solve_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Solution:
    """A placement, its costs as problem.py defines them, and its certificate.

    `objective` is what the strategy minimises; no placement can be below `lower_bound`. `optimal` means that they are
    equal and that the tie-breaks were searched too, unless `ties_searched` is False. `binds` names what limits the plan. Times are of
    one step, and `steps` are under way; `period_s` is of one token.
    """

    strategy: str
    cuts: tuple[Cut, ...]
    stages: tuple[SolvedStage, ...]
    bottleneck_s: float
    round_trip_s: float
    period_s: float
    objective: float
    lower_bound: float
    optimal: bool
    method: str  # the solver that found it
    ties_searched: bool = True
    binds: str = ""
    notes: tuple[str, ...] = ()
    route: str = ""  # how it was found, and why so; see routing.py
    why: str = ""
    steps: Steps = ONE_STEP

    @property
    def proof(self) -> Proof:
        return Proof(self.objective, self.lower_bound, self.optimal, self.ties_searched)

    @property
    def gap(self) -> float:
        return self.proof.gap


@dataclass(frozen=True, slots=True)
class Costs:
    """What a placement costs, from the problem's own numbers (correctly rounded sums); times as in `Solution`."""

    stages: tuple[SolvedStage, ...]
    bottleneck_s: float
    round_trip_s: float
    period_s: float
    memory_ratio: float  # largest used / available, over nodes and pools
    price_per_s: float
    steps: Steps = ONE_STEP


def evaluate(problem: Problem, cuts: tuple[Cut, ...]) -> Costs:
    """Cost of a placement; it is not checked against the limits."""
    nodes = [node for node, _, _ in cuts]
    steps = problem.steps(nodes)
    if not problem.is_batched:
        return _of_steps(problem, cuts, steps)
    costs = _of_steps(problem.served(steps, nodes), cuts, steps)
    busy = [(problem.nodes[u].host_id, stage.time_s) for u, stage in zip(nodes, costs.stages, strict=True)]
    bottleneck_s = max(costs.bottleneck_s, host_load_s(problem.hosts, busy))
    period_s = max(bottleneck_s, costs.round_trip_s / steps.num_trips) * steps.per_token
    return replace(costs, bottleneck_s=bottleneck_s, period_s=period_s)


def _of_steps(problem: Problem, cuts: tuple[Cut, ...], steps: Steps) -> Costs:
    """Where times are those of every step."""
    stages, trips = [], []
    for k, (node, start, stop) in enumerate(cuts):
        hop_s = problem.hop_s(node, cuts[k + 1][0], stop) if k + 1 < len(cuts) else 0.0
        time_s, size = problem.stage_s(node, start, stop), problem.memory_bytes(node, start, stop)
        held_s = problem.held_s(node, cuts[k + 1][0], stop) if problem.link_cost == STREAMED and k + 1 < len(cuts) else None
        trips.append(problem.trip_s(node, start, stop))
        stages.append(SolvedStage(problem.nodes[node].node_id, start, stop, time_s, hop_s, size, problem.room_bytes(node), held_s))
    bottleneck_s = max(problem.stage_cost_s(s.time_s, s.link_s) for s in stages)
    round_trip_s = math.fsum([*trips, *(s.hop_s for s in stages), problem.return_s(cuts[-1][0], cuts[0][0])])
    return Costs(
        tuple(stages),
        bottleneck_s,
        round_trip_s,
        problem.period_s(bottleneck_s, round_trip_s),
        max([ratio(s.memory_bytes, s.room_bytes) for s in stages] + pool_ratios(problem, cuts)),
        math.fsum(problem.nodes[node].price_per_s for node, _, _ in cuts),
        steps,
    )


def pool_ratios(problem: Problem, cuts: tuple[Cut, ...]) -> list[float]:
    """Used / available of each shared memory."""
    used = _pool_units(problem, cuts)
    return [ratio(used[pool.pool_id] / problem.units_per_byte, pool.memory_bytes) for pool in problem.pools]


def pools_hold(problem: Problem, cuts: tuple[Cut, ...]) -> bool:
    """Whether no shared memory is asked for more than it has, to the last bit."""
    used = _pool_units(problem, cuts)
    return all(used[pool.pool_id] <= problem.units(pool.memory_bytes) for pool in problem.pools)


def _pool_units(problem: Problem, cuts: tuple[Cut, ...]) -> dict[str, int]:
    used = {pool.pool_id: 0 for pool in problem.pools}
    for cut in cuts:
        pool_id = problem.nodes[cut[0]].pool_id
        if pool_id is not None:
            used[pool_id] += problem.memory_units(*cut)
    return used


def ratio(used_bytes: float, room_bytes: float) -> float:
    """Share of the room in use; an empty stage in no room uses none of it."""
    if used_bytes <= 0:
        return 0.0
    return used_bytes / room_bytes if room_bytes > 0 else math.inf
