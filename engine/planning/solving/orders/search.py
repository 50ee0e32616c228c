"""A plan now: for a cluster that plans while it serves, where searching everything would keep it from answering.

In one order of the nodes a good chain is found by arrays (`placing` over `line`). The present order is solved so, then the one
that a relaxation finds best (`certificate`), then orders with one node in another place, as long as they get better. Nodes that
share a memory are given parts of it, in several ways. Where sessions share steps, chains are found with the times of each number of steps
in flight, and compared by what they cost with their own. All limits count operations, so that the same problem has the same answer
on any machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from engine.planning.problem import Problem
from engine.planning.solution import Costs, Solution, evaluate, pools_hold
from engine.planning.solving.orders.arrays import StageFigures
from engine.planning.solving.orders.certificate import Certificate, SharedCertificate
from engine.planning.solving.orders.chains import Cuts, Order, Placing
from engine.planning.solving.rounding import CERTAIN
from engine.planning.solving.shared_steps import shapes_of
from engine.planning.solving.strategy_keys import BOTTLENECK_SLACK, key_of, objective_of, solution_of
from engine.planning.solving.structure import without_pools

Placed = tuple[Cuts, Costs]


@dataclass(frozen=True, slots=True)
class PromptPlans:
    """The best placements found in the present order of the nodes and in any, None where none was found."""

    kept: Solution | None
    other: Solution | None


def prompt_plans(problem: Problem, strategy: str, certificate: Certificate | SharedCertificate) -> PromptPlans:
    """For nodes in free order, listed in their present one, whose links do not add to stages; constraints are not looked at."""
    most_read = certificate.limits.live.read
    search = _Search(problem, most_read)
    present = tuple(range(len(problem.nodes)))
    seeds = [present, (*certificate.order, *(u for u in present if u not in certificate.order))]
    if strategy != "memory_aware":
        fastest, kept = None, search.placed(strategy, present)
        other = search.placed(strategy, search.improved(strategy, seeds, most_read))
    else:
        in_order = search.placed("bottleneck_first", present)
        search.limit(in_order)
        kept = search.placed(strategy, present) or in_order
        seeds.append(search.improved("bottleneck_first", seeds, most_read // 3))
        fastest = search.placed("bottleneck_first", seeds[-1])
        search.limit(fastest)
        other = search.placed(strategy, search.improved(strategy, seeds, most_read // 3)) or fastest
    num_stages = max((len(placed[0]) for placed in (kept, other) if placed), default=0)
    bound = certificate.bound(strategy, num_stages, fastest[1].bottleneck_s if fastest else math.inf)
    solutions = (_solution(problem, strategy, placed, bound, certificate.bottleneck_s) for placed in (kept, other))
    return PromptPlans(*solutions)


class _Search:
    """Plans in given orders, with the shared memories dealt out in every way, or in the way that was best so far."""

    def __init__(self, problem: Problem, most_read: int) -> None:
        self.problem, self.most_read = problem, most_read
        self.ways = [Placing(StageFigures(dealt), rows) for plain, rows in _plain(problem) for dealt in _dealt_out(plain)]
        self._most_s = math.inf  # seconds of a token

    @property
    def work(self) -> int:
        return sum(way.work for way in self.ways)

    def limit(self, fastest: Placed | None) -> None:
        """memory_aware's bottleneck: within 5 % of this plan's."""
        costs = None if fastest is None else fastest[1]
        self._most_s = math.inf if costs is None else BOTTLENECK_SLACK * costs.bottleneck_s * costs.steps.per_token
        for way in self.ways:
            way.most_s = self._most_s * way.rows

    def placed(self, strategy: str, order: Order) -> Placed | None:
        """The best plan in this order, with every way of dealing tried; the best of them is the first way afterwards."""
        found: list[tuple[Cuts, Costs, Placing]] = []
        for way in self.ways:
            if found and self.work > self.most_read:
                break
            best = self._best(way, strategy, order, thorough=True)
            if best is not None:
                found.append((*best, way))
        if not found:
            return None
        cuts, costs, way = min(found, key=lambda each: key_of(self.problem, strategy, each[1]))
        self.ways.sort(key=lambda each: each is not way)
        return cuts, costs

    def improved(self, strategy: str, seeds: Sequence[Order], most_work: int) -> Order:
        """The best of the seeds, then with one node in another place as long as that is better and `most_work` lasts."""
        most_work += self.work
        order = min(seeds, key=lambda seed: self._key(strategy, seed))
        key = self._key(strategy, order)
        moves, since = 0, 0
        places = [(k, to) for k in range(len(order)) for to in range(len(order)) if to != k and to != k - 1]
        while since < len(places) and self.work < most_work:
            k, to = places[moves % len(places)]
            moves, since = moves + 1, since + 1
            rest = order[:k] + order[k + 1 :]
            tried = (*rest[:to], order[k], *rest[to:])
            if (found := self._key(strategy, tried)) < key:
                order, key, since = tried, found, 0
        return order

    def _key(self, strategy: str, order: Order) -> tuple:
        best = self._best(self.ways[0], strategy, order, thorough=False)
        return (1,) if best is None else (0, key_of(self.problem, strategy, best[1]))

    def _best(self, way: Placing, strategy: str, order: Order, thorough: bool) -> Placed | None:
        placed = (each for cuts in way.chains(strategy, order, thorough) if (each := self._checked(cuts)) is not None)
        return min(placed, key=lambda each: key_of(self.problem, strategy, each[1]), default=None)

    def _checked(self, cuts: Cuts) -> Placed | None:
        """None if nodes that share a memory take too much of it together, or if there is no way back."""
        if not cuts or not pools_hold(self.problem, cuts):
            return None
        costs = evaluate(self.problem, cuts)
        is_late = costs.bottleneck_s * costs.steps.per_token > self._most_s * (1 + CERTAIN)
        return (cuts, costs) if math.isfinite(costs.round_trip_s) and not is_late else None


def _plain(problem: Problem) -> Iterator[tuple[Problem, float]]:
    """Problems without shared steps, and the rows of their steps."""
    if not problem.is_batched:
        yield problem, 1.0
        return
    for shape in shapes_of(problem):
        yield shape.problem, shape.steps.rows


def _dealt_out(problem: Problem) -> Iterator[Problem]:
    """The problem without shared memories: their nodes promised all of it, then parts of it."""
    bare = without_pools(problem)
    yield bare
    for weights in _parts(problem) if problem.pools else ():
        rooms = [node.memory_bytes for node in problem.nodes]
        for pool in problem.pools:
            members = [u for u, node in enumerate(problem.nodes) if node.pool_id == pool.pool_id]
            whole = sum(weights[u] for u in members)
            for u in members:
                rooms[u] = min(rooms[u], pool.memory_bytes * weights[u] / whole)
        yield replace(bare, nodes=tuple(replace(node, memory_bytes=size) for node, size in zip(bare.nodes, rooms, strict=True)))


def _parts(problem: Problem) -> Iterator[list[float]]:
    """[node] weights: by speed, equal, each twice the next one's or the other way round, all to the fastest of a memory."""
    spent = [math.fsum(t for t in (node.time_s or node.stage_time_s) if t < math.inf) for node in problem.nodes]
    yield [1.0 / max(s, 1e-300) for s in spent]
    yield [1.0] * len(spent)
    yield [2.0**-u for u in range(len(spent))]
    yield [2.0**u for u in range(len(spent))]
    least: dict[str | None, int] = {}
    for u, node in enumerate(problem.nodes):
        least[node.pool_id] = min(least.get(node.pool_id, u), u, key=lambda v: spent[v])
    yield [float(least[node.pool_id] == u) for u, node in enumerate(problem.nodes)]


def _solution(problem: Problem, strategy: str, placed: Placed | None, bound: float, least_s: float) -> Solution | None:
    """`least_s`: no bottleneck is smaller; whoever compares with the best one can only be sure of that."""
    if placed is None:
        return None
    cuts, costs = placed
    objective = objective_of(strategy, costs)
    optimal = bound >= objective * (1 - CERTAIN)
    if strategy == "balanced":
        optimal = optimal and len(cuts) == min(len(problem.nodes), len(problem.items))
    if strategy == "memory_aware":
        optimal = optimal and costs.bottleneck_s <= BOTTLENECK_SLACK * least_s
    return solution_of(strategy, cuts, costs, bound, optimal=optimal, method="orders tried by arrays, bounded by a relaxation")
