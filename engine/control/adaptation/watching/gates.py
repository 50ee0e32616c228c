"""Is a change material? The limits on estimated levels that turn evidence into an AdaptationTrigger.

Gates never see single samples: the latency gate compares what is *believed* of a node or link (beyond doubt by then)
with what the running plan was made for; the imbalance gate looks at the plan in that light; the memory gate at trends.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from engine.control.adaptation.watching.beliefs import HeterogeneousPlan
from engine.control.adaptation.watching.memory import MemoryTrend
from engine.control.adaptation.watching.metrics import RuntimeMetrics, Track
from engine.control.adaptation.watching.problem import link_name, links_of


class TriggerKind(StrEnum):
    """The most serious first."""

    LOST = "lost"  # a node of the plan may hold nothing any more: gone, failed or draining
    STRATEGY = "strategy"
    FAST = "fast"  # about three times slower at once
    MEMORY = "memory"
    SLOWER = "slower"
    FASTER = "faster"
    LINK = "link"
    IMBALANCE = "imbalance"
    JOINED = "joined"
    LOSS = "loss"  # within every limit, but it adds up
    LOAD = "load"  # more or fewer steps share the pipeline


@dataclass(frozen=True, slots=True)
class AdaptationTrigger:
    """Why the plan is looked at again: the evidence as numbers and as a sentence."""

    kind: TriggerKind
    subject: str  # a node, a link, or the plan
    text: str
    observed: float = 0.0  # seconds, or bytes of a memory trigger
    planned: float = 0.0
    z: float = 0.0
    num_steps: int = 0  # steps since the change, as far as it is known


@dataclass(frozen=True, slots=True)
class Gates:
    """The limits; each is met only beyond it."""

    latency_error: float = 0.15
    imbalance_s: float = 0.100
    imbalance_share: float = 0.10
    memory_share: float = 0.92
    exhaustion_s: float = 30.0  # and what loading a stage elsewhere takes: less is too late to give items away
    link_share: float = 0.05  # of the period that a slower link must add


def latency_triggers(
    now: HeterogeneousPlan, planned: HeterogeneousPlan, metrics: RuntimeMetrics, gates: Gates
) -> Iterable[AdaptationTrigger]:
    """Stages whose believed time is off by more than the limit, the worst first."""
    rows = [r for r in zip(now.stages, now.stage_s, planned.stage_s, strict=True) if r[1] > 0.0 and r[2] > 0.0]
    for stage, seen_s, planned_s in sorted(rows, key=lambda r: -abs(math.log(r[1] / r[2]))):
        if abs(seen_s / planned_s - 1.0) <= gates.latency_error:
            continue
        track = metrics.stage_track(stage.node_id)
        fast = track is not None and track.alarm is not None and track.alarm.fast
        kind = TriggerKind.FASTER if seen_s < planned_s else TriggerKind.FAST if fast else TriggerKind.SLOWER
        z = math.log(seen_s / planned_s) / track.detector.deviation() if track else 0.0
        how = "6 steps in a row" if fast else "16-step median"
        jump = f", {math.exp(track.alarm.level - track.alarm.before):.2f}x of before" if track is not None and track.alarm else ""
        times = f"{1e3 * seen_s:.1f} ms, {seen_s / planned_s:.2f}x the planned {1e3 * planned_s:.1f}"
        text = f"{stage.node_id} takes {times}{going(track)} ({how}, z {z:.1f}{jump})"
        yield AdaptationTrigger(kind, stage.node_id, text, seen_s, planned_s, z)


def going(track: Track | None) -> str:
    """Where a stage's time is going, if it has a direction."""
    if track is None or track.trend is None:
        return ""
    share = 100.0 * abs(math.expm1(100.0 * track.trend.per_step))
    return f" and {'rises' if track.trend.per_step > 0.0 else 'falls'} by {share:.1f} % in 100 steps"


def link_triggers(now: HeterogeneousPlan, planned: HeterogeneousPlan, gates: Gates) -> Iterable[AdaptationTrigger]:
    """Links off by more than the limit whose change also matters to the period."""
    for (source, target), seen_s, planned_s in zip(links_of(now.stages), now.hop_s, planned.hop_s, strict=True):
        small = abs(seen_s - planned_s) <= gates.link_share * now.period_s
        if small or planned_s <= 0.0 or abs(seen_s / planned_s - 1.0) <= gates.latency_error:
            continue
        text = f"the link {source} to {target} takes {1e3 * seen_s:.1f} ms, {seen_s / planned_s:.1f}x the {1e3 * planned_s:.1f} of before"
        yield AdaptationTrigger(TriggerKind.LINK, link_name(source, target), text, seen_s, planned_s)


def imbalance_trigger(now: HeterogeneousPlan, gates: Gates) -> AdaptationTrigger | None:
    """The slowest stage stands out from the fastest by more than both limits."""
    if len(now.stages) < 2 or now.imbalance_s <= max(gates.imbalance_s, gates.imbalance_share * now.period_s):
        return None
    slow, fast = max(now.stage_s), min(now.stage_s)
    slow_id, fast_id = now.stages[now.stage_s.index(slow)].node_id, now.stages[now.stage_s.index(fast)].node_id
    text = f"stages are out of balance: {slow_id} takes {1e3 * slow:.0f} ms, {fast_id} {1e3 * fast:.0f}"
    return AdaptationTrigger(TriggerKind.IMBALANCE, slow_id, text, slow, fast)


def memory_triggers(memory: Mapping[str, MemoryTrend], lead_s: Mapping[str, float], gates: Gates) -> Iterable[AdaptationTrigger]:
    """Nodes above their share of memory, or that are full before `lead_s` (by node, those of the plan) is over."""
    for node_id, least_s in lead_s.items():
        trend = memory.get(node_id)
        if trend is None or trend.newest is None:
            continue
        used, cap = trend.newest.used_bytes, trend.newest.cap_bytes
        text = f"{node_id} uses {used / 1e6:.0f} of {cap / 1e6:.0f} MB ({100 * trend.share:.0f} %)"
        if trend.newest.kv_budget_bytes:
            text += f", its KV {100 * trend.kv_share:.0f} % of the budget"
        if trend.exhaustion_s() < least_s:
            text += f", grows by {trend.growth_bytes_per_s / 1e6:.1f} MB/s and is full in {trend.exhaustion_s():.0f} s"
        elif trend.share <= gates.memory_share:
            continue
        yield AdaptationTrigger(TriggerKind.MEMORY, node_id, text, used, cap)
