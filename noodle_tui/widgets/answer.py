"""The figures of an answer, and where its newest step spent its time."""

from __future__ import annotations

from rich.cells import cell_len

from engine.data.generation import FinishReason
from noodle_tui.core.generation import AnswerState, Generation
from noodle_tui.text.figures import ms, rate, with_ms
from noodle_tui.text.lines import Canvas, Line, Lines, Span, line, width_of
from noodle_tui.text.step_times import StepTimes

_ENDINGS = {
    FinishReason.STOP: ("finished: stop", "ok"),
    FinishReason.LENGTH: ("finished: length", "ok"),
    FinishReason.CANCELLED: ("cancelled", "warn"),
    FinishReason.ERROR: ("ERROR", "error"),
}


def figures(generation: Generation, limit_s: float, canvas: Canvas, about: str = "") -> Lines:
    """Of an answer, of its newest step, of all its steps. A step above `limit_s` is slow. `about` stands last where there is room."""
    return (_heading(generation, canvas, about), *stage_times(generation, canvas), *slow_tokens(generation.steps, limit_s, canvas))


def _heading(generation: Generation, canvas: Canvas, about: str) -> Line:
    title = Span(" ANSWER", "title")
    word, style = _state_word(generation)
    count = f"  {generation.num_tokens}/{generation.max_new_tokens} tok  {rate(generation.tokens_per_s)} tok/s"
    times = f"  TTFT {with_ms(generation.ttft_s)}  step {with_ms(generation.step_s)}"
    room = canvas.width - 12 - len(word) - len(count) - len(times)
    return line(title, "  ", Span(word, style), count, times, Span(f"  {about}" if about and cell_len(about) <= room else "", "dim"))


def _state_word(generation: Generation) -> tuple[str, str]:
    if generation.state is AnswerState.WAITING:
        return "waiting for the first token", "accent"
    if generation.state is AnswerState.STREAMING:
        return "running", "accent"
    return _ENDINGS[generation.finish_reason or FinishReason.ERROR]


def stage_times(generation: Generation, canvas: Canvas) -> Lines:
    """Per-stage compute and waiting of the newest step, in the order the step took."""
    if not generation.timings:
        return ()
    parts: list[Span | str] = [Span(" last step ms", "dim")]
    slowest = max(timing.compute_s for timing in generation.timings)
    for i, timing in enumerate(generation.timings):
        mark = canvas.glyphs.bottleneck if timing.compute_s == slowest and len(generation.timings) > 1 else ""
        wait = f" +{ms(timing.queue_s)} queue" if timing.queue_s >= 0.0005 else ""
        parts += [Span(f" {canvas.glyphs.vertical} ", "rule"), f"S{i} {ms(timing.compute_s)}{wait}", Span(mark, "warn")]
    wire_s = generation.step_s - sum(t.compute_s + t.queue_s for t in generation.timings)
    if wire_s > 0:
        parts += [Span(f" {canvas.glyphs.vertical} ", "rule"), Span(f"wire {ms(wire_s)}", "dim")]
    return (line(*parts),)


def slow_tokens(steps: StepTimes, limit_s: float, canvas: Canvas) -> Lines:
    """How long steps took, how many took too long, and what held up the slowest."""
    if not steps.recent_s:
        return ()
    row = line(Span(" steps ", "dim"), f"p50 {with_ms(steps.quantile_s(0.5))}  p95 {with_ms(steps.quantile_s(0.95))}")
    row = (*row, Span(f"   tokens over {limit_s * 1000:g}ms: ", "dim"), Span(f"{steps.num_slow}", "warn" if steps.num_slow else "ok"))
    room = max(0, canvas.width - width_of(row) - 1)
    why = next((text for text in _why_slow(steps) if cell_len(text) <= room), "")
    return (line(*row, why),)


def _why_slow(steps: StepTimes) -> list[str]:
    """Of the slowest token, the fullest first."""
    worst = steps.slowest
    if worst is None:
        return []
    return [
        f" (no. {worst.number}, {with_ms(worst.step_s)}, {worst.cause})",
        f" (no. {worst.number}, {worst.cause})",
        f" (no. {worst.number})",
    ]
