"""Problems whose sessions share steps: one problem without batches for each number of steps in flight, and the best of them.

A number of stages says how many steps are under way (load.steps_of), and these how many rows each carries. So the plans with a
certain number of steps are those of a plain problem, with the times of such steps and between a fewest and a most number of stages, and
no plan is below the least of these problems' bounds. Where nodes share hosts, what is under way depends on which of them are in use:
the plain problems are then relaxations (nobody slows anybody), their plans are priced by the true costs, and a gap may be left.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from engine.planning.load import Steps, lanes_by_stages, steps_of
from engine.planning.problem import Infeasible, PlanningNode, Problem, TooHard
from engine.planning.route import DEFAULT
from engine.planning.solution import Costs, Cut, Solution, evaluate
from engine.planning.solving.beam_plan import allowed
from engine.planning.solving.bounds import ROUNDING, least_bottleneck
from engine.planning.solving.rounding import CERTAIN, cost_slack_s
from engine.planning.solving.strategy_keys import BOTTLENECK_SLACK, key_of, objective_of, solution_of
from engine.planning.solving.structure import best_link, is_regular, nodes_of
from engine.planning.solving.tables import Tables

_UNFOUND = "no plan was found by trying, and none is proved impossible: drop a limit, or leave nodes that share a host out"
Answer = Callable[[Problem, str], Solution | Infeasible]


@dataclass(frozen=True, slots=True)
class Shape:
    """So many stages share steps like this: the plain problem that says so."""

    steps: Steps
    stages: tuple[int, int]  # fewest and most
    problem: Problem

    def bound(self, strategy: str) -> float:
        """A quick lower bound of its objective; 0 where none is known."""
        if strategy == "memory_aware":
            return 0.0
        p, nodes = self.problem, [self.problem.nodes[u] for u in nodes_of(self.problem)]
        least_s = max(least_bottleneck(Tables(p)), _within_stages(nodes, self.stages[1]))
        if strategy in ("latency_optimized", "cost"):
            hops_s = (self.stages[0] - 1) * best_link(p).latency_s
            trip_s = math.fsum(map(min, zip(*(node.trip_time_s or node.time_s for node in nodes), strict=True))) + hops_s
            least_s = max(least_s, trip_s / self.steps.num_trips)
        price = min(node.price_per_s for node in nodes) if strategy == "cost" else 1.0
        return price * least_s * self.steps.per_token * ROUNDING

    def floor(self, strategy: str) -> float:
        """A lower bound that costs a few milliseconds: from the smallest bottleneck of so many stages at most, where a threshold search
        finds it; inf where it finds no plan."""
        p = self.problem
        if strategy == "memory_aware" or self.stages[1] == 1 or not is_regular(p):
            return 0.0
        tables = Tables(p)
        if math.prod(size + 1 for size in tables.size) > DEFAULT.most_sets:
            return 0.0
        from engine.planning.solving.thresholds.leximin import Descent

        descent = Descent(tables, self.stages[1])
        if not descent.bottleneck():
            return math.inf
        price = min(p.nodes[u].price_per_s for u in nodes_of(p)) if strategy == "cost" else 1.0
        return price * max(0.0, descent.bottleneck_s - 2 * cost_slack_s(tables)) * self.steps.per_token * ROUNDING


def _within_stages(nodes: list[PlanningNode], most: int) -> float:
    """No chain of at most so many stages has a smaller bottleneck: in time T a node moves at most T * max_i(w_i / t_i) of weights w."""
    weights = [t if t < math.inf else 0.0 for t in nodes[0].time_s]
    speeds = []
    for node in nodes:
        if any(w > 0 and t <= 0 for w, t in zip(weights, node.time_s, strict=True)):
            return 0.0
        speeds.append(max((w / t for w, t in zip(weights, node.time_s, strict=True) if w > 0), default=0.0))
    speed = math.fsum(sorted(speeds, reverse=True)[:most])
    return math.fsum(weights) / speed * ROUNDING if speed > 0 else 0.0


def _fewest_stages(problem: Problem) -> int:
    """No plan has fewer: so many of the roomiest nodes are needed to hold all of it."""
    left, rooms = float(problem.stage_units(0, len(problem.items))), (problem.room_units(u) for u in nodes_of(problem))
    for count, room in enumerate(sorted(rooms, reverse=True), 1):
        left -= room
        if left <= 0:
            return count
    return 1  # none is enough, which the searches find out


def shapes_of(problem: Problem) -> list[Shape]:
    """One for each number of steps in flight of single stages, and of several; the fewest stages first."""
    c, usable = problem.constraints, [problem.nodes[u] for u in nodes_of(problem)]
    at_once, fewest = {host.host_id: host.stages_at_once for host in problem.hosts}, _fewest_stages(problem)
    counts: dict[tuple[bool, Steps], list[int]] = {}
    for count, lanes in sorted(lanes_by_stages([node.host_id for node in usable], at_once).items()):
        if max(c.min_stages, fewest) <= count <= min(c.max_stages or count, len(problem.items)):
            for steps in {steps_of(problem.in_flight, each, count == 1) for each in lanes}:
                counts.setdefault((count > 1, steps), []).append(count)
    return [_shape(problem, steps, (min(found), max(found))) for (_, steps), found in counts.items()]


def _shape(problem: Problem, steps: Steps, stages: tuple[int, int]) -> Shape:
    constraints = replace(problem.constraints, min_stages=stages[0], max_stages=stages[1])
    return Shape(steps, stages, replace(problem.served(steps), constraints=constraints))


@dataclass(frozen=True, slots=True)
class _Placed:
    """A plan of one shape at its true costs."""

    found: Solution
    costs: Costs
    key: tuple


class _Best:
    """The best plan so far, and the least that any shape's plans can be."""

    def __init__(self, problem: Problem, strategy: str, most_s: float = math.inf) -> None:
        self.problem, self.strategy, self.most_s = problem, strategy, most_s
        self.placed: _Placed | None = None
        self.bound = math.inf
        self.is_hard = False

    @property
    def objective(self) -> float:
        return math.inf if self.placed is None else objective_of(self.strategy, self.placed.costs)

    def offer(self, found: Solution) -> None:
        """A plan that satisfies the limits of its shape; where those are a relaxation it may break the problem's own."""
        costs = evaluate(self.problem, found.cuts)
        is_late = costs.round_trip_s > self.problem.constraints.latency_limit_s
        if is_late or costs.bottleneck_s * costs.steps.per_token > self.most_s:
            self.is_hard = True
            return
        placed = _Placed(found, costs, key_of(self.problem, self.strategy, costs))
        if self.placed is None or _is_less(placed.key, self.placed.key):
            self.placed = placed

    def note(self, bound: float) -> None:
        """No plan of a shape is below this."""
        self.bound = min(self.bound, bound)

    def solution(self) -> Solution | TooHard | None:
        """With its certificate; None if there is none."""
        if self.placed is None:
            return TooHard(_UNFOUND) if self.is_hard else None
        found, costs, objective = self.placed.found, self.placed.costs, self.objective
        optimal = self.bound >= objective * (1 - CERTAIN)
        known = solution_of(self.strategy, found.cuts, costs, max(0.0, self.bound), optimal=optimal, method=found.method)
        # Else the shapes are relaxations, and what ties there need not here.
        is_alone = not any(True for _ in _slower_of_hosts(self.problem)) and not any(host.message_s for host in self.problem.hosts)
        return replace(known, ties_searched=found.ties_searched and is_alone, route=found.route, why=found.why)


