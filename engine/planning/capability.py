"""Which nodes may hold layers, why others may not, and how well each suits a strategy. It places nothing.

A score is a share of the best eligible node's figure, so the best one has 1 and a refused one 0: speed over the whole chain
for `balanced` and `bottleneck_first`, memory for `memory_aware`, speed with the link and only as far as the model fits for
`latency_optimized`, work per joule for `cost`. Scores explain; the solver decides on times and memory themselves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from engine.data.errors import InvalidInput
from engine.profile.hardware import DeviceType, HardwareCapability


@dataclass(frozen=True, slots=True)
class LayerRequirements:
    """What one item asks of the node that holds it, in one step at the planned context."""

    name: str
    dtype: str
    memory_bytes: float  # weights, and the KV of all planned sessions
    flops: float
    moved_bytes: float
    output_bytes: float = 0.0  # what the link carries when the next item is elsewhere

    def __post_init__(self) -> None:
        for what in ("memory_bytes", "flops", "moved_bytes", "output_bytes"):
            value = getattr(self, what)
            if not math.isfinite(value) or value < 0:
                raise InvalidInput(f"layer {self.name[:80]!r}: {what} of {value} is not allowed: it must be finite and not below 0")


@dataclass(frozen=True, slots=True)
class MatchRules:
    """What an operator demands of every node besides being able to run the model."""

    device_types: frozenset[DeviceType] = frozenset(DeviceType)
    min_memory_bytes: float = 0.0
    max_link_latency_s: float = math.inf


@dataclass(frozen=True, slots=True)
class Refusal:
    """A node that may not hold layers, and one sentence why, with the way out."""

    node_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Match:
    """The verdict over all nodes; every node is either in `eligible` or in `refusals`, and has a score."""

    eligible: tuple[HardwareCapability, ...]
    refusals: tuple[Refusal, ...]
    scores: dict[str, float] = field(default_factory=dict)  # by node id, 0..1


class CapabilityMatcher:
    """Judges nodes for one chain of layers."""

    def __init__(self, layers: Sequence[LayerRequirements], rules: MatchRules | None = None) -> None:
        if not layers:
            raise InvalidInput("there are no layers to place: give at least one")
        self._layers, self._rules = tuple(layers), rules or MatchRules()

    def match(self, nodes: Sequence[HardwareCapability], strategy: str) -> Match:
        """Filter and score. Raises InvalidInput for an unknown strategy or two nodes of one id."""
        if strategy not in _MERITS:
            raise InvalidInput(f"strategy {strategy[:80]!r} has no score: choose one of {', '.join(_MERITS)}")
        if len({node.node_id for node in nodes}) != len(nodes):
            raise InvalidInput("two nodes have the same id: give each its own")
        reasons = {node.node_id: self.refusal(node) for node in nodes}
        eligible = tuple(node for node in nodes if not reasons[node.node_id])
        merits = {node.node_id: _MERITS[strategy](node, self._layers, eligible) for node in eligible}
        best = max(merits.values(), default=0.0)
        scores = {node.node_id: merits.get(node.node_id, 0.0) / best if best > 0 else 0.0 for node in nodes}
        return Match(eligible, tuple(Refusal(node_id, reason) for node_id, reason in reasons.items() if reason), scores)

    def refusal(self, node: HardwareCapability) -> str:
        """Why `node` may hold none of the layers; empty if it may."""
        rules, who = self._rules, f"{node.node_id} ({node.device_name})"
        if node.device_type not in rules.device_types:
            return f"{who} is of type {node.device_type}, allowed are {', '.join(sorted(rules.device_types)) or 'none'}: allow it"
        if not (runnable := [layer for layer in self._layers if node.supports(layer.dtype)]):
            wanted, works = self._layers[0].dtype, ", ".join((*node.rooflines, *node.dtypes)) or "nothing"
            return f"{who} cannot compute in {wanted}, only in {works}: choose another --dtype or node"
        if node.memory_bytes < rules.min_memory_bytes:
            return f"{who} has {_mb(node.memory_bytes)} free, at least {_mb(rules.min_memory_bytes)} are asked for: free some memory"
        smallest = min(runnable, key=lambda layer: layer.memory_bytes)
        if node.memory_bytes < smallest.memory_bytes:
            need = f"the smallest layer {smallest.name} needs {_mb(smallest.memory_bytes)}"
            return f"{who} has {_mb(node.memory_bytes)} free, {need}: free some memory or plan fewer sessions"
        if (latency_s := node.link_latency_s or 0.0) > rules.max_link_latency_s:
            limit = f"the limit is {1e3 * rules.max_link_latency_s:.3g} ms"
            return f"{who} is {1e3 * latency_s:.3g} ms away, {limit}: raise it or use a faster link"
        return ""


Merit = Callable[[HardwareCapability, Sequence[LayerRequirements], Sequence[HardwareCapability]], float]


def _chain_s(node: HardwareCapability, layers: Sequence[LayerRequirements]) -> float:
    """The least time of all layers. One that the node cannot run counts in its slowest dtype: a lack never looks fast."""
    slowest = min(node.rooflines.values(), key=lambda roof: roof.flops_per_s)
    roofs = [(layer, node.rooflines.get(layer.dtype, slowest)) for layer in layers]
    return sum(max(layer.flops / roof.flops_per_s, layer.moved_bytes / roof.bytes_per_s) for layer, roof in roofs)


def _speed(node: HardwareCapability, layers: Sequence[LayerRequirements], _: Sequence[HardwareCapability]) -> float:
    return 1.0 / max(_chain_s(node, layers), _SHORTEST_S)


def _memory(node: HardwareCapability, _: Sequence[LayerRequirements], __: Sequence[HardwareCapability]) -> float:
    return float(node.memory_bytes)


def _latency(node: HardwareCapability, layers: Sequence[LayerRequirements], _: Sequence[HardwareCapability]) -> float:
    """Out and back once: tokens in, the widest hidden state out."""
    there_s = 2.0 * (node.link_latency_s or 0.0)
    if node.link_bandwidth_bytes_per_s is not None:
        there_s += max(layer.output_bytes for layer in layers) / node.link_bandwidth_bytes_per_s
    needed_bytes = sum(layer.memory_bytes for layer in layers)
    fitting = min(1.0, node.memory_bytes / needed_bytes) if needed_bytes > 0 else 1.0
    return fitting / max(_chain_s(node, layers) + there_s, _SHORTEST_S)


def _thrift(node: HardwareCapability, layers: Sequence[LayerRequirements], eligible: Sequence[HardwareCapability]) -> float:
    """Chains per joule. A node that does not tell its power counts as the hungriest that does."""
    known = [other.power_w for other in eligible if other.power_w is not None]
    watts = node.power_w if node.power_w is not None else max(known, default=1.0)
    return _speed(node, layers, eligible) / watts


_SHORTEST_S = 1e-12  # layers without work take no time anywhere: all nodes are equal then
_MERITS: dict[str, Merit] = {
    "auto": _speed,
    "balanced": _speed,
    "bottleneck_first": _speed,
    "memory_aware": _memory,
    "latency_optimized": _latency,
    "cost": _thrift,
}


def _mb(num_bytes: float) -> str:
    return f"{num_bytes / 1e6:.0f} MB"
