"""What the time of a step is lost to: links, nodes, the machines they run on, prompts. Pure.

Every stage and hop is compared with what is expected of it for what runs. What all stages of a machine are too slow by is the machine's,
if the machine says that others use it or that it is held down; what one stage is slower by than its neighbours is its own, unless its
threads had no core meanwhile. A plan that was measured while others used the machine expects their load: there the time that threads
waited for a core tells what is lost.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from engine.data.measured_link import COORDINATOR
from engine.data.status import QUIET_S, WINDOW_S, ClusterStatus, NodeState, NodeStatus, StageStatus
from engine.diagnosis.finding import Finding, Keys, Kind, Remedy, ms, percent

MIN_STEPS = 3
SLOW, STILL_SLOW = 1.5, 1.25  # times what is expected, to be said and to be said on
NOTICEABLE_S = 0.003  # by less than that stages of small models are off in the normal course of things
LINK_FACTOR, LINK_S, INSIDE_S = 3.0, 0.004, 0.020  # a hop beyond both; within one machine messages wait for its cores, not for a wire
STILL = 0.6  # what stands goes on standing at so much of what it takes to be said
LINK_SHARE, PLANNED_LINK_SHARE, PLANNED_LINK_S = 0.15, 0.35, 0.010  # of a step; a link as slow as planned is named from there on
BURST_FACTOR, BURST_S, BURST_INSIDE_S = 8.0, 0.060, 0.200
UNSTEADY_SHARE = 0.3  # of the time, at least one twentieth and less than half
LEAST_SHARE = 0.05
BUSY, BY_OTHERS, TOUCHED = 0.9, 0.3, 1.15  # of all cores; and how slow stages must be for it to matter
STARVED = 1 / 3  # of the time that a stage's threads could run: if they had no core for so much of it, on a machine that others use
WAITED = 0.5  # of the time that a stage takes beyond what is expected: if its threads waited that long for cores, others are the cause
STOLEN, SWAPPED_BYTES_PER_S, CLOCK, HOT_C = 0.10, 1e6, 0.6, 85.0
PROMPT_SHARE, STILL_PROMPT_SHARE = 0.3, 0.15


@dataclass(frozen=True, slots=True)
class _Hop:
    from_id: str
    to_id: str
    seen_s: float
    expected_s: float
    high_s: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.from_id}>{self.to_id}"


def is_slow_hop(seen_s: float, planned_s: float) -> bool:
    """Beyond what was planned by more than hops differ from look to look, also within one machine."""
    return seen_s > max(LINK_FACTOR * planned_s, planned_s + INSIDE_S)


def step_s(status: ClusterStatus) -> float:
    """One step as its parts make it."""
    return math.fsum(s.compute_p50_s + s.hop_p50_s for s in status.stages) + status.speed.entry_hop_s


def step_findings(status: ClusterStatus, standing: Keys) -> Iterator[Finding]:
    """Nothing while no steps come back."""
    whole_s, newest_s = step_s(status), status.speed.newest_s
    if whole_s > 0.0 and 0.0 <= newest_s <= max(QUIET_S, 3 * whole_s) and all(s.num_steps >= MIN_STEPS for s in status.stages):
        busy = _busy_hosts(status, standing)
        yield from _links(status, whole_s, busy, standing)
        yield from _machines(status, whole_s, busy, standing)
    yield from _prompts(status, standing)


# ---------------------------------------------------------------------------------------------- links
def _hops(status: ClusterStatus) -> Iterator[_Hop]:
    names = [*(s.worker_id for s in status.stages), COORDINATOR]
    yield _Hop(COORDINATOR, names[0], status.speed.entry_hop_s, status.speed.expected_entry_s)
    for stage, to_id in zip(status.stages, names[1:], strict=True):
        yield _Hop(stage.worker_id, to_id, stage.hop_p50_s, stage.expected_hop_s, stage.hop_p95_s)


def _links(status: ClusterStatus, whole_s: float, busy: dict[str, str], standing: Keys) -> Iterator[Finding]:
    hosts = {node.worker_id: node.host for node in status.nodes}
    for hop in _hops(status):
        ease = STILL if (Kind.SLOW_LINK, hop.name) in standing else 1.0
        ends = {hosts.get(end, end) for end in (hop.from_id, hop.to_id) if end != COORDINATOR}
        (host,) = ends if len(ends) == 1 else ("",)
        usual_s = hop.expected_s + (_lateness(status, host) if host in busy else 0.0)
        lost_s = hop.seen_s - usual_s
        least_s, burst_s = (INSIDE_S, BURST_INSIDE_S) if host and _is_shared(status, host) else (LINK_S, BURST_S)
        waits = host in busy and _is_starving(status, host)  # its messages wait for cores, as its threads do: the host's trouble
        if waits:
            least_s = BURST_INSIDE_S
        above = hop.seen_s > ease * max(LINK_FACTOR * usual_s, usual_s + least_s) and lost_s > ease * LINK_SHARE * whole_s
        as_planned = hop.seen_s > ease * max(PLANNED_LINK_SHARE * whole_s, PLANNED_LINK_S)
        if above or (as_planned and not waits):
            yield _slow_link(hop, whole_s, above)
        elif not waits and hop.high_s > max(BURST_FACTOR * max(hop.seen_s, usual_s), burst_s):
            text = f"mostly {ms(hop.seen_s)} ms, at times {ms(hop.high_s)}"
            yield Finding(
                Kind.UNSTEADY_LINK, hop.name, f"unsteady link {hop.from_id} > {hop.to_id}", text,
                f"at least a twentieth of the time it takes {ms(hop.high_s)} ms from {hop.from_id} to {hop.to_id}, mostly {ms(hop.seen_s)}",
                Remedy.COMPARE, UNSTEADY_SHARE, _end(hop),
            )  # fmt: skip


def _is_shared(status: ClusterStatus, host: str) -> bool:
    """Whether several of the cluster's processes run there."""
    return sum(node.host == host for node in status.nodes) + (status.coordinator.host == host) > 1


