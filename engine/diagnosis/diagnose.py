"""`diagnose`: a look at the cluster to what is wrong with it, the greatest loss first; nothing where nothing is. Pure.

It knows the state that `status` and watch frames carry and nothing else, so coordinator, console, commands and reports find the same.
What `standing` names was found before: it goes on being said until it is clearly over.
"""

from __future__ import annotations

from collections.abc import Iterator

from engine.data.binary_size import binary_size
from engine.data.plan import GIVEN
from engine.data.status import WINDOW_S, ClusterStatus, NodeState, NodeStatus, Phase
from engine.diagnosis.finding import NONE, Finding, Keys, Kind, Remedy, by_share, percent
from engine.diagnosis.step import step_findings

MEMORY, STILL_MEMORY, FREE_MEMORY = 0.92, 0.88, 0.04  # of what a node may use; of what its machine has
GAIN, STILL_GAIN, GAIN_S = 0.10, 0.05, 0.002  # of the bottleneck, by another plan; and the least that matters to anybody
LAG_S = 1.0
DISK_BYTES = 512 * 2**20
SILENT_S = 3.0
NEWS_S = 60.0


def diagnose(status: ClusterStatus, standing: Keys = NONE) -> tuple[Finding, ...]:
    """Everything that is wrong now."""
    found = [*_coordinator(status, standing), *_lost(status), *_disks(status)]
    if status.phase is Phase.SERVING:
        found += [*step_findings(status, standing), *_memory(status, standing), *_kv(status), *_plan(status, standing)]
    return by_share(found)


def memory_share(node: NodeStatus) -> float:
    """Of what it may use for weights and KV; its runtime, which was there before, is no part of that."""
    used_bytes = max(0, node.gauges.resident_bytes - node.runtime_bytes)
    return used_bytes / node.memory_bytes if node.memory_bytes > 0 else 0.0


def silence(silent_s: float) -> Finding:
    """What somebody finds who hears nothing of the coordinator any more; `silent_s` is since its last word."""
    text = f"has said nothing for {silent_s:.0f} s"
    return Finding(
        Kind.COORDINATOR, "", "coordinator silent", text, f"the coordinator {text}: its process or its network stands still",
        Remedy.LOGS, 1.0,
    )  # fmt: skip


def _coordinator(status: ClusterStatus, standing: Keys) -> Iterator[Finding]:
    lag_s = status.coordinator.lag_s
    if lag_s >= LAG_S * (0.5 if (Kind.COORDINATOR, "") in standing else 1.0):
        text = f"stood still for {lag_s:.1f} s: no token came meanwhile"
        evidence = (
            f"in the last {WINDOW_S:.0f} s the coordinator's loop stood still for {lag_s:.1f} s: no step left and no token came meanwhile"
        )
        yield Finding(Kind.COORDINATOR, "", "coordinator busy", text, evidence, Remedy.LOGS, min(1.0, lag_s / WINDOW_S))


def _lost(status: ClusterStatus) -> Iterator[Finding]:
    """A lost node weighs most while it is news, and while nothing runs without it."""
    for node in status.nodes:
        if node.state is NodeState.LOST:
            is_news = node.heartbeat_age_s < NEWS_S  # for so long it comes first, whatever else is slow
            share = 1.0 / len(status.nodes) if status.phase is Phase.SERVING and not is_news else 1.0
            others = f"{len(status.stages)} others go on" if len(status.stages) != 1 else "one other goes on"
            goes_on = others if status.phase is Phase.SERVING else "nothing runs without it"
            evidence = f"{node.worker_id} on {node.host} is lost: {node.detail or 'it fell silent'}; {goes_on}"
            text = f"{node.detail or 'silent'}; {goes_on}"
            yield Finding(
                Kind.LOST_NODE, node.worker_id, f"lost node {node.worker_id}", text, evidence, Remedy.FORGET, share, node.worker_id
            )
        elif node.state is NodeState.SUSPECT:
            text = f"silent for {node.heartbeat_age_s:.1f} s"
            evidence = f"the heartbeats of {node.worker_id} are late: the machine or its network stalls"
            yield Finding(Kind.LOST_NODE, node.worker_id, f"silent node {node.worker_id}", text, evidence, Remedy.NODE, 0.5, node.worker_id)


