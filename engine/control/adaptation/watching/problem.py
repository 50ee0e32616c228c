"""The planning problem as adaptation needs it: what it assumes of nodes and links, and a copy that knows better."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from engine.data.measured_link import COORDINATOR
from engine.data.plan import Stage
from engine.planning.problem import Link, PairLink, PlanningNode, Problem


def measured_s(problem: Problem, stage: Stage) -> float:
    """Decode time of a stage by its node's own measurements; 0 if the problem does not have the node."""
    index = next((k for k, n in enumerate(problem.nodes) if n.node_id == stage.node_id), None)
    return 0.0 if index is None else problem.stage_s(index, stage.start, stage.stop)


def base_s(problem: Problem, node_id: str) -> float:
    """What a stage takes there beside its items; 0 if the problem does not have the node."""
    return next((n.base_s for n in problem.nodes if n.node_id == node_id), 0.0)


def knows_all(problem: Problem, stages: Sequence[Stage]) -> bool:
    """Every stage's node may hold items."""
    known = {n.node_id for n in problem.nodes}
    return all(s.node_id in known for s in stages)


def links_of(stages: Sequence[Stage]) -> list[tuple[str, str]]:
    """(from, to) of every hop of a step, the last one back to the coordinator."""
    path = [s.node_id for s in stages] + [COORDINATOR]
    return list(itertools.pairwise(path))


def link_name(source: str, target: str) -> str:
    return f"{source}>{target}"


def joins(link: str, node_id: str) -> bool:
    """The link of that name begins or ends at the node."""
    return node_id in link.split(">")


def assumed_hop_s(problem: Problem) -> float:
    """What the problem says of a hop that was never observed."""
    if isinstance(problem.links, Link):
        return problem.links.latency_s
    ordered = sorted(pair.link.latency_s for pair in problem.links)
    return ordered[len(ordered) // 2] if ordered else 0.0


def corrected(problem: Problem, levels: Mapping[str, float], room_bytes: Mapping[str, float] | None = None) -> Problem:
    """`problem` with every node's times multiplied by exp(level), and less memory where `room_bytes` says so."""
    room = room_bytes or {}
    nodes = tuple(_corrected_node(n, levels.get(n.node_id, 0.0), room.get(n.node_id, n.memory_bytes)) for n in problem.nodes)
    return problem if nodes == problem.nodes else replace(problem, nodes=nodes)


def known_better(problem: Problem, within: Mapping[str, float]) -> Problem:
    """`problem` with a smaller `time_error` of the nodes that steps have shown; those that nobody saw keep theirs."""
    errors = [min(node.time_error, within.get(node.node_id, node.time_error)) for node in problem.nodes]
    nodes = tuple(replace(node, time_error=error) for node, error in zip(problem.nodes, errors, strict=True))
    return problem if nodes == problem.nodes else replace(problem, nodes=nodes)


def with_slower_links(problem: Problem, factors: Mapping[str, float]) -> Problem:
    """`problem` with links between nodes, by their names, slower by these factors; those of other pairs stay."""
    names = [n.node_id for n in problem.nodes]
    slower = {pair: f for pair in itertools.permutations(names, 2) if (f := factors.get(link_name(*pair), 1.0)) > 1.0} if factors else {}
    if not slower:
        return problem
    if isinstance(problem.links, Link):
        pairs = dict.fromkeys(itertools.permutations(names, 2), problem.links)
    else:
        pairs = {(p.to_id, p.from_id): p.link for p in problem.links} | {(p.from_id, p.to_id): p.link for p in problem.links}
    links = tuple(PairLink(*pair, _slower(link, slower.get(pair, 1.0))) for pair, link in pairs.items())
    return replace(problem, links=links)


def _slower(link: Link, factor: float) -> Link:
    return Link(link.latency_s * factor, link.bandwidth_bytes_per_s / factor)


def _corrected_node(node: PlanningNode, level: float, memory_bytes: float) -> PlanningNode:
    factor, room_bytes = math.exp(level), min(memory_bytes, node.memory_bytes)
    if not level:
        return replace(node, memory_bytes=room_bytes)
    return replace(
        node,
        time_s=_scaled(node.time_s, factor),
        stage_time_s=_scaled(node.stage_time_s, factor),
        time_s_by_batch=tuple((rows, _scaled(times, factor)) for rows, times in node.time_s_by_batch),
        trip_time_s=_scaled(node.trip_time_s, factor),
        base_s=node.base_s * factor,
        memory_bytes=room_bytes,
    )


def _scaled(times: Sequence[float], factor: float) -> tuple[float, ...]:
    return tuple(time_s * factor for time_s in times)