def _slow_link(hop: _Hop, whole_s: float, above: bool) -> Finding:
    share = min(1.0, hop.seen_s / whole_s)
    than = f"planned {ms(hop.expected_s)}" if above else "as planned"
    return Finding(
        Kind.SLOW_LINK, hop.name, f"slow link {hop.from_id} > {hop.to_id}", f"{ms(hop.seen_s)} ms, {than}: {percent(share)} of a step",
        f"a step takes {ms(whole_s)} ms, {ms(hop.seen_s)} of them from {hop.from_id} to {hop.to_id}, "
        f"where the plan was made with {ms(hop.expected_s)}",
        Remedy.COMPARE, share, _end(hop),
    )  # fmt: skip


def _end(hop: _Hop) -> str:
    return hop.to_id if hop.to_id != COORDINATOR else hop.from_id


# ---------------------------------------------------------------------------------------------- nodes and their machines
def _ratio(stage: StageStatus) -> float:
    return stage.compute_p50_s / stage.expected_s if stage.expected_s > 0.0 else 1.0


def _groups(status: ClusterStatus) -> dict[str, list[tuple[StageStatus, NodeStatus]]]:
    """Stages with their nodes, by host."""
    nodes = {node.worker_id: node for node in status.nodes}
    found: dict[str, list[tuple[StageStatus, NodeStatus]]] = {}
    for stage in status.stages:
        if (node := nodes.get(stage.worker_id)) is not None:
            found.setdefault(node.host, []).append((stage, node))
    return found


def _busy_hosts(status: ClusterStatus, standing: Keys) -> dict[str, str]:
    """Hosts whose cores others have, and the figures that say so: all cores are in use, or threads of ours wait for one."""
    found, groups = {}, _groups(status)
    for host in {node.host for node in status.nodes}:
        on_host = [node for node in status.nodes if node.host == host]
        machine = max((n.gauges.machine for n in on_host), key=lambda m: m.busy or 0.0)
        ease = 0.8 if (Kind.BUSY_HOST, host) in standing else 1.0
        coordinator = status.coordinator
        own = math.fsum(n.gauges.cpu_utilisation for n in on_host) + (coordinator.cpu_utilisation if coordinator.host == host else 0.0)
        own /= max(1, machine.num_cores)
        others = (machine.busy or 0.0) - own
        is_full = (machine.busy or 0.0) >= ease * BUSY or any(_waits(*row) for row in groups.get(host, ()))
        if machine.busy is not None and machine.num_cores and is_full and others >= ease * BY_OTHERS:
            found[host] = f"other programs use {percent(others)}"
    return found


