"""Why nothing fits, what binds a plan, and what would help: all found by solving changed problems, never by rules of thumb."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

from engine.planning.constraints import PlanningConstraints
from engine.planning.problem import Infeasible, Link, PairLink, Problem
from engine.planning.routing import search_route
from engine.planning.shortage import offered_bytes, shortage
from engine.planning.solution import Solution
from engine.planning.solving.exact import Solver
from engine.planning.solving.structure import nodes_of


def feasible(problem: Problem) -> bool:
    """Whether any placement satisfies all limits; False also where that is too large to decide."""
    solver = Solver(problem, search_route(problem))
    found = solver.bottleneck(solver.bounds)
    return found is not None and not solver.gave_up


# --- infeasible -------------------------------------------------------------------------------------------------
def explain_infeasible(problem: Problem) -> Infeasible:
    """The limit that binds and the smallest change of it that makes a placement possible."""
    alone = _impossible_item(problem)
    if alone:
        return Infeasible(alone)
    for cure in (_cure_constraints, _cure_links, _cure_memory):
        sentence = cure(problem)
        if sentence:
            return Infeasible(sentence)
    bare = replace(problem, constraints=PlanningConstraints(), use_all_nodes=False)
    if feasible(bare):
        return Infeasible(
            "several constraints together leave no placement, no single one of them is to blame: drop some; without any it fits"
        )
    sentence = _cure_links(bare) or _cure_memory(bare)
    return Infeasible(f"without the constraints, too: {sentence}" if sentence else shortage(problem))


def _impossible_item(problem: Problem) -> str:
    """An item that no node can hold alone."""
    nodes = nodes_of(problem)
    for i, item in enumerate(problem.items):
        able = [u for u in nodes if problem.nodes[u].stage_time_s or math.isfinite(problem.nodes[u].time_s[i])]
        if not able:
            return f"item {name_text(item.name)} can run on none of the nodes (its time is infinite on each): add a node that supports it"
        u = max(able, key=lambda u: problem.room_bytes(u) - problem.nodes[u].buffer_bytes)
        need, room = problem.memory_bytes(u, i, i + 1), problem.room_bytes(u)
        if need > room:
            return (
                f"memory: item {name_text(item.name)} alone needs {bytes_text(need)}, the roomiest node that can run it, "
                f"{id_text(problem, u)}, has {bytes_text(max(room, 0))}: give it at least {bytes_text(need - room)} more, "
                "or use fewer sessions or a shorter context"
            )
    return ""


def _cure_constraints(problem: Problem) -> str:
    for change, sentence in _constraint_cures(problem):
        if feasible(change):
            return sentence(change)
    return ""


def _constraint_cures(problem: Problem) -> Iterator[tuple[Problem, Callable[[Problem], str]]]:
    """Each constraint alone taken away, with the sentence that gives its smallest sufficient change."""
    c, n = problem.constraints, len(problem.items)
    if problem.use_all_nodes:
        count = len(nodes_of(problem))
        if count > n:
            yield (
                replace(problem, use_all_nodes=False),
                lambda p: f"use_all_nodes asks for {count} stages, there are {n} items: leave {count - n} nodes out",
            )
        yield (
            replace(problem, use_all_nodes=False),
            lambda p: f"use_all_nodes cannot be met: {_most_stages(p)} of {count} nodes can be used together",
        )
    if c.latency_limit_s < math.inf:
        yield _with(problem, latency_limit_s=math.inf), lambda p: _latency_sentence(problem, p)
    if c.max_stages is not None:
        yield _with(problem, max_stages=None), lambda p: f"max_stages {c.max_stages} is too few: {_fewest_stages(p)} are needed"
    if c.min_items_per_stage > 1:
        fits = "min_items_per_stage"
        yield (
            _with(problem, min_items_per_stage=1),
            lambda p: f"{fits} {c.min_items_per_stage} is too many: at most {_largest_minimum(problem)} can be met",
        )
    if c.max_items_per_stage is not None:
        yield (
            _with(problem, max_items_per_stage=None),
            lambda p: f"max_items_per_stage {c.max_items_per_stage} is too few: {_smallest_maximum(problem)} would do",
        )
    if c.stage_items:
        yield (
            _with(problem, stage_items=()),
            lambda p: f"stage_items {','.join(map(str, c.stage_items))} fits on no nodes: leave the counts to the planner",
        )
    for k, (item, node_id) in enumerate(c.pins):
        pinned = f"item {name_text(problem.items[item].name)} cannot be pinned to {name_text(node_id)}: drop this pin"
        yield _with(problem, pins=c.pins[:k] + c.pins[k + 1 :]), _always(pinned)
    for node_id in c.forbidden_nodes:
        rest = tuple(x for x in c.forbidden_nodes if x != node_id)
        yield _with(problem, forbidden_nodes=rest), _always(f"without the forbidden nodes nothing fits: allow {name_text(node_id)}")
    if c.memory_reserve_bytes:
        yield (
            _with(problem, memory_reserve_bytes=0.0),
            lambda p: f"memory_reserve_bytes {bytes_text(c.memory_reserve_bytes)} leaves too little: {_reserve(problem)}",
        )


def _always(sentence: str) -> Callable[[Problem], str]:
    return lambda changed: sentence


def _with(problem: Problem, **changes: object) -> Problem:
    return replace(problem, constraints=replace(problem.constraints, **changes))  # type: ignore[arg-type]


def _latency_sentence(problem: Problem, free: Problem) -> str:
    from engine.planning.strategies import solve

    best_s = solve(replace(free, in_flight=1), "latency_optimized").round_trip_s
    limit_s = problem.constraints.latency_limit_s
    return f"latency_limit_s {limit_s:g} cannot be met: the shortest round trip is {best_s * (1 + 1e-8):.9g} s: raise the limit to that"


def _first(values: Iterator[int] | range, works: Callable[[int], bool]) -> int:
    return next((value for value in values if works(value)), 0)


def _fewest_stages(free: Problem) -> int:
    return _first(range(1, len(free.nodes) + 1), lambda k: feasible(_with(free, max_stages=k)))


def _most_stages(free: Problem) -> int:
    from engine.planning.strategies import solve

    return len(solve(free, "balanced").stages)


def _largest_minimum(problem: Problem) -> int:
    return _first(range(problem.constraints.min_items_per_stage - 1, 0, -1), lambda k: feasible(_with(problem, min_items_per_stage=k)))


def _smallest_maximum(problem: Problem) -> int:
    low = (problem.constraints.max_items_per_stage or 1) + 1
    return _first(range(low, len(problem.items) + 1), lambda k: feasible(_with(problem, max_items_per_stage=k)))


def _reserve(problem: Problem) -> str:
    sizes = sorted({problem.nodes[u].memory_bytes - size for u in nodes_of(problem) for size in stage_sizes(problem, u)}, reverse=True)
    sizes = [x for x in sizes if 0 <= x < problem.constraints.memory_reserve_bytes]
    k = first_that(sizes, lambda size: feasible(_with(problem, memory_reserve_bytes=size)))
    return f"at most {bytes_text(sizes[k])} can be kept free" if k is not None else "keep nothing free"


def _cure_memory(problem: Problem) -> str:
    """The smallest addition to one node's or one pool's memory that makes it fit; else to all nodes alike."""
    best: tuple[float, str] | None = None
    for u in nodes_of(problem)[:16]:
        extra = _smallest_extra(problem, {u})
        if extra is not None and (best is None or extra < best[0]):
            best = (extra, f"give {id_text(problem, u)} {bytes_text(extra)} more")
    for k, pool in enumerate(problem.pools):
        extra = _pool_extra(problem, k)
        if extra is not None and (best is None or extra < best[0]):
            best = (extra, f"give the shared memory {name_text(pool.pool_id)} {bytes_text(extra)} more")
    if best is None:
        everyone = set(nodes_of(problem))
        extra = _smallest_extra(problem, everyone)
        if extra is None:
            return ""
        best = (extra, f"no single node's memory would do, but {bytes_text(extra)} more on every node")
    need, have = problem.stage_bytes(0, len(problem.items)), offered_bytes(problem)
    offer = f"the model needs {bytes_text(need)} for weights and KV and the nodes offer {bytes_text(have)} in pieces that do not suffice"
    return f"memory: {offer}: {best[1]}"


def with_memory(problem: Problem, which: set[int], more: float) -> Problem:
    nodes = tuple(replace(n, memory_bytes=n.memory_bytes + more) if u in which else n for u, n in enumerate(problem.nodes))
    return replace(problem, nodes=nodes)


def stage_sizes(problem: Problem, u: int) -> list[float]:
    n = len(problem.items)
    if n > 300:
        return [problem.memory_bytes(u, 0, b) for b in range(1, n + 1)] + [problem.memory_bytes(u, a, n) for a in range(n)]
    return [problem.memory_bytes(u, a, b) for a in range(n) for b in range(a + 1, n + 1)]


def _smallest_extra(problem: Problem, which: set[int]) -> float | None:
    """Only amounts at which one more stage fits on one of the nodes can be the smallest."""
    extras = sorted({size - problem.room_bytes(u) for u in which for size in stage_sizes(problem, u) if size > problem.room_bytes(u)})
    k = first_that(extras, lambda more: feasible(with_memory(problem, which, more)))
    return None if k is None else extras[k]


def _pool_extra(problem: Problem, k: int) -> float | None:
    """To the byte: a pool's use is a sum over stages, so its critical amounts are not listed."""

    def works(more: float) -> bool:
        pools = tuple(replace(p, memory_bytes=p.memory_bytes + more) if i == k else p for i, p in enumerate(problem.pools))
        return feasible(replace(problem, pools=pools))

    low, high = 0.0, 2 * problem.stage_bytes(0, len(problem.items)) + sum(node.buffer_bytes for node in problem.nodes)
    if not works(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if works(middle) else (middle, high)
    return high


def first_that(values: list[float], works: Callable[[float], bool]) -> int | None:
    """Index of the first value that works, when all after it do too; None if none does."""
    if not values or not works(values[-1]):
        return None
    low, high = 0, len(values) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if works(values[middle]) else (middle + 1, high)
    return low


def _cure_links(problem: Problem) -> str:
    if isinstance(problem.links, Link):
        return ""
    if problem.return_hop and not problem.coordinator and feasible(replace(problem, return_hop=False)):
        return "links: no chain that fits has a link from its last node back to its first one: connect them or set return_hop to false"
    present = {(p.from_id, p.to_id) for p in problem.links} | {(p.to_id, p.from_id) for p in problem.links}
    ids = [problem.nodes[u].node_id for u in nodes_of(problem)]
    for x in ids:
        for y in ids:
            if x < y and (x, y) not in present and feasible(replace(problem, links=(*problem.links, PairLink(x, y, Link())))):
                return f"links: the nodes that would do are not connected: link {name_text(x)} and {name_text(y)}"
    return "links: the nodes that would do are not connected: link more of them" if feasible(replace(problem, links=Link())) else ""


# --- what binds, what would help --------------------------------------------------------------------------------
def binding(problem: Problem, found: Solution) -> str:
    """What the bottleneck is: a stage's compute, a link, or both."""
    costs = [problem.stage_cost_s(s.time_s, s.link_s) for s in found.stages]
    k = costs.index(max(costs))
    stage = found.stages[k]
    follower = found.stages[k + 1].node_id if k + 1 < len(found.stages) else ""
    if follower and stage.link_s >= stage.time_s:
        return f"the link {name_text(stage.node_id)} -> {name_text(follower)}: {1e3 * stage.link_s:.4g} ms"
    full = ", its memory is full" if stage.memory_bytes + _smallest_neighbour(problem, stage.start, stage.stop) > stage.room_bytes else ""
    return f"stage {k} on {name_text(stage.node_id)}, items {stage.start} to {stage.stop - 1}: {1e3 * stage.time_s:.4g} ms of compute{full}"


def _smallest_neighbour(problem: Problem, start: int, stop: int) -> float:
    sizes = [problem.stage_bytes(start - 1, stop)] if start else []
    sizes += [problem.stage_bytes(start, stop + 1)] if stop < len(problem.items) else []
    return min(sizes, default=0.0) - problem.stage_bytes(start, stop)


def id_text(problem: Problem, u: int) -> str:
    return name_text(problem.nodes[u].node_id)


def name_text(text: str) -> str:
    return ascii(text)[1:-1]


def bytes_text(size: float) -> str:
    """Whole bytes, rounded up so that an amount that is asked for suffices, and the same for people."""
    if size == math.inf:
        return "unlimited memory"
    whole = math.ceil(size)
    for unit, scale in (("GB", 1e9), ("MB", 1e6)):
        if size >= scale:
            return f"{whole} bytes ({size / scale:.4g} {unit})"
    return f"{whole} bytes"
