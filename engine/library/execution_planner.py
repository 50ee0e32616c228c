"""ExecutionPlanner: plans and scenarios for one profiled model on machines that are described.

It builds what the commands build (`plan --profile`, `simulate --profile`) and hands it to the same solver and simulator.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from engine.data.errors import InvalidInput
from engine.data.plan import GIVEN, Plan
from engine.planning.constraints import PlanningConstraints
from engine.planning.documents.partition_plan import PartitionPlan
from engine.planning.estimating.bands import error_of
from engine.planning.estimating.estimate import Machine, estimate
from engine.planning.estimating.machine_links import links_between
from engine.planning.partitioner import StaticPartitioner
from engine.planning.problem import Link, PlanningNode, Problem
from engine.profile.point import DECODE, FORWARD
from engine.profile.profile import Profile
from engine.profile.scaling import ItemWork, work_of
from engine.report.jsonl import read_profile_jsonl
from engine.simulation.arrivals import at_once
from engine.simulation.cost import ProfileCosts
from engine.simulation.inputs import items_of
from engine.simulation.scenario import UNLIMITED_BYTES, LinkModel, NodeSetup, Scenario, SoftwareCosts

HOP_S = 0.4e-3  # what `simulate` takes for this program's own cost of a message


class PartitionStrategy(StrEnum):
    """What a plan minimises; engine/planning/README.md says it exactly."""

    AUTO = "auto"
    BALANCED = "balanced"
    BOTTLENECK_FIRST = "bottleneck_first"
    MEMORY_AWARE = "memory_aware"
    LATENCY_OPTIMIZED = "latency_optimized"
    COST = "cost"


@dataclass(frozen=True, slots=True)
class VirtualNode:
    """A machine like the profiled one, but `slowdown` times as slow. Raises InvalidInput for figures that no machine has."""

    node_id: str
    slowdown: float = 1.0
    memory_bytes: float = math.inf  # for weights, keys and values
    price_per_s: float = 0.0  # money or watts, for the strategy `cost`

    def __post_init__(self) -> None:
        if not 1e-6 <= self.slowdown <= 1e6:
            raise InvalidInput(f"node {self.node_id[:64]!r} has a slowdown of {self.slowdown}: it must lie in [1e-06, 1e+06]")


class ExecutionPlanner:
    """Plans for one profile. Raises Refused for a profile that is too noisy to predict anything from."""

    def __init__(self, profile: Profile) -> None:
        profile.check_usable()
        self.profile = profile

    @classmethod
    def load_metrics_from_jsonl(cls, path: Path | str) -> ExecutionPlanner:
        """From the `profile.jsonl` of `noodle-engine profile`. Raises NotFound, Corrupt or NotSupported."""
        return cls(read_profile_jsonl(Path(path)))

    def generate_plan(
        self,
        nodes: Sequence[VirtualNode] | Sequence[Machine],
        strategy: PartitionStrategy | str = PartitionStrategy.AUTO,
        constraints: PlanningConstraints | None = None,
        *,
        link: Link | None = None,
        in_flight: int = 1,
        sessions: int = 1,
        context_tokens: int = 0,
    ) -> PartitionPlan:
        """The best plan, with its proof, what binds, what would help, and how far that can be trusted; what `plan --profile` prints.

        Raises InvalidInput for what cannot be asked, Infeasible with the limit that binds and its smallest cure.
        """
        problem = self.problem(nodes, strategy, link=link, sessions=sessions, context_tokens=context_tokens)
        problem = replace(problem, in_flight=in_flight, constraints=constraints or PlanningConstraints())
        return StaticPartitioner(problem, self.profile.model).partition(str(strategy))

    def problem(
        self,
        nodes: Sequence[VirtualNode] | Sequence[Machine],
        strategy: PartitionStrategy | str = PartitionStrategy.AUTO,
        *,
        link: Link | None = None,
        sessions: int = 1,
        context_tokens: int = 0,
    ) -> Problem:
        """The problem over all nodes, one `link` for every pair; without it no message between virtual nodes takes time.

        Of machines that a doctor looked at only eligible nodes are in it, and without a `link` messages take what
        `machine_links.py` finds or assumes.
        """
        machines = [node for node in nodes if isinstance(node, Machine)]
        virtual = [node for node in nodes if isinstance(node, VirtualNode)]
        if machines and virtual:
            raise InvalidInput("virtual nodes and machines are given together: describe all of them in one way")
        if machines:
            links = links_between(machines, everywhere=link).links
            found, _ = estimate(self.profile, machines, str(strategy), links, sessions=sessions, context_tokens=context_tokens)
            return found
        work = work_of(self.profile, self.profile.reference_point(DECODE if DECODE in self.profile.phases else FORWARD))
        planned = tuple(_virtual(node, work, self.profile) for node in virtual)
        return Problem(items_of(self.profile), planned, link or Link(), sessions=sessions, context_tokens=context_tokens)

    def scenario(
        self,
        plan: PartitionPlan,
        nodes: Sequence[VirtualNode],
        *,
        link: Link | None = None,
        sessions: int = 1,
        prompt_tokens: int = 16,
        new_tokens: int = 64,
        hop_s: float = HOP_S,
    ) -> Scenario:
        """What `StagedSimulator` runs: `plan` on `nodes`, with sessions that all arrive at the start.

        Raises InvalidInput for a plan on other nodes, and for a profile without prefill and decode.
        """
        if self.profile.cost_model is None:
            raise InvalidInput(f"the profile of {self.profile.model} has no cost model: take it again on a quieter machine")
        link = link or Link()
        return Scenario(
            items=items_of(self.profile),
            costs=ProfileCosts(self.profile.cost_model),
            nodes=tuple(_setup(node) for node in nodes),
            arrivals=at_once(sessions, prompt_tokens, new_tokens),
            plan=Plan(1, GIVEN, plan.ranges),
            link=LinkModel(link.latency_s, link.bandwidth_bytes_per_s),
            software=SoftwareCosts(hop_s),
        )


def _virtual(node: VirtualNode, work: Sequence[ItemWork], profile: Profile) -> PlanningNode:
    time_s, error = tuple(item.time_s * node.slowdown for item in work), error_of(profile, node.slowdown)
    return PlanningNode(node.node_id, node.memory_bytes, time_s, price_per_s=node.price_per_s, time_error=error)


def _setup(node: VirtualNode) -> NodeSetup:
    memory = UNLIMITED_BYTES if node.memory_bytes == math.inf else min(UNLIMITED_BYTES, int(node.memory_bytes))
    return NodeSetup(node.node_id, slowdown=node.slowdown, memory_bytes=memory, kv_budget_bytes=memory // 2)
