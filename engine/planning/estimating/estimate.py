"""A planning problem for machines on which nobody ran the model: one profile, and what `doctor --hardware` found on each.

The matcher leaves out nodes that cannot hold any of it; the others get the profile's item times scaled by their rates. Where the profile
has a cost model, times are those of decode steps with the context that is planned for, for every number of rows that was measured. An
integrated GPU and the CPU beside it draw from one memory pool. A node's price is the power that it may draw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from engine.data.model import Item
from engine.planning.capability import CapabilityMatcher, LayerRequirements, Match
from engine.planning.estimating.bands import error_of
from engine.planning.load import MOST_ROWS
from engine.planning.problem import OVERLAPPED, STREAMED, Infeasible, Link, MemoryPool, PairLink, PlanningNode, Problem
from engine.profile.hardware import DeviceType, HardwareCapability
from engine.profile.point import DECODE, FORWARD
from engine.profile.profile import Profile
from engine.profile.scaling import ItemWork, scaled_item_s, work_of


@dataclass(frozen=True, slots=True)
class Machine:
    """The devices of one host, which share its main memory."""

    name: str
    devices: tuple[HardwareCapability, ...]

    def nodes(self) -> tuple[HardwareCapability, ...]:
        """Its devices under names that differ from other machines'."""
        return tuple(replace(device, node_id=f"{self.name}.{device.node_id}") for device in self.devices)


def estimate(
    profile: Profile,
    machines: Sequence[Machine],
    strategy: str,
    links: Link | tuple[PairLink, ...],
    *,
    sessions: int | None = None,
    context_tokens: int = 0,
    in_flight: int = 1,
) -> tuple[Problem, Match]:
    """The problem over the eligible nodes, and the verdict on all. Raises Infeasible, with every reason, if none is left, and
    Refused for a profile that is too noisy. `sessions` have KV on every stage: those `in_flight` unless it says more or fewer."""
    profile.check_usable()
    sessions = in_flight if sessions is None else sessions
    work = work_of(profile, profile.reference_point(DECODE if DECODE in profile.phases else FORWARD))
    nodes = [node for machine in machines for node in machine.nodes()]
    match = CapabilityMatcher(requirements(profile, work, sessions * context_tokens)).match(nodes, strategy)
    if not match.eligible:
        raise Infeasible("no node can hold layers: " + "; ".join(refusal.reason for refusal in match.refusals))
    pools = tuple(MemoryPool(machine.name, _main_memory_bytes(machine)) for machine in machines if _is_shared(machine))
    pooled = {node.node_id: machine.name for machine in machines if _is_shared(machine) for node in machine.nodes() if _draws(node)}
    batches = _batches(profile, context_tokens)
    planned = tuple(_node(node, pooled.get(node.node_id), work, profile, batches) for node in match.eligible)
    items = tuple(
        Item(i.name, i.weight_bytes, i.kv_bytes_per_token, i.output_bytes_per_token, i.tied_to, i.tied_bytes) for i in profile.items
    )
    if not isinstance(links, Link):
        left = {node.node_id for node in planned}
        links = tuple(pair for pair in links if {pair.from_id, pair.to_id} <= left)
    problem = Problem(
        items,
        planned,
        links,
        link_cost=STREAMED if batches else OVERLAPPED,
        sessions=sessions,
        context_tokens=context_tokens,
        in_flight=in_flight,
        pools=pools,
    )
    return problem, match


def requirements(profile: Profile, work: Sequence[ItemWork], kv_tokens: int) -> tuple[LayerRequirements, ...]:
    """What each item asks of its node when every stage must hold `kv_tokens` tokens of KV."""
    return tuple(
        LayerRequirements(
            item.name,
            profile.environment.dtype,
            item.weight_bytes + item.kv_bytes_per_token * kv_tokens,
            done.flops,
            done.moved_bytes,
            item.output_bytes_per_token,
        )
        for item, done in zip(profile.items, work, strict=True)
    )


def _batches(profile: Profile, context_tokens: int) -> dict[int, tuple[ItemWork, ...]]:
    """Rows of a step -> every item's work there, at the context that is planned for, else at the profile's middle one."""
    if profile.cost_model is None or DECODE not in profile.phases:
        return {}
    context = context_tokens or profile.reference_point(DECODE).context
    points = sorted((p for p in profile.points if p.phase == DECODE), key=lambda p: (p.batch, p.context))
    work = {point.batch: work_of(profile, point) for point in points}
    if 1 not in work:
        return {}
    found = {}
    for rows in (n for n in profile.cost_model.laws(DECODE).num_tokens if n <= MOST_ROWS):
        near = max(n for n in work if n <= rows)  # recorded steps have more rows than hooks saw
        times = (profile.cost_model.time_s(i, DECODE, 1, context, rows) for i in range(len(profile.items)))
        pairs = zip(work[near], times, strict=True)
        found[rows] = tuple(replace(done, time_s=time_s, flops=done.flops * rows / near) for done, time_s in pairs)
    return found


def _node(
    node: HardwareCapability, pool_id: str | None, work: Sequence[ItemWork], profile: Profile, batches: Mapping[int, Sequence[ItemWork]]
) -> PlanningNode:
    roof, dtype = profile.environment.roofline, profile.environment.dtype
    by_batch = tuple((rows, scaled_item_s(done, roof, node, dtype)) for rows, done in batches.items())
    time_s = by_batch[0][1] if by_batch else scaled_item_s(work, roof, node, dtype)
    price = node.power_w or 0.0
    error = error_of(profile, roof, node.rooflines.get(dtype))
    return PlanningNode(
        node.node_id, node.memory_bytes, time_s, price_per_s=price, pool_id=pool_id, time_s_by_batch=by_batch, time_error=error
    )


def _is_shared(machine: Machine) -> bool:
    return any(device.device_type is DeviceType.CUDA_INTEGRATED for device in machine.devices)


def _draws(node: HardwareCapability) -> bool:
    return node.device_type in (DeviceType.CPU, DeviceType.CUDA_INTEGRATED)


def _main_memory_bytes(machine: Machine) -> float:
    """Each device sees the same free memory, give or take what was allocated between two looks."""
    return max(device.memory_bytes for device in machine.devices if _draws(device))
