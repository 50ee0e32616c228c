"""A simulation for people: speed, waiting, stages, links, and a chart of characters."""

from __future__ import annotations

from engine.commands.output import table
from engine.simulation.gantt import text_gantt
from engine.simulation.native import NativeResult
from engine.simulation.result import Percentiles, SimulationResult

_CHART_STEPS = 240  # of all stages together: more would be a smear


def as_text(result: SimulationResult, native: NativeResult | None, *, width: int) -> str:
    """ASCII, but for the names in it, which the caller cleans."""
    parts = [_head(result), _waits(result, native), _stages(result), _links(result), _chart(result, width)]
    return "\n\n".join(part for part in parts if part)


def _head(result: SimulationResult) -> str:
    plan = " | ".join(f"{s.node_id} {s.start}-{s.stop - 1}" for s in result.plan.stages)
    load = f"{result.num_sessions} sessions, {result.num_prompt_tokens} prompt and {result.num_tokens} new tokens"
    return (
        f"simulated plan ({result.plan.strategy}): {plan}\n{load} in {result.makespan_s:.3f} s: "
        f"{result.tokens_per_s:.2f} tokens/s; decoding {result.decode_tokens_per_s:.2f} tokens/s"
    )


def _waits(result: SimulationResult, native: NativeResult | None) -> str:
    rows = [
        _row("time to first token", result.ttft_s),
        _row("between two tokens", result.inter_token_s),
        _row("decode step", result.step_s),
    ]
    text = table(("ms", "MEAN", "P50", "P95", "P99", "WORST"), rows)
    if native is None:
        return text
    rows = [_row("time to first token", native.ttft_s), _row("between two tokens", native.inter_token_s)]
    ratio = result.tokens_per_s / native.tokens_per_s if native.tokens_per_s > 0 else 0.0
    speed = f"{native.tokens_per_s:.2f} tokens/s; the pipeline makes {ratio:.2f} times as many"
    head = f"native, one process, one session after the other: {speed}"
    return "\n".join((text, "", head, table(("ms", "MEAN", "P50", "P95", "P99", "WORST"), rows)))


def _row(name: str, values: Percentiles) -> tuple[str, ...]:
    return (name, *(f"{1e3 * value:.3f}" for value in (values.mean, values.p50, values.p95, values.p99, values.worst)))


def _stages(result: SimulationResult) -> str:
    rows = [
        (
            f"S{k} {s.node_id}", f"{s.start}-{s.stop - 1}", str(s.num_steps), f"{1e3 * s.mean_step_s:.3f}", f"{1e3 * s.mean_queue_s:.3f}",
            f"{100 * s.utilisation:.1f}", str(s.num_bubbles), f"{100 * s.bubble_share:.1f}", f"{1e3 * s.longest_bubble_s:.3f}",
            f"{s.kv_peak_bytes / 1e6:.2f}", f"{s.kv_mean_bytes / 1e6:.2f}",
        )
        for k, s in enumerate(result.stages)
    ]  # fmt: skip
    header = ("STAGE", "ITEMS", "STEPS", "STEP ms", "QUEUE ms", "USED %", "BUBBLES", "BUBBLE %", "LONGEST ms", "KV PEAK MB", "KV MEAN MB")
    return table(header, rows)


def _links(result: SimulationResult) -> str:
    rows = [
        (f"{link.sender} > {link.receiver}", str(link.num_messages), f"{link.num_bytes / 1e6:.3f}", f"{100 * link.utilisation:.1f}")
        for link in result.links
    ]
    return table(("LINK", "MESSAGES", "PAYLOAD MB", "USED %"), rows)


def _chart(result: SimulationResult, width: int) -> str:
    """The beginning of the run, as far as it can be read."""
    spans = result.spans[:_CHART_STEPS]
    names = [f"S{k} {s.node_id}" for k, s in enumerate(result.stages)]
    ends = [max((span.stop_s for span in spans if span.stage == k), default=0.0) for k in range(len(names))]
    return text_gantt(spans, names, width=width, until_s=min(end for end in ends if end > 0) if any(ends) else None)
