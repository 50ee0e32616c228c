"""Made-up states of a cluster of three nodes on three hosts, under load."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from engine.data.precision import Identity
from engine.data.status import (
    ClusterStatus,
    EndedSessions,
    Gauges,
    MachineGauges,
    ModelStatus,
    NodeState,
    NodeStatus,
    Phase,
    SessionStatus,
    Speed,
    StageStatus,
    Work,
)

MIB = 2**20
NAMES = ("w1", "w2", "w3")


def node(name: str, **changes: Any) -> NodeStatus:
    machine = MachineGauges(num_cores=4, busy=0.3, stolen=0.0, clock=1.0, free_bytes=2**33, total_bytes=2**34, disk_free_bytes=2**36)
    base = NodeStatus(
        worker_id=name, pid=1, host=f"host-{name}", address="10.0.0.1:1", device="cpu", state=NodeState.OK, detail="", progress=-1.0,
        start=0, stop=4, memory_bytes=1000 * MIB, kv_budget_bytes=100 * MIB, heartbeat_age_s=0.1,
        gauges=Gauges(600 * MIB, MIB, 0.9, machine=machine), runtime_bytes=200 * MIB,
    )  # fmt: skip
    return replace(base, **changes)


def with_machine(of: NodeStatus, **changes: Any) -> NodeStatus:
    return replace(of, gauges=replace(of.gauges, machine=replace(of.gauges.machine, **changes)))


def stage(name: str, seen_s: float = 0.020, hop_s: float = 0.001, **changes: Any) -> StageStatus:
    base = StageStatus(name, 0, 4, 0.020, seen_s, 1.2 * seen_s, 0.0001, hop_s, 100, (), 0.001, 0.020, 0.001, 1.5 * hop_s)
    return replace(base, **changes)


def status(stages: Sequence[StageStatus] | None = (), nodes: Sequence[NodeStatus] = (), **changes: Any) -> ClusterStatus:
    """As planned, where nothing else is given; a plan without stages is `stages=None`."""
    stages = tuple(stage(name) for name in NAMES) if stages == () else tuple(stages or ())
    nodes = nodes or tuple(node(name) for name in NAMES)
    step_s = sum(s.compute_p50_s + s.hop_p50_s for s in stages) + 0.001
    base = ClusterStatus(
        cluster_id="c", phase=Phase.SERVING, detail="", model=ModelStatus("gpt2"), plan_version=1, strategy="balanced",
        num_workers_expected=3,
        nodes=tuple(nodes), stages=tuple(stages), sessions=(session("s-1"),),
        speed=Speed(1 / step_s, step_s, step_s, 0.02, 0.064, 10.0, 0.1, 0.001, 0.001, 0.064), ended=EndedSessions(), uptime_s=100.0,
        identity=Identity.UNKNOWN, work=Work(1, 40, 3, 0.0, 0.0, 100, 1000),
    )  # fmt: skip
    return replace(base, **changes)


def session(name: str, state: str = "decode", **changes: Any) -> SessionStatus:
    return replace(SessionStatus(name, state, 40, 4, 60, 0.1, 10.0, 1.0), **changes)