def _memory(status: ClusterStatus, standing: Keys) -> Iterator[Finding]:
    for node in status.nodes:
        if node.state is NodeState.LOST:
            continue
        stands, machine = (Kind.MEMORY, node.worker_id) in standing, node.gauges.machine
        used, limit = memory_share(node), STILL_MEMORY if stands else MEMORY
        free, total = machine.free_bytes, machine.total_bytes
        if used > limit:
            text = f"{percent(used)} of {binary_size(node.memory_bytes)} used"
            evidence = f"{node.worker_id} may use {binary_size(node.memory_bytes)} for weights and KV and uses {percent(used)} of that"
            share = min(1.0, used)
        elif free is not None and total and free < FREE_MEMORY * total * (1.5 if stands else 1.0):
            text = f"{binary_size(free)} of {binary_size(total)} left on {node.host}"
            evidence, share = f"the machine of {node.worker_id} has {text}: it will swap, or end a process", 1.0
        else:
            continue
        yield Finding(Kind.MEMORY, node.worker_id, f"memory short {node.worker_id}", text, evidence, Remedy.COMPARE, share, node.worker_id)


def _kv(status: ClusterStatus) -> Iterator[Finding]:
    work, waiting = status.work, [s for s in status.sessions if s.queue_place]
    if not waiting or not work.kv_capacity_tokens:
        return
    first = min(waiting, key=lambda s: s.queue_place)
    free = work.kv_capacity_tokens - work.kv_reserved_tokens
    if first.num_prompt_tokens + first.max_new_tokens <= free:
        return
    taken = work.kv_reserved_tokens / work.kv_capacity_tokens
    needed = (first.num_prompt_tokens + first.max_new_tokens) / work.kv_capacity_tokens
    many = f"{len(waiting)} wait" if len(waiting) > 1 else "1 waits"
    evidence = (
        f"{work.kv_reserved_tokens} of {work.kv_capacity_tokens} tokens of KV are reserved; the next session needs "
        f"{first.num_prompt_tokens + first.max_new_tokens} and waits for {first.waiting_s:.0f} s: a larger --kv-memory holds more"
    )
    text = f"{percent(taken)} reserved, the next needs {percent(needed)}: {many} {first.waiting_s:.0f}s"
    yield Finding(Kind.KV, "", "KV cache full", text, evidence, Remedy.SESSIONS, len(waiting) / len(status.sessions))


def _plan(status: ClusterStatus, standing: Keys) -> Iterator[Finding]:
    """What another plan would gain, unless adaptation sees to it by itself."""
    outlook, mode = status.outlook, status.adaptation.mode
    rests = status.strategy == GIVEN and mode not in ("", "off")
    if outlook.present_s <= 0.0 or (mode == "auto" and not rests):
        return
    kind = Kind.RESTING if rests else Kind.OLD_PLAN
    gain = 1.0 - outlook.best_s / outlook.present_s
    stands = (kind, "") in standing
    if gain <= (STILL_GAIN if stands else GAIN) or outlook.present_s - outlook.best_s < (0.0 if stands else GAIN_S):
        return
    items = f"{outlook.num_moved} item{'' if outlook.num_moved == 1 else 's'}"
    text = f"another plan is {percent(gain)} faster{'; adaptation leaves it alone' if rests else ''}"
    what = "plan set by hand" if rests else "plan out of date"
    evidence = (
        f"by the times that are known now the plan's {_judged(status.strategy)} is {1e3 * outlook.present_s:.1f} ms "
        f"and could be {1e3 * outlook.best_s:.1f}, if {items} moved" + (": a plan that was cut by hand is left alone" if rests else "")
    )
    yield Finding(kind, "", what, text, evidence, Remedy.REPLAN, gain)


def _judged(strategy: str) -> str:
    return "time for a token" if strategy in ("auto", "latency_optimized") else "bottleneck"


def _disks(status: ClusterStatus) -> Iterator[Finding]:
    rows = [("coordinator", "", status.coordinator.disk_free_bytes)]
    rows += [(n.worker_id, n.worker_id, n.gauges.machine.disk_free_bytes) for n in status.nodes if n.state is not NodeState.LOST]
    for name, node, free in rows:
        if free is not None and free < DISK_BYTES:
            text = f"{binary_size(free)} left"
            evidence = f"the disk where {name} keeps {'weights' if node else 'its journal'} has {text}: writes will fail"
            do = Remedy.NODE if node else Remedy.LOGS
            yield Finding(Kind.DISK, name, f"disk full {name}", text, evidence, do, 1.0 - free / DISK_BYTES, node)
