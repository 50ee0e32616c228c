"""Screen 8: the streaming answer above the fields that `screens/main.py` puts below it."""

from __future__ import annotations

from noodle_tui.core.generation import AnswerState
from noodle_tui.state import ConsoleState
from noodle_tui.text.lines import BLANK, Canvas, Lines, Span, line
from noodle_tui.widgets.answer import answer, num_rows_back
from noodle_tui.widgets.notices import notices_above, weights

FIELD_ROWS = 2  # of this screen, below its body: the prompt and its settings


def prompt_body(state: ConsoleState, canvas: Canvas) -> Lines:
    """What the answer is worth, then the answer, or how to get one."""
    top = weights(state, canvas)
    if state.generation.state is AnswerState.IDLE:
        return (*top, BLANK, *_invitation(state))[: canvas.height]
    return (
        *top,
        *answer(state.generation, state.answer_scroll, state.thresholds.token_s, canvas.sized(canvas.width, canvas.height - len(top))),
    )


def furthest_back(state: ConsoleState, canvas: Canvas) -> int:
    """How many rows the answer can be scrolled back on a screen whose body is `canvas`."""
    above = len(notices_above(state, canvas)) + len(weights(state, canvas))
    return num_rows_back(state.generation, canvas.sized(canvas.width, canvas.height - above))


def _invitation(state: ConsoleState) -> Lines:
    model = state.shown.status.model.name if state.shown and state.shown.status.model.name else "the model"
    return (
        line(" ", Span("PROMPT", "title"), state.named("  {nav.in} goes to the field below, enter sends it to ") + model[:24]),
        line(Span(state.named("   {nav.panel} goes to max tokens, temperature, seed;  up brings the last prompt back"), "dim")),
        line(Span(state.named("   {nav.out} stops an answer, then leaves the field: keys work outside it again"), "dim")),
    )
