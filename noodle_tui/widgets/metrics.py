"""The cluster's own figures: throughput, step time, the bottleneck against its plan, sessions."""

from __future__ import annotations

from engine.data import ClusterStatus
from noodle_tui.figures import age, ms, percent, rate, with_ms
from noodle_tui.lines import Canvas, Line, Lines, Span, crop, line, width_of
from noodle_tui.widgets.plan_blocks import bottleneck_index, stage_s

GAP = "   "
OVER_PLAN = 0.15  # a bottleneck this far above its prediction is worth a colour


def metrics(status: ClusterStatus, canvas: Canvas) -> Lines:
    """The figures in order of importance, flowed into at most `canvas.height` rows."""
    if not status.stages:
        return ()
    rows: list[Line] = []
    for fact in (_throughput(status), _step(status), _sessions(status), _bottleneck(status), _finished(status), _context(status)):
        if rows and width_of(rows[-1]) + len(GAP) + width_of(fact) <= canvas.width - 1:
            rows[-1] = (*rows[-1], Span(GAP), *fact)
        elif fact:
            rows.append(line(" ", *fact))
    return tuple(crop(row, canvas.width) for row in rows[: canvas.height])


def _throughput(status: ClusterStatus) -> Line:
    return line(Span("THROUGHPUT ", "dim"), f"{rate(status.tokens_per_s):>5} tok/s")


def _step(status: ClusterStatus) -> Line:
    return line(Span("STEP ", "dim"), f"p50 {with_ms(status.step_p50_s):>6}  p95 {with_ms(status.step_p95_s):>6}")


def _sessions(status: ClusterStatus) -> Line:
    queued = sum(session.state == "queued" for session in status.sessions)
    return line(Span("SESSIONS ", "dim"), f"{len(status.sessions) - queued} run {queued} wait")


def _finished(status: ClusterStatus) -> Line:
    failed = Span(f"{status.num_sessions_failed} failed", "warn" if status.num_sessions_failed else "text")
    return line(Span("FINISHED ", "dim"), f"{status.num_sessions_done} done ", failed)


def _bottleneck(status: ClusterStatus) -> Line:
    times = [stage_s(stage) for stage in status.stages]
    index = bottleneck_index(times)
    if index is None:
        return ()
    stage, total = status.stages[index], sum(times) + sum(s.hop_p50_s for s in status.stages)
    text = f"S{index} {stage.worker_id[:16]} {with_ms(times[index])} = {percent(times[index] / total)} of a step"
    return line(Span("BOTTLENECK ", "dim"), text, *_against_plan(times[index], stage.predicted_s, stage.num_steps))


def _against_plan(actual_s: float, predicted_s: float, num_steps: int) -> Line:
    if not num_steps or predicted_s <= 0:
        return line(Span("  predicted, not measured yet", "dim"))
    excess = actual_s / predicted_s - 1
    return line(f"  planned {ms(predicted_s)} ", Span(f"{excess:+.0%}", "warn" if excess > OVER_PLAN else "ok"))


def _context(status: ClusterStatus) -> Line:
    up = age(status.uptime_s // 60 * 60) if status.uptime_s >= 60 else "<1m"  # whole minutes: seconds would be a clock
    return line(Span("CONTEXT ", "dim"), f"{status.context_tokens} tokens", Span("  UP ", "dim"), up)
