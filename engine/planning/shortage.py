"""What a refusal says when nothing better is known: what the model needs, and what the nodes together offer."""

from __future__ import annotations

from engine.planning.problem import Problem
from engine.planning.solving.structure import nodes_of


def shortage(problem: Problem) -> str:
    """The sentence; `explain.explain_infeasible` finds the smallest change by solving again."""
    need, have, num_nodes = problem.stage_bytes(0, len(problem.items)), offered_bytes(problem), len(nodes_of(problem))
    return (
        f"no placement satisfies every limit: the model needs {need / 1e6:.0f} MB for weights and KV, the {num_nodes} nodes "
        f"together offer {have / 1e6:.0f} MB: add a worker, give one more --memory, or choose a smaller model"
    )


def offered_bytes(problem: Problem) -> float:
    """What the usable nodes have for items: each beside its buffer, and those that share a memory no more than it has."""
    rooms: dict[object, float] = {}
    for u in nodes_of(problem):
        node = problem.nodes[u]
        key = u if node.pool_id is None else node.pool_id
        rooms[key] = rooms.get(key, 0.0) + max(0.0, problem.room_bytes(u) - node.buffer_bytes)
    limits: dict[object, float] = {pool.pool_id: pool.memory_bytes for pool in problem.pools}
    return sum(min(room, limits.get(key, room)) for key, room in rooms.items())
