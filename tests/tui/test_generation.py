"""One answer from prompt to end: counts, times, errors, and what arrives too late."""

from __future__ import annotations

import pytest

from engine.data.generation import FinishReason
from noodle_tui.changes.reducer import reduce
from noodle_tui.core import messages as m
from noodle_tui.core.generation import MAX_ANSWER_CHARS, AnswerState, Generation
from noodle_tui.state import ConsoleState
from tests.tui import frames

SENT = m.PromptSent(1, "hello", 64, 0.0, 0)


def play(*timed: tuple[float, m.Message]) -> Generation:
    state = ConsoleState()
    for now_s, message in timed:
        state = reduce(state, message, now_s)
    return state.generation


def token(index: int, text: str = " w", number: int = 1) -> m.TokenArrived:
    return m.TokenArrived(number, frames.chunk(index, text))


def test_times_are_measured_here() -> None:
    answer = play((10.0, SENT), (10.5, token(0)), (10.6, token(1)), (10.7, token(2)))
    assert answer.ttft_s == pytest.approx(0.5)
    assert answer.tokens_per_s == pytest.approx(10.0)
    assert (answer.num_tokens, answer.num_prompt_tokens, answer.text) == (3, 3, " w w w")
    assert answer.state is AnswerState.STREAMING


def test_a_chunk_without_a_token_is_not_counted() -> None:
    answer = play((0.0, SENT), (0.1, m.TokenArrived(1, frames.chunk(-1, ""))))
    assert (answer.num_tokens, answer.ttft_s, answer.state) == (0, 0.0, AnswerState.WAITING)


def test_the_finish_reason_ends_it() -> None:
    last = m.TokenArrived(1, frames.chunk(-1, "", finish_reason=FinishReason.STOP))
    answer = play((0.0, SENT), (0.1, token(0)), (0.2, last), (0.3, m.SessionEnded(1)))
    assert (answer.state, answer.finish_reason, answer.error) == (AnswerState.ENDED, FinishReason.STOP, "")


def test_an_error_is_a_sentence_not_an_exception() -> None:
    answer = play((0.0, SENT), (0.1, m.SessionEnded(1, "worker w2 was lost\x07")))
    assert (answer.finish_reason, answer.error) == (FinishReason.ERROR, "worker w2 was lost?")


def test_a_stream_that_just_ends_is_reported() -> None:
    assert "without a finish reason" in play((0.0, SENT), (0.1, m.SessionEnded(1))).error


def test_cancelling_keeps_the_text() -> None:
    answer = play((0.0, SENT), (0.1, token(0, "kept")), (0.2, m.SessionEnded(1, cancelled=True)))
    assert (answer.finish_reason, answer.text, answer.error) == (FinishReason.CANCELLED, "kept", "")


def test_late_messages_of_a_stopped_answer_do_not_touch_the_next_one() -> None:
    second = m.PromptSent(2, "again", 64, 0.0, 0)
    answer = play((0.0, SENT), (0.1, second), (0.2, token(5, "late")), (0.3, m.SessionEnded(1, cancelled=True)))
    assert (answer.state, answer.text) == (AnswerState.WAITING, "")


def test_tokens_after_the_stop_are_dropped() -> None:
    assert play((0.0, SENT), (0.1, m.SessionEnded(1, cancelled=True)), (0.2, token(0))).num_tokens == 0


def test_the_answer_is_bounded_and_keeps_its_end() -> None:
    answer = play((0.0, SENT), (0.1, token(0, "x" * MAX_ANSWER_CHARS)), (0.2, token(1, "end")))
    assert len(answer.text) == MAX_ANSWER_CHARS
    assert answer.text.endswith("end")


def test_a_refused_prompt_leaves_the_answer_alone() -> None:
    state = reduce(reduce(ConsoleState(), SENT, 0.0), m.PromptRefused("one at a time"), 0.1)
    assert (state.refusal, state.generation.running) == ("one at a time", True)
    assert reduce(state, m.RefusalDismissed(), 0.2).refusal == ""
