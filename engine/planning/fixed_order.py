"""Exact dynamic programmes for nodes in a given order.

Two kernels: a minimax DP finds the smallest bottleneck, an additive DP then finds, among all placements that keep it,
the one with the smallest sum of squared stage times and the smallest round trip. Both terminate on realised values,
never at a tolerance, so the answer is optimal and its bottleneck is its own lower bound.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from engine.planning.problem import Infeasible, Problem

Cut = tuple[int, int, int]  # node index, start, stop


@dataclass(frozen=True, slots=True)
class Placement:
    """The chosen stages with what they cost; `cuts` are (node index, start, stop) in execution order."""

    cuts: tuple[Cut, ...]
    stage_s: tuple[float, ...]
    bottleneck_s: float
    round_trip_s: float


def solve_balanced(problem: Problem) -> Placement:
    """Smallest bottleneck with as many nodes in use as can be; ties by sum of squares, then round trip.

    Raises Infeasible when no placement satisfies memory and support.
    """
    for num_used in range(min(len(problem.nodes), len(problem.items)), 0, -1):
        bottleneck = _smallest_bottleneck(problem, num_used)
        if math.isfinite(bottleneck):
            return _most_even(problem, num_used, bottleneck)
    raise Infeasible(describe_shortage(problem))


def _cost_s(problem: Problem, node: int, start: int, stop: int) -> float:
    """A stage's share of the period: its compute, or its hop out where sending takes longer."""
    if not problem.fits(node, start, stop):
        return math.inf
    return max(problem.stage_s(node, start, stop), problem.hop_s(node, node, stop) if stop < len(problem.items) else 0.0)


def _smallest_bottleneck(problem: Problem, num_used: int) -> float:
    """best[c][i]: smallest bottleneck of items [0, i) on exactly c of the nodes seen so far."""
    n = len(problem.items)
    best = [[math.inf] * (n + 1) for _ in range(num_used + 1)]
    best[0][0] = 0.0
    for node in range(len(problem.nodes)):
        for count in range(min(node + 1, num_used), 0, -1):
            before, row = best[count - 1], best[count]
            for stop in range(n, count - 1, -1):
                for start in range(stop - 1, count - 2, -1):
                    if before[start] < row[stop]:
                        row[stop] = min(row[stop], max(before[start], _cost_s(problem, node, start, stop)))
    return best[num_used][n]


def _most_even(problem: Problem, num_used: int, bottleneck: float) -> Placement:
    """Among placements within `bottleneck`, the lexicographically smallest (sum of squares, round trip)."""
    n = len(problem.items)
    unreached = (math.inf, math.inf, None)
    best: list[list[tuple[float, float, tuple | None]]] = [[unreached] * (n + 1) for _ in range(num_used + 1)]
    best[0][0] = (0.0, 0.0, ())
    for node in range(len(problem.nodes)):
        for count in range(min(node + 1, num_used), 0, -1):
            for stop in range(n, count - 1, -1):
                for start in range(stop - 1, count - 2, -1):
                    squares, total, chain = best[count - 1][start]
                    if chain is None or _cost_s(problem, node, start, stop) > bottleneck:
                        continue
                    time_s = problem.stage_s(node, start, stop)
                    candidate = (squares + time_s * time_s, total + time_s, (chain, (node, start, stop)))
                    if candidate[:2] < best[count][stop][:2]:
                        best[count][stop] = candidate
    return _placement(problem, best[num_used][n][2], bottleneck)


def _placement(problem: Problem, chain: tuple | None, bottleneck: float) -> Placement:
    cuts: list[Cut] = []
    while chain:
        chain, cut = chain
        cuts.append(cut)
    cuts.reverse()
    stage_s = tuple(problem.stage_s(*cut) for cut in cuts)
    return Placement(tuple(cuts), stage_s, bottleneck, math.fsum(stage_s) + sum(problem.hop_s(c[0], c[0], c[2]) for c in cuts[:-1]))


def describe_shortage(problem: Problem) -> str:
    """Why nothing fits, as one sentence with the numbers."""
    need, have = problem.stage_bytes(0, len(problem.items)), math.fsum(n.memory_bytes for n in problem.nodes)
    return (
        f"the model needs {need / 1e6:.0f} MB for weights and KV, the {len(problem.nodes)} nodes together offer {have / 1e6:.0f} MB: "
        "add a worker, give one more --memory, or choose a smaller model"
    )
