"""A planning problem for machines on which nobody ran the model: one profile, and what `doctor --hardware` found on each.

The matcher leaves out nodes that cannot hold any of it; the others get the profile's item times scaled by their rates. An
integrated GPU and the CPU beside it draw from one memory pool. A node's price is the power that it may draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from engine.data.model import Item
from engine.planning.capability import CapabilityMatcher, LayerRequirements, Match
from engine.planning.problem import Infeasible, Link, MemoryPool, PairLink, PlanningNode, Problem
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
    sessions: int = 1,
    context_tokens: int = 0,
) -> tuple[Problem, Match]:
    """The problem over the eligible nodes, and the verdict on all. Raises Infeasible, with every reason, if none is left, and
    Refused for a profile that is too noisy."""
    profile.check_usable()
    work = work_of(profile, profile.reference_point(DECODE if DECODE in profile.phases else FORWARD))
    nodes = [node for machine in machines for node in machine.nodes()]
    match = CapabilityMatcher(requirements(profile, work, sessions * context_tokens)).match(nodes, strategy)
    if not match.eligible:
        raise Infeasible("no node can hold layers: " + "; ".join(refusal.reason for refusal in match.refusals))
    pools = tuple(MemoryPool(machine.name, _main_memory_bytes(machine)) for machine in machines if _is_shared(machine))
    pooled = {node.node_id: machine.name for machine in machines if _is_shared(machine) for node in machine.nodes() if _draws(node)}
    planned = tuple(_node(node, pooled.get(node.node_id), work, profile) for node in match.eligible)
    items = tuple(
        Item(i.name, i.weight_bytes, i.kv_bytes_per_token, i.output_bytes_per_token, i.tied_to, i.tied_bytes) for i in profile.items
    )
    if not isinstance(links, Link):
        left = {node.node_id for node in planned}
        links = tuple(pair for pair in links if {pair.from_id, pair.to_id} <= left)
    return Problem(items, planned, links, sessions=sessions, context_tokens=context_tokens, pools=pools), match


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


def _node(node: HardwareCapability, pool_id: str | None, work: Sequence[ItemWork], profile: Profile) -> PlanningNode:
    time_s = scaled_item_s(work, profile.environment.roofline, node, profile.environment.dtype)
    return PlanningNode(node.node_id, node.memory_bytes, time_s, price_per_s=node.power_w or 0.0, pool_id=pool_id)


def _is_shared(machine: Machine) -> bool:
    return any(device.device_type is DeviceType.CUDA_INTEGRATED for device in machine.devices)


def _draws(node: HardwareCapability) -> bool:
    return node.device_type in (DeviceType.CPU, DeviceType.CUDA_INTEGRATED)


def _main_memory_bytes(machine: Machine) -> float:
    """Each device sees the same free memory, give or take what was allocated between two looks."""
    return max(device.memory_bytes for device in machine.devices if _draws(device))
