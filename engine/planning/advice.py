"""What would help a plan: every direction is solved again, and what is said is the least change that gives what it promises.

Leaving a node out comes first, for it costs nothing. Memory is bisected over the sizes of stages, networks and nodes over factors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from engine.planning.explain import bytes_text, first_that, id_text, name_text, stage_sizes, with_memory
from engine.planning.problem import Infeasible, Link, Problem
from engine.planning.solution import Solution
from engine.planning.solving.structure import node_classes, nodes_of

MOST_RESOLVES = 60  # directions
WORTH = 0.01  # gains below 1 % are not worth a sentence
NEARLY = 0.9  # of what the largest change gains: a smaller one that gains so much is the one to make
FACTORS = (1.25, 1.5, 2.0, 3.0, 5.0, 10.0)
_WORDS = {2.0: "twice", 3.0: "three times", 5.0: "five times", 10.0: "ten times"}


@dataclass(frozen=True, slots=True)
class Direction:
    """A kind of change: the problem and the sentence for each amount, the amounts from the least to the largest."""

    amounts: tuple[float, ...]
    changed: Callable[[float], Problem]
    sentence: Callable[[float], str]
    promise: float = NEARLY


def advice(problem: Problem, found: Solution) -> tuple[str, ...]:
    """Up to three changes with the largest gain, those that leave a node out first."""
    if len(problem.nodes) * 2 ** len(node_classes(problem)) > 5000 or found.objective <= 0:
        return ()
    gains = []
    for direction in list(_directions(problem, found))[:MOST_RESOLVES]:
        largest = _gain(direction, -1, found)
        if largest > WORTH:
            enough = first_that(
                [float(k) for k in range(len(direction.amounts))],
                lambda k, d=direction, most=largest: _gain(d, int(k), found) >= d.promise * most,  # type: ignore[misc]
            )
            k = len(direction.amounts) - 1 if enough is None else enough
            gain = _gain(direction, k, found)
            gains.append((gain, f"{direction.sentence(direction.amounts[k])}: {100 * gain:.0f} % less"))
    others = tuple(text for _, text in sorted(gains, reverse=True))
    return (*_rests(problem, found), *others)[:3]


def _gain(direction: Direction, k: int, found: Solution) -> float:
    """How much less the objective is after the change, as a share."""
    better = _answer(direction.changed(direction.amounts[k]), found.strategy)
    return 0.0 if better is None else (found.objective - better.objective) / found.objective


def _answer(problem: Problem, strategy: str) -> Solution | None:
    from engine.planning.strategies import answer

    found = answer(problem, strategy)
    return None if isinstance(found, Infeasible) else found


def _rests(problem: Problem, found: Solution) -> Iterator[str]:
    """Nodes whose rest makes the rest faster, the best of them first; at last what the load would choose by itself."""
    if found.strategy == "memory_aware" or found.period_s <= 0 or len(found.cuts) < 2:
        return
    faster = []
    for u, _, _ in found.cuts:
        c = problem.constraints
        without = replace(problem, constraints=replace(c, forbidden_nodes=(*c.forbidden_nodes, problem.nodes[u].node_id)))
        better = _answer(without, found.strategy)
        if better is not None and better.period_s < (1 - WORTH) * found.period_s:
            faster.append((better.period_s, id_text(problem, u)))
    for period_s, node_id in sorted(faster)[:1]:
        yield f"leave {node_id} out: {1 / found.period_s:.4g} -> {_rate(period_s)} tokens/s"
    best = _answer(problem, "auto") if faster else None
    if best is not None and best.period_s < (1 - WORTH) * min(faster)[0]:
        used = ", ".join(name_text(stage.node_id) for stage in best.stages)
        yield f"--strategy auto, which uses {used}: {1 / found.period_s:.4g} -> {_rate(best.period_s)} tokens/s"


def _rate(period_s: float) -> str:
    return f"{1 / period_s:.4g}" if period_s > 0 else "unlimited"


def _directions(problem: Problem, found: Solution) -> Iterator[Direction]:
    for u in nodes_of(problem):
        if problem.nodes[u].memory_bytes < math.inf:
            yield _memory(problem, u)
    if isinstance(problem.links, Link):
        link = problem.links
        yield Direction(FACTORS, lambda f: replace(problem, links=_faster(link, f)), lambda f: f"a network {_times(f)} as fast")
    else:
        for a, b in zip(found.cuts, found.cuts[1:], strict=False):
            yield _pair(problem, problem.nodes[a[0]].node_id, problem.nodes[b[0]].node_id)


def _memory(problem: Problem, u: int) -> Direction:
    """More of it on one node: the sizes of stages that do not fit yet, each as what the node then has for a stage."""
    room = problem.room_bytes(u)
    sizes = sorted({size for size in stage_sizes(problem, u) if size > room}) or [room]
    return Direction(
        tuple(sizes),
        lambda size: with_memory(problem, {u}, size - room),
        lambda size: f"{bytes_text(size)} of memory on {id_text(problem, u)}",
        promise=1 - 1e-9,
    )


def _pair(problem: Problem, one: str, other: str) -> Direction:
    def changed(factor: float) -> Problem:
        assert not isinstance(problem.links, Link)  # noqa: S101  for the type checker
        links = tuple(replace(p, link=_faster(p.link, factor)) if {p.from_id, p.to_id} == {one, other} else p for p in problem.links)
        return replace(problem, links=links)

    ends = " - ".join(map(name_text, sorted({one, other})))
    return Direction(FACTORS, changed, lambda factor: f"the link {ends} {_times(factor)} as fast")


def _faster(link: Link, factor: float) -> Link:
    return Link(link.latency_s / factor, link.bandwidth_bytes_per_s * factor)


def _times(factor: float) -> str:
    return _WORDS.get(factor, f"{factor:g} times")
