"""The planner and the simulator as a Python library: a profile in, plans and what they would do out.

    from engine.library import ExecutionPlanner, PartitionStrategy, VirtualNode

    planner = ExecutionPlanner.load_metrics_from_jsonl("profile-gpt2/profile.jsonl")
    print(planner.generate_plan([VirtualNode("a"), VirtualNode("b", slowdown=2.0)], PartitionStrategy.BALANCED).visualize())

Nothing here needs torch. What measures a model of your own does: `from engine.library.observability import ObservabilityEngine`.
engine/planning/README.md walks through all of it.
"""

from engine.control.adaptation.planner import AdaptivePlanner
from engine.control.adaptation.watching.beliefs import HeterogeneousPlan
from engine.library.benchmarker import Benchmark, Benchmarker, benchmark_text
from engine.library.execution_planner import ExecutionPlanner, PartitionStrategy, VirtualNode
from engine.planning.capability import CapabilityMatcher, LayerRequirements
from engine.planning.constraints import PlanningConstraints
from engine.planning.documents.partition_plan import PartitionPlan
from engine.planning.estimating.estimate import Machine
from engine.planning.partitioner import StaticPartitioner
from engine.planning.problem import Link, Problem
from engine.profile.hardware import DeviceType, HardwareCapability
from engine.profile.profile import Profile
from engine.simulation.simulator import StagedSimulator

__all__ = [
    "AdaptivePlanner",
    "Benchmark",
    "Benchmarker",
    "CapabilityMatcher",
    "DeviceType",
    "ExecutionPlanner",
    "HardwareCapability",
    "HeterogeneousPlan",
    "LayerRequirements",
    "Link",
    "Machine",
    "PartitionPlan",
    "PartitionStrategy",
    "PlanningConstraints",
    "Problem",
    "Profile",
    "StagedSimulator",
    "StaticPartitioner",
    "VirtualNode",
    "benchmark_text",
]