def _machines(status: ClusterStatus, whole_s: float, busy: dict[str, str], standing: Keys) -> Iterator[Finding]:
    for host, rows in _groups(status).items():
        common = sorted(_ratio(stage) for stage, _ in rows)[(len(rows) - 1) // 2]
        named = Kind.BUSY_HOST if host in busy else Kind.THROTTLED
        held = busy.get(host) or _held_down([node for _, node in rows])
        lost_s = math.fsum(max(0.0, min(_ratio(s), common) - 1.0) * s.expected_s for s, _ in rows)
        waiting = [stage.worker_id for stage, node in rows if host in busy and _waits(stage, node)]
        lost_s += math.fsum(max(0.0, _ratio(s) - max(1.0, common)) * s.expected_s for s, _ in rows if s.worker_id in waiting)
        ease = STILL if (named, host) in standing else 1.0
        starved = [_starved_s(stage, node) for stage, node in rows if host in busy and _starved(node) > ease * STARVED]
        lost_s = max(lost_s, math.fsum(starved))
        if host in busy:
            lateness_s = BURST_INSIDE_S if _is_starving(status, host) else _lateness(status, host)
            lost_s += math.fsum(min(s, lateness_s) for s in _late_hops(status, host))
        is_held = bool(held) and (bool(waiting) or common > 1.0 + ease * (TOUCHED - 1.0) or lost_s > ease * LINK_SHARE * whole_s)
        if is_held and lost_s > ease * max(NOTICEABLE_S, LEAST_SHARE * whole_s):
            elsewhere = any(node.host != host and node.state is not NodeState.LOST for node in status.nodes)
            yield _held(named, host, rows, held, lost_s / whole_s, whole_s, elsewhere)
        for stage, node in ((s, n) for s, n in rows if not (is_held and s.worker_id in waiting)):
            usual = max(1.0, common) if is_held else 1.0
            yield from _slow_node(stage, node, usual, whole_s, standing)


def _waits(stage: StageStatus, node: NodeStatus) -> bool:
    """Whether a stage takes longer than expected mainly because its threads had no core."""
    if node.gauges.core_wait is None or stage.expected_s <= 0.0 or _ratio(stage) <= STILL_SLOW:
        return False
    share = min(1.0, stage.num_steps * stage.compute_p50_s / WINDOW_S) * (1.0 - stage.expected_s / stage.compute_p50_s)
    return node.gauges.core_wait >= WAITED * share


def _starved(node: NodeStatus) -> float:
    """0..1 of the time that the threads of a process could run: so much of it they waited for a core."""
    waited = node.gauges.core_wait or 0.0
    return waited / (waited + node.gauges.cpu_utilisation) if waited else 0.0


def _starved_s(stage: StageStatus, node: NodeStatus) -> float:
    """Of one step of the stage; no more than its process waited in the time that a step comes around in."""
    return min(stage.compute_p50_s * _starved(node), (node.gauges.core_wait or 0.0) * WINDOW_S / max(1, stage.num_steps))


def _is_starving(status: ClusterStatus, host: str) -> bool:
    return any(node.host == host and _starved(node) > STARVED for node in status.nodes)


def _late_hops(status: ClusterStatus, host: str) -> list[float]:
    """What hops within one machine take beyond what is expected, the least first."""
    ends = {*(node.worker_id for node in status.nodes if node.host == host), COORDINATOR}
    return sorted(max(0.0, hop.seen_s - hop.expected_s) for hop in _hops(status) if {hop.from_id, hop.to_id} <= ends)


def _lateness(status: ClusterStatus, host: str) -> float:
    """What all hops within a machine that others use are late by: they wait for its cores. One that stands out has a trouble of its own."""
    late_s = _late_hops(status, host)
    lateness_s = late_s[(len(late_s) - 1) // 2] if late_s else 0.0
    return lateness_s if lateness_s >= LINK_S else 0.0


def _held(
    kind: Kind, host: str, rows: Sequence[tuple[StageStatus, NodeStatus]], held: str, share: float, whole_s: float, elsewhere: bool
) -> Finding:  # fmt: skip
    """Where all nodes are on that machine no plan gets away from it."""
    names = ", ".join(node.worker_id for _, node in rows)
    what = f"busy host {host}" if kind is Kind.BUSY_HOST else f"throttled host {host}"
    busy = max((node.gauges.machine.busy or 0.0 for _, node in rows), default=0.0)
    is_full = f" of the machine, which is {percent(busy)} busy" if kind is Kind.BUSY_HOST else ""
    evidence = f"{names} on {host}: {held}{is_full}; a step takes {ms(whole_s)} ms, {percent(min(1.0, share))} of that is lost to it"
    if not elsewhere:
        evidence += f"; no plan avoids it: what else runs on {host} must end, or a node elsewhere join"
    do = Remedy.NODE if not elsewhere else Remedy.WITHOUT if len(rows) == 1 else Remedy.COMPARE
    text = f"{held}: costs {percent(min(1.0, share))} of a step"
    return Finding(kind, host, what, text, evidence, do, min(1.0, share), rows[0][1].worker_id)


def _held_down(nodes: Sequence[NodeStatus]) -> str:
    """Why these nodes' machine computes less than it could; empty if nothing says so."""
    for node in nodes:
        gauges, machine = node.gauges, node.gauges.machine
        if machine.gpu_throttled:
            watts = (
                f" at {machine.gpu_power_w:.0f} of {machine.gpu_power_limit_w:.0f} W"
                if machine.gpu_power_w and machine.gpu_power_limit_w
                else ""
            )
            return f"GPU held down by {machine.gpu_throttled}{watts}"
        if (machine.stolen or 0.0) >= STOLEN:
            return f"{percent(machine.stolen or 0.0)} of its time taken by the hypervisor"
        if (machine.swapped_bytes_per_s or 0.0) >= SWAPPED_BYTES_PER_S:
            return f"swaps {(machine.swapped_bytes_per_s or 0.0) / 1e6:.0f} MB/s"
        warmest = max((c for c in (gauges.gpu_temperature_c, gauges.cpu_temperature_c) if c is not None), default=0.0)
        if warmest >= HOT_C:
            return f"{warmest:.0f} C hot"
        if machine.clock is not None and machine.clock <= CLOCK:
            return f"clocked at {percent(machine.clock)}"
    return ""


def _slow_node(stage: StageStatus, node: NodeStatus, usual: float, whole_s: float, standing: Keys) -> Iterator[Finding]:
    limit = STILL_SLOW if (Kind.SLOW_NODE, node.worker_id) in standing else SLOW
    expected_s = usual * stage.expected_s
    lost_s = stage.compute_p50_s - expected_s
    if stage.expected_s <= 0.0 or stage.compute_p50_s <= limit * expected_s or lost_s < max(NOTICEABLE_S, LEAST_SHARE * whole_s):
        return
    share, core_wait = lost_s / whole_s, node.gauges.core_wait
    waits = "" if core_wait is None else f", {core_wait:.1f} threads waiting for one"
    text = f"{ms(stage.compute_p50_s)} ms, planned {ms(stage.expected_s)}: costs {percent(share)} of a step"
    evidence = (
        f"{node.worker_id} takes {ms(stage.compute_p50_s)} ms for items {stage.start}-{stage.stop - 1}, "
        f"{stage.compute_p50_s / stage.expected_s:.1f} times the {ms(stage.expected_s)} planned for this load, "
        f"the median of {stage.num_steps} steps; "
        f"process at {percent(node.gauges.cpu_utilisation)} of a core{waits}"
    )
    yield Finding(
        Kind.SLOW_NODE, node.worker_id, f"slow node {node.worker_id}", text, evidence, Remedy.WITHOUT, min(1.0, share), node.worker_id
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------- prompts
def _prompts(status: ClusterStatus, standing: Keys) -> Iterator[Finding]:
    reading = [s for s in status.sessions if s.state == "prefill" and s.num_read < s.num_prompt_tokens]
    share, rate = status.work.prompt_share, status.work.prompt_tokens_per_s
    if not reading or share < (STILL_PROMPT_SHARE if (Kind.PROMPT, "") in standing else PROMPT_SHARE):
        return
    total, read = sum(s.num_prompt_tokens for s in reading), sum(s.num_read for s in reading)
    left = f", {(total - read) / rate:.0f}s left" if rate > 0.0 else ""
    what = f"{len(reading)} prompts being read" if len(reading) > 1 else "a prompt being read"
    if any(s.state == "decode" for s in status.sessions):  # a prompt alone is no trouble of anybody else's
        what += " hold up answers" if len(reading) > 1 else " holds up answers"
    yield Finding(
        Kind.PROMPT, "", what, f"{read} of {total} tokens{left}: {percent(share)} of the time",
        f"{read} of {total} prompt tokens are read, {rate:.0f} tokens/s{left}; {percent(share)} of the stages' time goes into them",
        Remedy.SESSIONS, share,
    )  # fmt: skip