def _is_less(key: tuple, other: tuple) -> bool:
    """Whether the first figure that differs is smaller; figures of two shapes that rounding alone could tell apart are equal."""
    flat, than = ([x for part in each for x in (part if isinstance(part, list) else [part])] for each in (key, other))
    for a, b in zip(flat, than, strict=False):
        if abs(a - b) > CERTAIN * max(abs(a), abs(b)):
            return bool(a < b)
    return len(flat) < len(than)


def best_of(problem: Problem, strategy: str, answer: Answer) -> Solution | TooHard | None:
    """The best plan of a problem with batches, by `answer` for problems without; None if there is none."""
    shapes = shapes_of(problem)
    if strategy == "balanced":
        return _balanced(problem, shapes, answer)
    if strategy == "memory_aware":
        return _emptiest(problem, shapes, answer)
    best = _Best(problem, strategy)
    _offer_apart(problem, best, answer)
    bounds = [max(shape.bound(strategy), shape.floor(strategy)) for shape in shapes]
    for bound, shape in sorted(zip(bounds, shapes, strict=True), key=lambda pair: pair[0]):
        if bound > best.objective:
            best.note(bound)
        else:
            _search(shape, best, answer)
    return best.solution()


def _search(shape: Shape, best: _Best, answer: Answer) -> Solution | None:
    """Offer the best plan of a shape, and note its bound."""
    if shape.stages == (1, 1):
        _search_single(shape, best)
        return None
    found = answer(shape.problem, best.strategy)
    if isinstance(found, TooHard):
        best.is_hard = True
        best.note(0.0)
    if isinstance(found, Infeasible):
        return None
    best.offer(found)
    best.note(found.lower_bound if best.strategy == "memory_aware" else found.lower_bound * shape.steps.per_token * ROUNDING)
    return found


