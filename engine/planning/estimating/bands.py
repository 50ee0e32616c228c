"""How far a plan's figures can be trusted where the times that it was made from were estimated, and which other plan may be as good.

A node's `time_error` says within which factor its true times lie (0.2: from 1 / 1.2 of what is taken for them to 1.2 times that).
The band of a plan is what it takes if all nodes are at one end or the other. Another plan cannot be told from it where the error of a
single node decides which of the two is better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from engine.planning.problem import Infeasible, PlanningNode, Problem
from engine.planning.solution import Cut, evaluate
from engine.planning.strategies import solve
from engine.profile.profile import Profile, Roofline

SCALED_ERROR = 0.2  # assumed of times that are carried to a machine twice as fast or slow, or further; less in proportion
SAME = 0.03  # plans whose objectives differ by less are equally good
MOST_NODES = 16  # whose errors are tried: each takes two more plans
_UNTOLD = ("memory_aware",)  # what it minimises has nothing to do with times


@dataclass(frozen=True, slots=True)
class Band:
    """The period of a plan, in seconds of a token, if every node is as fast or as slow as it may be."""

    least_s: float
    most_s: float


@dataclass(frozen=True, slots=True)
class Rival:
    """Another plan: better by `gain` (a share of the objective) if `node_id` takes `factor` times as long as was taken for it, and worse by
    `loss` if it takes just as long."""

    cuts: tuple[Cut, ...]
    node_id: str
    factor: float
    gain: float
    loss: float

    def sentence(self, problem: Problem, cuts: Sequence[Cut]) -> str:
        """For people: the two plans, and what decides between them."""
        faster = f"{100 * (1 / self.factor - 1):.0f} % faster" if self.factor < 1 else f"{100 * (self.factor - 1):.0f} % slower"
        return (
            f"uncertain: these two plans cannot be told apart: {_text(problem, cuts)}, and {_text(problem, self.cuts)}; "
            f"if {self.node_id} is {faster} than was taken here, the second is better by {100 * self.gain:.1f} %, "
            f"if it is as taken, the first by {100 * self.loss:.1f} %: measure the model there"
        )


def error_of(profile: Profile, before: Roofline, after: Roofline | None) -> float:
    """The `time_error` of a node whose times come from `profile`: how rough that is, and how far they were carried from roof to roof."""
    honesty = profile.honesty
    rough = max(honesty.noise_cv or 0.0, abs(honesty.coverage - 1.0))
    if after is None:
        return rough
    ratios = [after.flops_per_s / before.flops_per_s, after.bytes_per_s / before.bytes_per_s]
    furthest = max(max(ratio, 1.0 / ratio) for ratio in ratios)
    return (1.0 + rough) * (1.0 + SCALED_ERROR * min(1.0, furthest - 1.0)) - 1.0


def band_of(problem: Problem, cuts: Sequence[Cut]) -> Band | None:
    """None where every node's times are taken to be right."""
    if not any(problem.nodes[u].time_error for u, _, _ in cuts):
        return None
    ends = (replace(problem, nodes=tuple(_at_end(node, up) for node in problem.nodes)) for up in (False, True))
    return Band(*(evaluate(end, tuple(cuts)).period_s for end in ends))


def rival_of(problem: Problem, strategy: str, cuts: tuple[Cut, ...]) -> Rival | None:
    """The plan of that strategy that gains most over these cuts if one node's error goes that way; None where none gains `SAME`."""
    if strategy in _UNTOLD:
        return None
    used = [u for u, _, _ in cuts]
    others = [u for u in range(len(problem.nodes)) if u not in used]
    doubtful = [problem.nodes[u] for u in (*used, *others) if problem.nodes[u].time_error][:MOST_NODES]
    rivals = [rival for node in doubtful for up in (False, True) if (rival := _rival(problem, strategy, cuts, node, up)) is not None]
    return max(rivals, key=lambda rival: rival.gain, default=None)


def _rival(problem: Problem, strategy: str, cuts: tuple[Cut, ...], doubted: PlanningNode, up: bool) -> Rival | None:
    changed = replace(problem, nodes=tuple(_at_end(node, up) if node is doubted else node for node in problem.nodes))
    try:
        other = solve(changed, strategy).cuts
    except Infeasible:
        return None
    ours, theirs = _objective(changed, strategy, cuts), _objective(changed, strategy, other)
    if theirs <= 0.0 or ours <= (1.0 + SAME) * theirs:
        return None
    at_first, chosen = _objective(problem, strategy, other), _objective(problem, strategy, cuts)
    factor = 1.0 + doubted.time_error if up else 1.0 / (1.0 + doubted.time_error)
    return Rival(other, doubted.node_id, factor, ours / theirs - 1.0, at_first / chosen - 1.0 if chosen > 0.0 else 0.0)


def _objective(problem: Problem, strategy: str, cuts: tuple[Cut, ...]) -> float:
    costs = evaluate(problem, cuts)
    if strategy == "cost":
        return costs.price_per_s * costs.period_s
    return costs.period_s if strategy in ("auto", "latency_optimized") else costs.bottleneck_s * costs.steps.per_token


def _at_end(node: PlanningNode, up: bool) -> PlanningNode:
    """As slow, or as fast, as it may be."""
    factor = 1.0 + node.time_error if up else 1.0 / (1.0 + node.time_error)
    return replace(
        node,
        time_s=tuple(t * factor for t in node.time_s),
        stage_time_s=tuple(t * factor for t in node.stage_time_s),
        trip_time_s=tuple(t * factor for t in node.trip_time_s),
        time_s_by_batch=tuple((rows, tuple(t * factor for t in times)) for rows, times in node.time_s_by_batch),
        base_s=node.base_s * factor,
    )


def _text(problem: Problem, cuts: Sequence[Cut]) -> str:
    return " | ".join(f"{problem.nodes[u].node_id} {start}-{stop - 1}" for u, start, stop in cuts)
