"""What a problem is like, without solving it: equal nodes, equal items, whether a further start never hurts, and what relaxes it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import inf

from engine.planning.constraints import PlanningConstraints
from engine.planning.problem import ADDITIVE, STREAMED, Link, Problem


# --- nodes ------------------------------------------------------------------------------------------------------
def nodes_of(problem: Problem) -> list[int]:
    """The nodes that may be used."""
    return [u for u, node in enumerate(problem.nodes) if node.node_id not in problem.constraints.forbidden_nodes]


def has_equal_links(problem: Problem) -> bool:
    """Whether a hop's time does not depend on the nodes at its ends."""
    return isinstance(problem.links, Link) and problem.equal_ends


def node_classes(problem: Problem) -> list[list[int]]:
    """Nodes that can be swapped without changing any cost; in a given order, each is its own class."""
    nodes, pinned = nodes_of(problem), {node_id for _, node_id in problem.constraints.pins}
    if not problem.free_order:
        return [[u] for u in nodes]
    groups: dict[object, list[list[int]]] = {}
    for u in nodes:
        node = problem.nodes[u]
        sizes = (node.memory_bytes, node.buffer_bytes, node.pool_id)
        key = (node.time_s, node.trip_time_s, node.stage_time_s, node.base_s, node.price_per_s, problem.ends_s(u), sizes)
        pin = node.node_id if node.node_id in pinned else None
        alike = groups.setdefault((*key, pin), [])
        home = next((group for group in alike if _swappable(problem, nodes, group[0], u)), None)
        if home is None:
            alike.append([u])
        else:
            home.append(u)
    return sorted((group for alike in groups.values() for group in alike), key=lambda group: group[0])


def _swappable(problem: Problem, nodes: list[int], u: int, v: int) -> bool:
    if has_equal_links(problem):
        return True
    link, others = problem.link, [w for w in nodes if w not in (u, v)]
    return link(u, v) == link(v, u) and all(link(u, w) == link(v, w) and link(w, u) == link(w, v) for w in others)


# --- items ------------------------------------------------------------------------------------------------------
def interchangeable(problem: Problem) -> bool:
    """Whether items are identical and links equal, so that the order of the nodes changes nothing but which of them comes last."""
    items, c = problem.items, problem.constraints
    alike = {(i.weight_bytes, i.kv_bytes_per_token, i.tied_to) for i in items}
    hops = {i.output_bytes_per_token for i in items[:-1]}
    return (
        problem.free_order
        and has_equal_links(problem)
        and len(alike) == 1
        and items[0].tied_to is None
        and len(hops) <= 1
        and len(set(problem.workspace_bytes)) <= 1
        and not c.pins
        and not c.stage_items
        and all(node.stage_time_s or len(set(node.time_s)) == 1 >= len(set(node.trip_time_s)) for node in problem.nodes)
    )


def last_matters(problem: Problem) -> bool:
    """Whether it matters which node comes last, and so sends nothing, in an interchangeable problem."""
    link = problem.links
    assert isinstance(link, Link)  # noqa: S101  for the type checker
    num_bytes = problem.items[0].output_bytes_per_token
    hop_s = link.held_s(num_bytes * problem.held_share) if problem.link_cost == STREAMED else link.transfer_s(num_bytes)
    least = min(node.base_s + min(node.stage_time_s or node.time_s) for node in problem.nodes)
    return hop_s > 0 if problem.link_cost == ADDITIVE else hop_s > least


# --- the whole --------------------------------------------------------------------------------------------------
def is_regular(problem: Problem) -> bool:
    """Whether every part of an allowed stage is allowed and costs no more, in any order of the nodes: then within a bottleneck a
    chain that has come further can do whatever one behind it can."""
    c, tables = problem.constraints, [problem.nodes[u].stage_time_s for u in nodes_of(problem)]
    return (
        has_equal_links(problem)
        and problem.free_order
        and c.min_items_per_stage == 1
        and not c.stage_items
        and not problem.pools
        and all(x <= y for table in tables for x, y in pairwise(table))
        and (problem.link_cost != ADDITIVE or _has_equal_hops(problem))
    )


def _has_equal_hops(problem: Problem) -> bool:
    link = problem.links
    return isinstance(link, Link) and len({link.transfer_s(item.output_bytes_per_token) for item in problem.items[:-1]}) <= 1


def is_unlimited(problem: Problem) -> bool:
    """Whether any number of stages, any bottleneck and any round trip is allowed."""
    c, num_nodes = problem.constraints, len(nodes_of(problem))
    any_number = (c.max_stages is None or c.max_stages >= num_nodes) and (num_nodes == 1 or not problem.use_all_nodes)
    return any_number and c.min_stages == 1 and min(c.latency_limit_s, c.bottleneck_limit_s) == inf


# --- relaxation -------------------------------------------------------------------------------------------------
def relaxation(problem: Problem, constraints: PlanningConstraints | None = None) -> Problem:
    """The best link for all, no shared memory, no way to the coordinator: no placement gets worse. Its own constraints, or others."""
    looser = replace(without_coordinator(problem), links=best_link(problem))
    return without_pools(looser if constraints is None else replace(looser, constraints=constraints))


def of_single_stages(c: PlanningConstraints) -> PlanningConstraints:
    """The constraints that say which stages are allowed, without those on what the stages are together or on their fewest items."""
    kept = {"forbidden_nodes": c.forbidden_nodes, "max_items_per_stage": c.max_items_per_stage}
    return PlanningConstraints(pins=c.pins, memory_reserve_bytes=c.memory_reserve_bytes, **kept)  # type: ignore[arg-type]


def best_link(problem: Problem) -> Link:
    """A link that is at least as fast as every pair's."""
    if isinstance(problem.links, Link):
        return problem.links
    links = [pair.link for pair in problem.links]
    return Link(min((x.latency_s for x in links), default=0.0), max((x.bandwidth_bytes_per_s for x in links), default=inf))


def without_coordinator(problem: Problem) -> Problem:
    """The problem without what depends on where the coordinator is; no round trip is longer."""
    return replace(problem, coordinator=(), return_hop=False) if problem.coordinator else problem


def without_pools(problem: Problem) -> Problem:
    nodes = tuple(replace(node, pool_id=None) for node in problem.nodes)
    return replace(problem, nodes=nodes, pools=())
