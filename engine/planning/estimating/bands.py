"""How far a plan's figures can be trusted where the times that it was made from were estimated, and which other plan may be as good.

A node's `time_error` says within which factor its true times lie (0.2: from 1 / 1.2 of what is taken for them to 1.2 times that).
The band of a plan is what it takes if all nodes are at one end or the other. Another plan cannot be told from it where the error of a
single node decides which of the two is better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from engine.data.plan import Stage, ranges_text
from engine.planning.problem import Infeasible, PlanningNode, Problem
from engine.planning.solution import Cut, evaluate
from engine.planning.strategies import solve
from engine.profile.profile import Profile

SCALED_ERROR = 0.2  # assumed of times that are carried to a machine twice as fast or slow, or further; less in proportion
SAME = 0.03  # plans whose objectives differ by less are equally good
MOST_NODES = 16  # whose errors are tried: each takes two more plans
_UNTOLD = ("memory_aware",)  # what it minimises has nothing to do with times


@dataclass(frozen=True, slots=True)
class Band:
    """The period of a plan, in seconds of a token, if every node is as fast or as slow as it may be; `within` has the `time_error` of those
    of its nodes that have one."""

    least_period_s: float
    most_period_s: float
    within: tuple[tuple[str, float], ...]

    @property
    def sentence(self) -> str:
        """For people."""
        rates = f"{1 / self.most_period_s:.4g} to {1 / self.least_period_s:.4g} tokens/s" if self.least_period_s > 0 else "not known"
        each = ", ".join(f"{node_id} within {100 * error:.0f} %" for node_id, error in self.within)
        return f"band: {rates}, for times are estimated: {each}"


@dataclass(frozen=True, slots=True)
class Rival:
    """Another plan: better by `gain` (a share of the objective) if `if_node` takes `takes_times` times as long as was taken for it, and
    worse by `else_loss` if it takes just as long."""

    stages: tuple[Stage, ...]
    if_node: str
    takes_times: float
    gain: float
    else_loss: float

    def sentence(self, first: str) -> str:
        """For people: the two plans, of which the first is given in words, and what decides between them."""
        times = self.takes_times
        faster = f"{100 * (1 / times - 1):.0f} % faster" if times < 1 else f"{100 * (times - 1):.0f} % slower"
        return (
            f"uncertain: these two plans cannot be told apart: {first}, and {ranges_text(self.stages)}; "
            f"if {self.if_node} is {faster} than was taken here, the second is better by {100 * self.gain:.1f} %, "
            f"if it is as taken, the first by {100 * self.else_loss:.1f} %: measure the model there"
        )


def error_of(profile: Profile, *factors: float) -> float:
    """The `time_error` of a node whose times come from `profile`: how rough that is, and how far they were carried, by these factors."""
    honesty = profile.honesty
    rough = max(honesty.noise_cv or 0.0, abs(honesty.coverage - 1.0))
    furthest = max((max(factor, 1.0 / factor) for factor in factors), default=1.0)
    return (1.0 + rough) * (1.0 + SCALED_ERROR * min(1.0, furthest - 1.0)) - 1.0


def band_of(problem: Problem, cuts: Sequence[Cut]) -> Band | None:
    """None where every node's times are taken to be right."""
    within = tuple((node.node_id, node.time_error) for node in (problem.nodes[u] for u, _, _ in cuts) if node.time_error)
    if not within:
        return None
    ends = (replace(problem, nodes=tuple(_at_end(node, up) for node in problem.nodes)) for up in (False, True))
    least_s, most_s = (evaluate(end, tuple(cuts)).period_s for end in ends)
    return Band(least_s, most_s, within)


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
    stages = tuple(Stage(problem.nodes[u].node_id, start, stop) for u, start, stop in other)
    return Rival(stages, doubted.node_id, factor, ours / theirs - 1.0, at_first / chosen - 1.0 if chosen > 0.0 else 0.0)


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