def _search_single(shape: Shape, best: _Best) -> None:
    """One stage: every node is tried."""
    problem, strategy = shape.problem, best.strategy
    for u in nodes_of(problem):
        cuts: tuple[Cut, ...] = ((u, 0, len(problem.items)),)
        if allowed(problem, cuts):
            costs = evaluate(problem, cuts)
            best.offer(solution_of(strategy, cuts, costs, 0.0, optimal=True, method="every node by itself", ties_searched=True))
            if strategy == "memory_aware":
                best.note(costs.memory_ratio)
            else:
                best.note(objective_of(strategy, evaluate(best.problem, cuts)))


def _offer_apart(problem: Problem, best: _Best, answer: Answer) -> None:
    """Where nodes share hosts: the best plan that uses no more than the fastest node of each."""
    slower = list(_slower_of_hosts(problem))
    if not slower or problem.use_all_nodes:
        return
    ids = tuple(dict.fromkeys((*problem.constraints.forbidden_nodes, *(node.node_id for node in slower))))
    apart = replace(problem, hosts=(), nodes=tuple(replace(node, host_id="") for node in problem.nodes))
    found = best_of(replace(apart, constraints=replace(problem.constraints, forbidden_nodes=ids)), best.strategy, answer)
    if isinstance(found, Solution):
        best.offer(found)


def _slower_of_hosts(problem: Problem) -> Iterator[PlanningNode]:
    by_host: dict[str, list[PlanningNode]] = {}
    for u in nodes_of(problem):
        by_host.setdefault(problem.nodes[u].host_id or f" {u}", []).append(problem.nodes[u])
    for nodes in by_host.values():
        yield from sorted(nodes, key=lambda node: math.fsum(t for t in node.time_s if t < math.inf))[1:]


def _balanced(problem: Problem, shapes: Iterable[Shape], answer: Answer) -> Solution | TooHard | None:
    """The most stages first: once there is a plan, only shapes that have as many can better it."""
    best, most_found = _Best(problem, "balanced"), 0
    for shape in sorted(shapes, key=lambda shape: -shape.stages[1]):
        most = len(best.placed.found.stages) if best.placed else 0
        if shape.stages[1] < most:
            break
        before = best.bound
        found = _search(shape, best, answer)
        most_found = max(most_found, len(found.stages) if found is not None else 0)
        if found is not None and len(found.stages) < most:
            best.bound = before
        elif found is not None and len(found.stages) > most:
            best.bound = found.lower_bound * shape.steps.per_token * ROUNDING
    if best.placed is not None and len(best.placed.found.stages) < most_found:
        best.bound = 0.0  # a relaxation has plans of more stages, which hosts that are shared make too late: they bound nothing
    return best.solution()


def _emptiest(problem: Problem, shapes: Iterable[Shape], answer: Answer) -> Solution | TooHard | None:
    """Within 1.05 of the best bottleneck of all shapes."""
    fastest = best_of(problem, "bottleneck_first", answer)
    if not isinstance(fastest, Solution):
        return fastest
    most_s = BOTTLENECK_SLACK * fastest.objective * (1 + CERTAIN)  # seconds of a token times fractions of rows are not exact
    best = _Best(problem, "memory_aware", most_s)
    best.offer(fastest)
    for shape in shapes:
        limit_s = min(most_s * shape.steps.rows, problem.constraints.bottleneck_limit_s)
        within = replace(shape.problem, constraints=replace(shape.problem.constraints, bottleneck_limit_s=limit_s))
        _search(replace(shape, problem=within), best, answer)
    if not fastest.optimal:
        best.bound = 0.0
    return best.solution()
