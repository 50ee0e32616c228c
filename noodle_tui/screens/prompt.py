"""Screen 8: a conversation, its newest answer as it arrives, above the fields that `screens/main.py` puts below it."""

from __future__ import annotations

from noodle_tui.core.generation import AnswerState
from noodle_tui.state import ConsoleState
from noodle_tui.text.lines import BLANK, Canvas, Lines, Span, line, wrap
from noodle_tui.widgets.answer import figures
from noodle_tui.widgets.notices import num_rows_above, weights
from noodle_tui.widgets.transcript import NO_TEMPLATE, num_rows, system_rows, transcript


def prompt_body(state: ConsoleState, canvas: Canvas) -> Lines:
    """What the answer is worth and what it costs, then what was said, or how to begin."""
    above, talk = _above(state, canvas), state.talk
    if talk.current.newest.state is AnswerState.IDLE:
        return (*above, BLANK, *_invitation(state), *system_rows(talk.current, canvas.width))[: canvas.height]
    return (*above, *transcript(talk.current, talk.scroll, canvas.sized(canvas.width, canvas.height - len(above))))


def furthest_back(state: ConsoleState, canvas: Canvas) -> int:
    """How many rows can be scrolled back on a screen whose body is `canvas`."""
    room = canvas.height - num_rows_above(state, canvas)
    room -= len(_above(state, canvas.sized(canvas.width, room)))
    return max(0, num_rows(state.talk.current, canvas.width) - room)


def _above(state: ConsoleState, canvas: Canvas) -> Lines:
    """A row is left for what was said."""
    talk, turn = state.talk, state.talk.current.newest
    place = f"conversation {talk.index + 1} of {len(talk.conversations)}" if len(talk.conversations) > 1 else ""
    rows = weights(state, canvas)
    if turn.state is not AnswerState.IDLE:
        rows += figures(turn, state.thresholds.token_s, canvas, place)
    elif place:
        rows += (line(Span(f" {place}", "dim")),)
    if talk.has_template is False:
        rows += tuple(line(Span(f" {row}", "warn")) for row in wrap(NO_TEMPLATE, canvas.width - 2))
    return rows[: max(1, canvas.height - 1)]


def _invitation(state: ConsoleState) -> Lines:
    model = state.shown.status.model.name if state.shown and state.shown.status.model.name else "the model"
    return (
        line(" ", Span("PROMPT", "title"), state.named("  {nav.in} goes to the field below, enter sends it to ") + model[:24]),
        line(Span(state.named("   alt+enter begins a line; {nav.panel} goes to max tokens, temperature, top p, seed"), "dim")),
        line(Span(state.named("   {nav.up} in the first row brings earlier prompts back, {nav.page_up} what was said"), "dim")),
        line(Span(state.named("   {nav.out} stops an answer, then leaves the field: keys work outside it again"), "dim")),
        line(Span(state.named("   outside it {app.command} takes: system TEXT, new, conversation N, copy, edit"), "dim")),
    )
