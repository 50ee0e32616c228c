"""Random clusters, loads and plans: what the planner says of each, and what the simulator does."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import combinations

from engine.data.measured_link import COORDINATOR
from engine.data.model import Item
from engine.data.plan import Plan, Stage
from engine.planning.problem import Problem
from engine.planning.solution import Cut, evaluate
from engine.planning.strategies import solve
from engine.profile.cost_model import CostModel, ItemLaw, PhaseLaws
from engine.profile.point import DECODE, PREFILL
from engine.simulation.arrivals import at_once
from engine.simulation.cost import ProfileCosts
from engine.simulation.planned import problem_of
from engine.simulation.result import SimulationResult
from engine.simulation.scenario import LinkModel, NodeSetup, Scenario, SoftwareCosts, VirtualHost
from engine.simulation.simulator import StagedSimulator

PROMPT_TOKENS, NEW_TOKENS = 8, 48
TIE = 0.03  # simulated figures that differ by less say nothing of an order


@dataclass(frozen=True)
class Compared:
    """Tokens per second of one plan."""

    seed: int
    cuts: tuple[Cut, ...]
    planned: float
    simulated: float

    @property
    def error(self) -> float:
        return abs(self.planned / self.simulated - 1)


def compare(seed: int) -> list[Compared]:
    """Several plans of one cluster and load."""
    scenario, sessions = random_cluster(random.Random(seed))
    problem = problem_of(scenario, sessions, PROMPT_TOKENS + NEW_TOKENS // 2)
    return [
        Compared(seed, cuts, 1 / evaluate(problem, cuts).period_s, _simulated(scenario, problem, cuts)) for cuts in _plans(seed, problem)
    ]


def random_cluster(rng: random.Random) -> tuple[Scenario, int]:
    """Two to five nodes of unlike speed, near and far; some share a host, some models do not gain from batches."""
    n = rng.randint(6, 24)
    shape = rng.choice([(1.0, 1.02, 1.05, 1.1), (1.0, 1.3, 1.8, 3.0), (1.0, 1.9, 3.7, 7.2)])
    base_s = 10 ** rng.uniform(-4, -2.5)
    times = [base_s * rng.uniform(0.7, 1.3) for _ in range(n)]
    decode = PhaseLaws(DECODE, (1, 2, 4, 8), tuple(ItemLaw(tuple(t * f for f in shape), t * 2e-4) for t in times))
    prefill = PhaseLaws(PREFILL, (1, 64), tuple(ItemLaw((t, 4 * t), 0.0) for t in times))
    num_nodes, far_s = rng.randint(2, 5), rng.choice([1e-4, 1e-3, 5e-3, 2e-2])
    is_shared = rng.random() < 0.3
    nodes = tuple(
        NodeSetup(f"n{u}", slowdown=rng.choice([1.0, rng.uniform(1, 4)]), host_id="box" if is_shared and u < 2 else "")
        for u in range(num_nodes)
    )
    names = [COORDINATOR, *(node.node_id for node in nodes)]
    unlike = {(a, b): LinkModel(far_s * rng.uniform(0.3, 2), 10 ** rng.uniform(7, 9)) for a in names for b in names if a != b}
    scenario = Scenario(
        tuple(Item(f"h.{i}", 1, 0, rng.choice([2048, 8192])) for i in range(n)),
        ProfileCosts(CostModel((decode, prefill))),
        nodes,
        at_once(1, PROMPT_TOKENS, NEW_TOKENS),
        hosts=(VirtualHost("box", 2.0),) if is_shared else (),
        link=LinkModel(far_s, 1.25e8),
        links=unlike if rng.random() < 0.5 else {},
        software=SoftwareCosts(hop_s=4e-4),
    )
    return scenario, rng.choice([1, 2, 4, 8, 12])


def _plans(seed: int, problem: Problem) -> list[tuple[Cut, ...]]:
    """What strategies find, each node by itself, and cuts at random."""
    rng, n = random.Random(seed), len(problem.items)
    found = [solve(problem, name).cuts for name in ("auto", "balanced", "bottleneck_first")]
    found += [((u, 0, n),) for u in range(len(problem.nodes))]
    for _ in range(3):
        order = rng.sample(range(len(problem.nodes)), rng.randint(2, len(problem.nodes)))
        bounds = [0, *sorted(rng.sample(range(1, n), len(order) - 1)), n]
        found.append(tuple((u, a, b) for u, a, b in zip(order, bounds, bounds[1:], strict=False)))
    return list(dict.fromkeys(found))


def _simulated(scenario: Scenario, problem: Problem, cuts: tuple[Cut, ...]) -> float:
    stages = tuple(Stage(problem.nodes[u].node_id, start, stop) for u, start, stop in cuts)
    arrivals = at_once(problem.in_flight, PROMPT_TOKENS, NEW_TOKENS)
    result = StagedSimulator(replace(scenario, plan=Plan(1, "given", stages), arrivals=arrivals)).run()
    return _while_all_decode(result)


def _while_all_decode(result: SimulationResult) -> float:
    """Tokens per second in the middle half of the decode steps: what the plan's figure says, without the prompts before and the last
    tokens after."""
    last = len(result.stages) - 1
    steps = [span for span in result.spans if span.stage == last and not span.is_prompt]
    middle = steps[len(steps) // 4 : 3 * len(steps) // 4]
    return sum(len(span.session_ids) for span in middle[1:]) / (middle[-1].stop_s - middle[0].stop_s)


def kendall(rows: Iterable[Compared]) -> tuple[int, int]:
    """Pairs of plans of one cluster in the same order, and in the other one."""
    same = other = 0
    for a, b in combinations(rows, 2):
        if a.seed == b.seed and abs(a.simulated / b.simulated - 1) > TIE:
            agrees = (a.planned > b.planned) == (a.simulated > b.simulated)
            same, other = same + agrees, other + (not agrees)
    return same, other
