"""Why a stage takes longer than its plan, as far as what its node tells allows to say; and the rules that make a warning. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from engine.data.measured_link import COORDINATOR
from engine.data.status import ClusterStatus, NodeState, NodeStatus
from engine.diagnosis.diagnose import memory_share
from noodle_tui.listings.nodes import NodeRow, kv_share, node_rows, over_plan
from noodle_tui.listings.stage_times import has_slow_hop
from noodle_tui.state import Thresholds
from noodle_tui.text.figures import percent

HOT_C = 85.0
BUSY, IDLE = 0.9, 0.5  # of the device's time


def likely_cause(row: NodeRow, limits: Thresholds) -> str:
    """Empty while the stage keeps its plan."""
    if not over_plan(row.stage, limits):
        return ""
    node = row.node
    use = node.gauges.gpu_utilisation if node.gauges.gpu_utilisation is not None else node.gauges.cpu_utilisation
    warmest = max((c for c in (node.gauges.gpu_temperature_c, node.gauges.cpu_temperature_c) if c is not None), default=0.0)
    if node.state in (NodeState.SUSPECT, NodeState.LOST):
        return "its heartbeats are late: the machine or its network stalls"
    if warmest >= HOT_C:
        return f"{warmest:.0f} C: it is hot and may be clocked down"
    if memory_share(node) > limits.memory:
        return f"memory {percent(memory_share(node))}: it may swap"
    if use >= BUSY:
        return f"util {percent(use)}: its device is busy all the time, with this stage or with something beside it"
    if use < IDLE:
        return f"util only {percent(use)}: it is clocked down, shared with something else, or waits within its steps"
    return f"util {percent(use)}, queue {node.gauges.queue_depth}: more sessions at once than it was planned for, or it is shared"


@dataclass(frozen=True, slots=True)
class Rule:
    """One condition that is watched, and the nodes for which it holds now."""

    is_error: bool
    text: str
    nodes: tuple[str, ...]


def alert_rules(status: ClusterStatus, limits: Thresholds) -> tuple[Rule, ...]:
    """All of them, whether they hold or not."""
    nodes = status.nodes
    late = [row.node.worker_id for row in node_rows(status) if over_plan(row.stage, limits)]
    return (
        Rule(True, "node lost", _names(n for n in nodes if n.state is NodeState.LOST)),
        Rule(False, f"stage p50 > {1 + limits.over_plan:g}x planned", tuple(late)),
        Rule(False, "hop > 3x planned, 20 ms", tuple(_slow_hops(status))),
        Rule(False, f"heartbeat > {limits.heartbeat_s:g} s", _names(_quiet(nodes, limits))),
        Rule(False, f"memory > {percent(limits.memory)}", _names(n for n in nodes if memory_share(n) > limits.memory)),
        Rule(False, f"KV > {percent(limits.kv)}", _names(n for n in nodes if kv_share(n) > limits.kv)),
    )


def _slow_hops(status: ClusterStatus) -> Iterator[str]:
    ends = [*(stage.worker_id for stage in status.stages[1:]), COORDINATOR]
    for stage, end in zip(status.stages, ends, strict=False):
        if stage.num_steps and has_slow_hop(stage):
            yield f"{stage.worker_id}>{end}"


def _quiet(nodes: Sequence[NodeStatus], limits: Thresholds) -> list[NodeStatus]:
    return [n for n in nodes if n.state is not NodeState.LOST and n.heartbeat_age_s >= limits.heartbeat_s]


def _names(nodes: Iterable[NodeStatus]) -> tuple[str, ...]:
    return tuple(node.worker_id for node in nodes)
