"""The streaming answer: what was asked, the text, its figures, and where the newest step spent its time."""

from __future__ import annotations

from rich.cells import cell_len

from engine.data.generation import FinishReason
from noodle_tui.core.generation import AnswerState, Generation
from noodle_tui.text.figures import ms, rate, with_ms
from noodle_tui.text.lines import Canvas, Line, Lines, Span, fit, line, stack, width_of, wrap
from noodle_tui.text.step_times import StepTimes

MIN_PROMPT_CELLS = 10
_ENDINGS = {
    FinishReason.STOP: ("finished: stop", "ok"),
    FinishReason.LENGTH: ("finished: length", "ok"),
    FinishReason.CANCELLED: ("cancelled", "warn"),
    FinishReason.ERROR: ("ERROR", "error"),
}


def answer(generation: Generation, scroll: int, limit_s: float, canvas: Canvas) -> Lines:
    """Exactly `canvas.height` rows: a heading with the figures, then the newest rows of the text. A step above `limit_s` is slow."""
    if generation.state is AnswerState.IDLE:
        return stack([(Span(canvas.glyphs.horizontal * canvas.width, "rule"),)], canvas.height)
    heading = _above(generation, limit_s, canvas)
    room = canvas.height - len(heading)
    return stack((*heading, *_body(generation, scroll, canvas.sized(canvas.width, room))), canvas.height)


def num_rows_back(generation: Generation, canvas: Canvas) -> int:
    """How far back there is text."""
    return max(0, len(_text_rows(generation, canvas)) - max(1, canvas.height - len(_above(generation, 1.0, canvas))))


def _above(generation: Generation, limit_s: float, canvas: Canvas) -> Lines:
    """Figures of the answer, of its newest step, of all its steps; a row is left for the text."""
    rows = (_heading(generation, canvas), *stage_times(generation, canvas), *slow_tokens(generation.steps, limit_s, canvas))
    return rows[: max(1, canvas.height - 1)]


def _heading(generation: Generation, canvas: Canvas) -> Line:
    title = Span(" ANSWER", "title")
    word, style = _state_word(generation)
    count = f"  {generation.num_tokens}/{generation.max_new_tokens} tok  {rate(generation.tokens_per_s)} tok/s"
    times = f"  TTFT {with_ms(generation.ttft_s)}  step {with_ms(generation.step_s)}"
    prompt = f'  "{generation.prompt}"'
    room = canvas.width - 12 - len(word) - len(count) - len(times)
    quoted = fit(prompt, min(cell_len(prompt), room), canvas.glyphs) if room >= MIN_PROMPT_CELLS else ""
    return line(title, "  ", Span(word, style), count, times, Span(quoted, "dim"))


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


def _body(generation: Generation, scroll: int, canvas: Canvas) -> Lines:
    rows = _text_rows(generation, canvas)
    stop = len(rows) - max(0, min(scroll, len(rows) - canvas.height))
    return rows[max(0, stop - canvas.height) : stop]


def _text_rows(generation: Generation, canvas: Canvas) -> Lines:
    width = canvas.width - 2
    text = [line(f" {row}") for row in wrap(generation.text.lstrip(), width)] if generation.text else []
    error = [line(" ", Span(row, "error")) for row in wrap(generation.error, width)] if generation.error else []
    return (*text, *error)
