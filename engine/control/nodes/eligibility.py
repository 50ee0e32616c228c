"""Who may hold layers, and what memory workers share: the facts that they registered with, judged for one model. Pure.

The matcher refuses, the planner places; a worker that is refused is left out with the reason until it registers again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from engine.control.nodes.members import Member, planning_node
from engine.data.model import ModelCard
from engine.data.plan import NodeSpec
from engine.data.precision import float_dtype
from engine.planning.capability import CapabilityMatcher, LayerRequirements, MatchRules
from engine.planning.problem import MemoryPool, PlanningNode
from engine.profile.hardware import DeviceType, HardwareCapability


def refusal(card: ModelCard, spec: NodeSpec, rules: MatchRules) -> str:
    """Why this worker may hold none of the model's items; empty if it may."""
    computed, kept = float_dtype(card.ref.dtype), card.ref.kept_dtype
    if spec.device_type != DeviceType.CPU and kept != computed:
        return f"{spec.device} keeps KV in {computed}, in which it computes, and not in {kept}: use --kv-dtype auto"
    return CapabilityMatcher(requirements(card), rules).refusal(capability_of(spec, card.ref.dtype))


def requirements(card: ModelCard) -> tuple[LayerRequirements, ...]:
    """What the items ask for beside time, which workers measure; KV has a budget of its own."""
    return tuple(LayerRequirements(i.name, card.ref.dtype, i.weight_bytes, 0.0, 0.0, i.output_bytes_per_token) for i in card.items)


def capability_of(spec: NodeSpec, dtype: str) -> HardwareCapability:
    """The worker's own facts. One that did not say what it supports is taken at its word when it measures in `dtype`."""
    room_bytes = max(0, spec.memory_bytes - spec.kv_budget_bytes)
    return HardwareCapability(
        node_id=spec.node_id,
        device_type=DeviceType(spec.device_type),
        device_name=spec.device_name or spec.device,
        num_cores=max(1, spec.num_cores),
        num_sms=0,
        memory_bytes=room_bytes,
        memory_total_bytes=max(room_bytes, spec.memory_bytes),
        dtypes=spec.dtypes or (dtype,),
    )


def binding_pools(members: Iterable[Member]) -> tuple[MemoryPool, ...]:
    """The memories that several of these workers share and that are smaller than what the workers were promised together.

    Of a pool's workers the first ones saw it emptiest, so the largest figure holds.
    """
    sharing: dict[str, list[NodeSpec]] = {}
    for member in members:
        if member.spec.pool_id:
            sharing.setdefault(member.spec.pool_id, []).append(member.spec)
    pools = {pool_id: (max(s.pool_bytes for s in specs), sum(s.memory_bytes for s in specs)) for pool_id, specs in sharing.items()}
    return tuple(MemoryPool(pool_id, float(size)) for pool_id, (size, promised) in pools.items() if 0 < size < promised)


def planning_nodes(members: Sequence[Member], pools: tuple[MemoryPool, ...]) -> tuple[PlanningNode, ...]:
    """As the planner sees them. Where memory is shared, a stage also takes its worker's KV budget out of it."""
    shared = {pool.pool_id for pool in pools}
    return tuple(_pooled(m) if m.spec.pool_id in shared else planning_node(m) for m in members)


def _pooled(member: Member) -> PlanningNode:
    spec = member.spec
    return replace(
        planning_node(member), memory_bytes=float(spec.memory_bytes), buffer_bytes=float(spec.kv_budget_bytes), pool_id=spec.pool_id
    )
