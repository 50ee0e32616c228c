"""What a simulation found, as frozen figures; `summarise` condenses a finished run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.data.generation import FinishReason
from engine.data.plan import Plan
from engine.simulation.machines.node import SimulatedWorker, Span
from engine.simulation.machines.pipeline import Pipeline
from engine.simulation.machines.transfer import SimulatedTensorTransfer
from engine.simulation.scenario import Scenario
from engine.simulation.session_log import SessionLog


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Nearest-rank percentiles of `count` values; all 0 of none."""

    count: int
    mean: float
    p50: float
    p95: float
    p99: float
    worst: float


@dataclass(frozen=True, slots=True)
class StageResult:
    """One stage over the run. `utilisation` is computing time over the makespan; bubbles lie between its first and last step."""

    node_id: str
    start: int
    stop: int
    num_steps: int
    busy_s: float
    utilisation: float
    mean_step_s: float
    mean_queue_s: float
    num_bubbles: int
    bubble_s: float
    bubble_share: float
    longest_bubble_s: float
    kv_budget_bytes: int
    kv_peak_bytes: int
    kv_mean_bytes: float
    kv_end_bytes: int
    kv_timeline: tuple[tuple[float, int], ...]  # (time_s, bytes), the largest of each interval


@dataclass(frozen=True, slots=True)
class LinkResult:
    """One direction of a link: payload bytes, without the framing of messages."""

    sender: str
    receiver: str
    num_messages: int
    num_bytes: int
    utilisation: float


@dataclass(frozen=True, slots=True)
class SimulationResult:
    """Times in virtual seconds; `tokens_per_s` is all generated tokens over the makespan, first arrival to last token."""

    plan: Plan
    num_sessions: int
    num_prompt_tokens: int
    num_tokens: int
    makespan_s: float
    tokens_per_s: float
    ttft_s: Percentiles
    inter_token_s: Percentiles
    step_s: Percentiles  # of decode steps: from sending one to reading its outcome
    decode_tokens_per_s: float  # tokens after each session's first, over the time from the first token to the last
    session_tokens_per_s: Percentiles
    stages: tuple[StageResult, ...]
    links: tuple[LinkResult, ...]
    generated: tuple[int, ...]  # tokens of every session, in the order of the scenario's arrivals
    spans: tuple[Span, ...]


def percentiles(values: Sequence[float]) -> Percentiles:
    ordered = sorted(values)
    if not ordered:
        return Percentiles(0, 0.0, 0.0, 0.0, 0.0, 0.0)

    def at(percent: int) -> float:
        return ordered[max(0, -(-percent * len(ordered) // 100) - 1)]

    return Percentiles(len(ordered), sum(ordered) / len(ordered), at(50), at(95), at(99), ordered[-1])


def summarise(scenario: Scenario, pipeline: Pipeline, log: SessionLog) -> SimulationResult:
    """The figures of a run in which every session has ended."""
    wrong = [s for s, reason in log.finished.items() if reason is not FinishReason.LENGTH]
    if wrong:
        raise AssertionError(f"session {wrong[0]} ended with {log.finished[wrong[0]]}")
    began_s = min(arrival.arrival_s for arrival in scenario.arrivals)
    makespan_s, decoding_s = log.last_token_s - began_s, log.last_token_s - log.first_token_s
    return SimulationResult(
        plan=pipeline.plan,
        num_sessions=len(scenario.arrivals),
        num_prompt_tokens=sum(arrival.prompt_tokens for arrival in scenario.arrivals),
        num_tokens=log.num_tokens,
        makespan_s=makespan_s,
        tokens_per_s=log.num_tokens / makespan_s if makespan_s > 0 else 0.0,
        ttft_s=percentiles(log.ttft_s),
        inter_token_s=percentiles(log.gaps_s),
        step_s=percentiles(log.steps_s),
        decode_tokens_per_s=len(log.gaps_s) / decoding_s if decoding_s > 0 else 0.0,
        session_tokens_per_s=percentiles(log.rates_per_s),
        stages=tuple(_stage(node, began_s, log.last_token_s) for node in pipeline.nodes),
        links=tuple(_link(link, makespan_s) for link in pipeline.links),
        generated=tuple(log.generated[f"s{index}"] for index in range(len(scenario.arrivals))),
        spans=tuple(pipeline.spans),
    )


def _stage(node: SimulatedWorker, began_s: float, ended_s: float) -> StageResult:
    makespan_s, active_s = ended_s - began_s, node.last_stop_s - node.first_start_s
    kv, steps = node.kv, max(1, node.num_steps)
    return StageResult(
        node_id=node.setup.node_id,
        start=node.stage.start,
        stop=node.stage.stop,
        num_steps=node.num_steps,
        busy_s=node.busy_s,
        utilisation=node.busy_s / makespan_s if makespan_s > 0 else 0.0,
        mean_step_s=node.busy_s / steps,
        mean_queue_s=node.queue_s / steps,
        num_bubbles=node.num_bubbles,
        bubble_s=node.bubble_s,
        bubble_share=node.bubble_s / active_s if active_s > 0 else 0.0,
        longest_bubble_s=node.longest_bubble_s,
        kv_budget_bytes=kv.budget_bytes,
        kv_peak_bytes=kv.peak_bytes,
        kv_mean_bytes=kv.timeline.integral / makespan_s if makespan_s > 0 else 0.0,
        kv_end_bytes=kv.used_bytes,
        kv_timeline=kv.timeline.finish(),
    )


def _link(link: SimulatedTensorTransfer, makespan_s: float) -> LinkResult:
    return LinkResult(link.sender, link.receiver, link.num_messages, link.num_bytes, link.busy_s / makespan_s if makespan_s > 0 else 0.0)
