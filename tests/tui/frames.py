"""Synthetic cluster states for the console's tests: a healthy one, and how to change it."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from engine.data.adaptation import AdaptationEntry
from engine.data.generation import StageTiming, TokenChunk
from engine.data.moves import MoveEstimate, MoveReport, NodeMemory
from engine.data.plan import Plan, Stage
from engine.data.status import (
    ClusterStatus,
    EndedSessions,
    Event,
    Gauges,
    ModelStatus,
    NodeState,
    NodeStatus,
    Phase,
    SessionStatus,
    Severity,
    Speed,
    StageStatus,
)
from engine.data.watch_frame import WatchFrame

T = TypeVar("T")
GIB = 2**30
NAMES = ("gpu-a", "cpu-b", "gpu-c", "pi-d")
TIMES_S = (0.0031, 0.0042, 0.0118, 0.0018)
RANGES = ((0, 5), (5, 9), (9, 12), (12, 14))


def node(name: str = "gpu-a", start: int = 0, stop: int = 5, **changes: Any) -> NodeStatus:
    """A node that runs well."""
    base = NodeStatus(
        worker_id=name, pid=4711, host="lab", address="127.0.0.1:50051", device="cpu", state=NodeState.OK, detail="", progress=-1.0,
        start=start, stop=stop, memory_bytes=8 * GIB, kv_budget_bytes=GIB, heartbeat_age_s=0.2, gauges=Gauges(2 * GIB, GIB // 4, 0.27),
    )  # fmt: skip
    return changed(base, **changes)


def stage(name: str = "gpu-a", start: int = 0, stop: int = 5, time_s: float = 0.0031, **changes: Any) -> StageStatus:
    """A stage that takes what was predicted."""
    base = StageStatus(
        worker_id=name, start=start, stop=stop, predicted_s=time_s, compute_p50_s=time_s, compute_p95_s=time_s * 1.3, queue_p50_s=0.0001,
        hop_p50_s=0.001, num_steps=120, predicted_hop_s=0.001, history_s=tuple(time_s * (0.7 + 0.1 * (i % 5)) for i in range(40)),
    )  # fmt: skip
    return replace(base, **changes)


def event(sequence: int, text: str = "plan applied", severity: Severity = Severity.INFO, **changes: Any) -> Event:
    return replace(Event(sequence, 1_700_000_000.0 + sequence, severity, "plan", "coord", text), **changes)


def status(num_nodes: int = 4, **changes: Any) -> ClusterStatus:
    """A serving cluster of up to four nodes; the third stage is the bottleneck."""
    nodes = tuple(node(NAMES[i], *RANGES[i]) for i in range(num_nodes))
    hops = (*[0.001] * max(0, num_nodes - 1), 0.0)
    stages = tuple(stage(NAMES[i], *RANGES[i], TIMES_S[i], predicted_hop_s=hops[i]) for i in range(num_nodes))
    base = ClusterStatus(
        cluster_id="lab-a", phase=Phase.SERVING, detail="", model=ModelStatus("gpt2", False, True, 14, 1024), plan_version=14,
        strategy="balanced", num_workers_expected=num_nodes, nodes=nodes, stages=stages,
        sessions=(SessionStatus("s-1", "decode", 12, 40, 64, 0.2, 14.1, 3.0),), ended=EndedSessions(3, 0), uptime_s=3600.0,
        speed=Speed(
            84.7, 0.0239, 0.0312,
            predicted_bottleneck_s=max((s.predicted_s for s in stages), default=0.0),
            predicted_step_s=sum(s.predicted_s + 0.001 for s in stages),
        ),
    )  # fmt: skip
    return changed(base, **changes)


def changed(value: T, **changes: Any) -> T:
    """The same with other fields, its own or those of the values that it holds: `changed(status, tokens_per_s=1.0)`."""
    for field in fields(value):
        held = getattr(value, field.name)
        names = {inner.name for inner in fields(held)} & changes.keys() if is_dataclass(held) and field.name not in changes else ()
        if names:
            changes[field.name] = replace(held, **{name: changes.pop(name) for name in names})  # type: ignore[type-var]
    return replace(value, **changes)  # type: ignore[type-var]


def booting(num_nodes: int = 3, **changes: Any) -> ClusterStatus:
    """A cluster whose workers are on the way: one of each kind of activity."""
    states = (NodeState.LOADING, NodeState.MEASURING, NodeState.STARTING)
    details = ("loading items 0-4", "measuring 14 items", "importing torch")
    nodes = tuple(
        node(f"worker-{i}", 0, 0, state=states[i % 3], detail=details[i % 3], progress=(0.62, 0.25, -1.0)[i % 3]) for i in range(num_nodes)
    )
    base = status(0, phase=Phase.LOADING, detail="loading the plan on 3 workers", nodes=nodes, num_workers_expected=num_nodes)
    return changed(base, sessions=(), tokens_per_s=0.0, step_p50_s=0.0, step_p95_s=0.0, uptime_s=2.0, **changes)


def frame(of: ClusterStatus | None = None, *events: Event) -> WatchFrame:
    return WatchFrame(of or status(), events)


def chunk(index: int, text: str = " word", **changes: Any) -> TokenChunk:
    """One token, with a timing per stage."""
    timings = tuple(StageTiming(name, time_s, 0.0, 0.0001, 0.0001) for name, time_s in zip(NAMES, TIMES_S, strict=True))
    base = TokenChunk("s-1", index, 1000 + index, text, timings=timings, step_s=0.0239, prompt_ids=(1, 2, 3) if index <= 0 else ())
    return replace(base, **changes)


def plan(strategy: str = "balanced", cuts: tuple[int, ...] = (0, 6, 10, 12, 14), **changes: Any) -> Plan:
    """A plan over the four nodes, faster than the present one."""
    stages = tuple(Stage(NAMES[i], cuts[i], cuts[i + 1]) for i in range(len(cuts) - 1))
    times = (0.0037, 0.0042, 0.0079, 0.0018)[: len(stages)]
    hops = (*[0.001] * (len(times) - 1), 0.0)
    base = Plan(15, strategy, stages, times, max(times), sum(times) + 0.004, max(times), True, hop_s=hops, for_version=14)
    return replace(base, **changes)


def present(**changes: Any) -> Plan:
    """The plan of `status()`, as the coordinator prices it."""
    stages = tuple(Stage(name, *bounds) for name, bounds in zip(NAMES, RANGES, strict=True))
    hops = (0.001, 0.001, 0.001, 0.0)
    base = Plan(15, "given", stages, TIMES_S, max(TIMES_S), sum(TIMES_S) + 0.004, hop_s=hops, for_version=14)
    return replace(base, **changes)


def move(**changes: Any) -> MoveEstimate:
    """What a move to `plan()` takes, learnt from two moves."""
    nodes = tuple(NodeMemory(name, 3 * GIB, 4 * GIB, (3 + i % 2) * GIB, 8 * GIB) for i, name in enumerate(NAMES))
    base = MoveEstimate(14, 2, 6, GIB + GIB // 10, 18 * 2**20, 8.7, 0.5, 0.4, 2, nodes, ())
    return replace(base, **changes)


def moved(plan_version: int = 15, outcome: str = "done") -> MoveReport:
    return MoveReport(plan_version, "requested by the operator", 4, GIB, 2**20, 8.0, 0.31, outcome)


def suggested(decision_id: int = 7, **changes: Any) -> AdaptationEntry:
    """Adaptation offers `plan()`."""
    text = "gpu-c is 55 % slower than planned over 240 steps; moving item 9 from gpu-c to cpu-b saves 3.9 ms (33 %) per step"
    base = AdaptationEntry(decision_id, 4.0, "suggest", text, "", 0.0118, 0.0079, 0.6, None, None, plan().stages, for_version=14)
    return replace(base, **changes)
