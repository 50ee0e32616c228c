"""Which workers the nodes of a Ray cluster are to hold, where their number follows the nodes. Knows no Ray."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

EPSILON = 1e-6  # Ray counts in ten-thousandths


@dataclass(frozen=True, slots=True)
class RayNode:
    """A node that lives, and all that it offers, used or not; several can be on one host."""

    node_id: str
    host: str
    total: Mapping[str, float]


def living(nodes: Iterable[Mapping[str, object]]) -> tuple[RayNode, ...]:
    """From the documents of `ray.nodes()`, in a steady order."""
    found = []
    for node in nodes:
        total = node.get("Resources")
        if node.get("Alive") and isinstance(total, Mapping):
            found.append(RayNode(str(node["NodeID"]), str(node.get("NodeManagerAddress", "")), dict(total)))
    return tuple(sorted(found, key=lambda node: node.node_id))


def bundle_of(node: RayNode, asked: Mapping[str, float] | None) -> dict[str, float]:
    """What one worker takes there."""
    if asked is not None:
        return dict(asked)
    return {"CPU": 1.0, "GPU": 1.0} if node.total.get("GPU", 0.0) >= 1.0 else {"CPU": 1.0}


def num_on(node: RayNode, asked: Mapping[str, float] | None) -> int:
    """Workers on a node: one for each GPU that it can give, else one, or none where nothing fits."""
    bundle = bundle_of(node, asked)
    fits = min((int(node.total.get(name, 0.0) / amount + EPSILON) for name, amount in bundle.items()), default=1)
    return fits if "GPU" in bundle else min(fits, 1)


def bundle_for_all(nodes: Sequence[RayNode], num_workers: int, asked: Mapping[str, float] | None) -> dict[str, float]:
    """What each of a fixed number takes: a GPU only if there is one for everybody."""
    if asked is not None:
        return dict(asked)
    num_gpus = sum(int(node.total.get("GPU", 0.0)) for node in nodes)
    return {"CPU": 1.0, "GPU": 1.0} if num_gpus >= num_workers else {"CPU": 1.0}


def shortage(nodes: Sequence[RayNode], num_workers: int, bundle: Mapping[str, float]) -> str:
    """Why Ray has no place for so many workers, in one sentence; empty if by its totals there is."""
    room = sum(min(int(node.total.get(name, 0.0) / amount + EPSILON) for name, amount in bundle.items()) for node in nodes)
    if room >= num_workers:
        return ""
    each = ",".join(f"{name}={amount:g}" for name, amount in bundle.items())
    return (
        f"the Ray cluster has room for {room} of {num_workers} workers that take {each} each, on {len(nodes)} nodes: the others wait until "
        "it grows; or give fewer --workers, or other --resources"
    )


def share_of_host(nodes: Sequence[RayNode], num_workers: int) -> int:
    """Workers that share the memory of one machine, where they are spread over the hosts of `nodes`."""
    return max(1, -(-num_workers // max(1, len({node.host for node in nodes}))))


def free_names(taken: Iterable[str], number: int) -> list[str]:
    """`w1`, `w2` and so on, the lowest first: who comes after a lost node takes its name and its place."""
    used, found, index = set(taken), list[str](), 1
    while len(found) < number:
        if (name := f"w{index}") not in used:
            found.append(name)
        index += 1
    return found
