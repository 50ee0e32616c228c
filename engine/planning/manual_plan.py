"""A plan that somebody else chose: so many items for the first node, so many for the next. It is checked, not searched."""

from __future__ import annotations

import math

from engine.data.errors import InvalidInput
from engine.data.plan import GIVEN, Plan, Stage
from engine.planning.problem import Infeasible, Problem
from engine.planning.solution import evaluate, pool_ratios, pools_hold


def given_plan(problem: Problem, layers: tuple[int, ...], order: tuple[str, ...], plan_version: int) -> Plan:
    """Stage k holds the next `layers[k]` items on the node `order[k]`, or without `order` on the problem's k-th node.

    Raises InvalidInput for counts that do not cover the items, Infeasible for a stage that its node cannot hold.
    """
    check_layers(layers, len(problem.items))
    used = _nodes(problem, layers, order)
    starts = [sum(layers[:k]) for k in range(len(layers))]
    cuts = [(node, start, start + count) for node, start, count in zip(used, starts, layers, strict=True)]
    for cut in cuts:
        if not problem.fits(*cut):
            raise Infeasible(_misfit(problem, *cut))
    if not pools_hold(problem, tuple(cuts)):
        _, pool = max(zip(pool_ratios(problem, tuple(cuts)), problem.pools, strict=True), key=lambda pair: pair[0])
        what = f"more than the {pool.memory_bytes / 1e6:.0f} MB of the memory {pool.pool_id[:64]} that they share"
        raise Infeasible(f"the given plan puts {what} on its nodes: give them fewer items, or use fewer of them")
    costs = evaluate(problem, tuple(cuts))
    if not math.isfinite(costs.round_trip_s):
        raise Infeasible("the given plan makes neighbours of nodes that have no link: see `noodle-engine status` for the links")
    return Plan(
        plan_version=plan_version,
        strategy=GIVEN,
        stages=tuple(Stage(stage.node_id, stage.start, stage.stop) for stage in costs.stages),
        stage_s=tuple(stage.time_s for stage in costs.stages),
        bottleneck_s=costs.bottleneck_s,
        round_trip_s=costs.round_trip_s,
        hop_s=tuple(stage.hop_s for stage in costs.stages),
    )


def _nodes(problem: Problem, layers: tuple[int, ...], order: tuple[str, ...]) -> list[int]:
    """The index of each stage's node."""
    names = [node.node_id for node in problem.nodes]
    if order and (missing := [name for name in order if name not in names]):
        raise Infeasible(f"the given plan needs node {missing[0]}, which cannot hold layers now: there are {', '.join(names[:8])}")
    if len(set(order)) != len(order):
        raise InvalidInput(f"the given plan names a node twice ({', '.join(order[:32])}): give each node one range")
    used = [names.index(name) for name in order] if order else list(range(len(names)))
    if len(layers) > len(used):
        raise Infeasible(f"layers {_text(layers)} need {len(layers)} nodes, there are {len(used)}: start more workers")
    return used[: len(layers)]


def check_layers(layers: tuple[int, ...], num_items: int) -> None:
    """Raise InvalidInput unless every count is positive and they add up to the model's items."""
    if not layers or min(layers) < 1:
        raise InvalidInput(f"layers {_text(layers) or '(none)'} are not allowed: every stage needs 1 or more items")
    if sum(layers) != num_items:
        raise InvalidInput(f"layers {_text(layers)} are {sum(layers)} items, the model has {num_items}: make them add up to {num_items}")


def _misfit(problem: Problem, node: int, start: int, stop: int) -> str:
    need, have = problem.memory_bytes(node, start, stop), problem.room_bytes(node)
    where = f"items {start}-{stop - 1} on {problem.nodes[node].node_id}"
    if need > have:
        return f"{where} need {need / 1e6:.0f} MB, it offers {have / 1e6:.0f} MB: give that stage fewer items"
    return f"{where} cannot be: the node does not support one of them"


def _text(layers: tuple[int, ...]) -> str:
    return ",".join(map(str, layers[:32]))
