"""The Sessions page: which row warns, what a list keeps of it, and the sentences about the chosen session."""

from __future__ import annotations

from typing import Any

import pytest

from engine.data.generation import SessionText
from engine.data.status import SessionStatus
from noodle_tui.changes.reducer import reduce
from noodle_tui.core import messages as m
from noodle_tui.core.pages import Page
from noodle_tui.glyphs import UNICODE
from noodle_tui.listings.sessions import sessions_table
from noodle_tui.screens.sessions import sessions_body, totals
from noodle_tui.state import ConsoleState
from noodle_tui.text.figures import quantile
from noodle_tui.text.lines import Canvas, Lines, width_of
from noodle_tui.text.tables import Listing, arrange, draw_table, record
from tests.tui import frames
from tests.tui.scenes import keyed, live, state_of

CANVAS = Canvas(120, 24, UNICODE, 100.0)


def session(name: str = "s-1", state: str = "decode", **changes: Any) -> SessionStatus:
    figures = {"num_prompt_tokens": 12, "num_generated": 40, "max_new_tokens": 64, "ttft_s": 0.2, "tokens_per_s": 14.0, "age_s": 3.0}
    return SessionStatus(session_id=name, state=state, **figures | changes)  # type: ignore[arg-type]


def ended(name: str, state: str, **changes: Any) -> SessionStatus:
    return session(name, state, **{"finish_reason": "length", "step_p95_s": 0.03} | changes)


def showing(*sessions: SessionStatus, latest: tuple[SessionStatus, ...] = (), **changes: Any) -> ConsoleState:
    return keyed(state_of((99.0, live(sessions=sessions, latest=latest, **changes))), f"screen.{Page.SESSIONS.value}")


def texts(lines: Lines) -> list[str]:
    return ["".join(span.text for span in row).rstrip() for row in lines]


def styled(lines: Lines, text: str) -> set[str]:
    return {span.style for row in lines for span in row if text in span.text}


FAILED = ended("s-f", "failed", finish_reason="error", why="DATA_LOSS: a checksum is wrong")
QUEUED = session(
    "s-q", "queued", num_generated=0, ttft_s=0.0, tokens_per_s=0.0, age_s=40.0, queue_place=2, waiting_s=11.0, why="1 before it"
)


def test_what_warns_are_failures_and_those_that_wait_long() -> None:
    young = session("s-y", "queued", age_s=4.0, queue_place=1)
    table = sessions_table(showing(session(), QUEUED, young, latest=(FAILED, ended("s-d", "done", age_s=99.0))))
    assert [row.session_id for row in arrange(table, Listing(), warn_only=True)] == ["s-q", "s-f"]


@pytest.mark.parametrize("width", [60, 65, 73, 80, 120])
def test_a_narrow_list_leaves_columns_out_and_cuts_none(width: int) -> None:
    state = showing(session(tokens_per_s=141.2), latest=(FAILED,))
    canvas = CANVAS.sized(width, 10)
    header, *rows = texts(draw_table(sessions_table(state), state.ui.listing(Page.SESSIONS), canvas))
    assert header.split()[-1 if width < 90 else -2] == "AGE" and rows[0].split()[-1 if width < 90 else -2] == "3s"


def test_what_is_not_known_is_not_a_number_in_an_export_and_sorts_last() -> None:
    table = sessions_table(showing(session(), QUEUED, latest=(FAILED,)))
    running, queued, failed = (record(table, row) for row in table.rows)
    assert [r["place"] for r in (running, queued, failed)] == [None, 2, None]
    assert [r["waiting_s"] for r in (running, queued, failed)] == [None, 11.0, None]
    assert [r["step_p95_s"] for r in (running, queued, failed)] == [None, None, 0.03]
    assert (failed["finish"], failed["why"]) == ("error", FAILED.why)


def test_a_failure_looks_like_one_in_the_list_the_totals_and_below() -> None:
    state = showing(latest=(FAILED,), num_failed=1)
    listed = draw_table(sessions_table(state), state.ui.listing(Page.SESSIONS), CANVAS)
    assert styled(listed, "failed") == {"error"} and styled(sessions_body(state, CANVAS), "checksum") == {"error"}
    status = frames.status(num_failed=1)
    assert styled((totals(status, 120),), "1 failed") == {"warn"} and styled((totals(frames.status(), 120),), "0 failed") == {"text"}


def test_the_first_tokens_time_is_of_sessions_that_have_one() -> None:
    status = frames.status(sessions=(session(ttft_s=0.25), *[QUEUED] * 20))
    assert texts((totals(status, 120),)) == [" 1 running  20 queued  3 done  0 failed   84.7 tok/s   TTFT p95 250ms here"]
    waiting = frames.status(sessions=(QUEUED,))
    assert "TTFT" not in texts((totals(waiting, 120),))[0]


@pytest.mark.parametrize(("values", "share", "expected"), [([], 0.5, 0.0), ([3.0], 0.95, 3.0), ([4.0, 1.0, 2.0, 3.0], 0.5, 2.0)])
def test_quantile_is_the_nearest_rank(values: list[float], share: float, expected: float) -> None:
    assert quantile(values, share) == expected
    assert quantile([float(i) for i in range(1, 101)], 0.95) == 95.0


@pytest.mark.parametrize(
    ("chosen", "sentence"),
    [
        (session(step_p95_s=0.031), "s-1  writes 14.0 tok/s, first token after 200ms, step p95 31.0ms"),
        (session(ttft_s=0.0), "s-1  writes 14.0 tok/s"),
        (session(num_generated=1, tokens_per_s=0.0), "s-1  writes first token after 200ms"),
        (session(state="prefill"), "s-1  reads its prompt of 12 tokens"),
        (QUEUED, "s-q  number 2 in the queue since 11s"),
        (session(state="queued"), "s-1  waits for room since 3s"),
        (ended("s-d", "done"), "s-d  done (length) after 3s: 14.0 tok/s, TTFT 200ms, step p95 30.0ms"),
        (ended("s-d", "done", ttft_s=0.0), "s-d  done (length) after 3s: 14.0 tok/s, step p95 30.0ms"),
        (
            ended("s-c", "cancelled", finish_reason="cancelled", ttft_s=0.0, tokens_per_s=0.0, step_p95_s=0.0),
            "s-c  cancelled (cancelled) after 3s",
        ),
    ],
)
def test_what_is_said_of_a_session_is_what_is_known(chosen: SessionStatus, sentence: str) -> None:
    state = showing(*(() if chosen.finish_reason else (chosen,)), latest=(chosen,) if chosen.finish_reason else ())
    assert f" {sentence}" in texts(sessions_body(state, CANVAS))


def test_how_long_it_may_still_take() -> None:
    def left(chosen: SessionStatus) -> str:
        state = showing(*(() if chosen.finish_reason else (chosen,)), latest=(chosen,) if chosen.finish_reason else ())
        return next(text for text in texts(sessions_body(state, CANVAS)) if text.startswith("   tokens"))

    assert left(session()) == "   tokens  12 prompt + 40 of 64, 1s left at most"
    assert left(session(tokens_per_s=0.0)) == "   tokens  12 prompt + 40 of 64, -"
    assert left(ended("s-d", "cancelled")) == "   tokens  12 prompt + 40 of 64, ended"


def test_only_the_consoles_own_session_is_called_so() -> None:
    sent = (98.0, m.PromptSent(1, "hi", 64, 0.0, 0)), (98.1, m.TokenArrived(1, frames.chunk(0, session_id="s-1")))
    for name, is_own in (("s-1", True), ("s-2", False)):
        body = texts(sessions_body(state_of(*sent, state=showing(session(name))), CANVAS))
        assert any("this console's own" in text for text in body) is is_own


# --- what was asked and answered ------------------------------------------------------------------------------------------
def opened(text: SessionText, error: str = "", height: int = 24, width: int = 80) -> list[str]:
    state = keyed(showing(session(num_prompt_tokens=9_000)), "nav.in")
    state = reduce(state, m.TextArrived(text, 40, error), 100.0)
    lines = sessions_body(state, CANVAS.sized(width, height))
    assert len(lines) <= height and all(width_of(row) <= width for row in lines)
    return texts(lines)


def test_prompt_and_answer_stand_below_the_session_that_was_opened() -> None:
    rows = opened(SessionText("s-1", "What is it?\nSay.", "A noodle,\x1b[31m of course."))
    at = rows.index("   you     What is it?")
    assert rows[at + 1 : at + 3] == ["           Say.", "   answer  A noodle,?[31m of course."]


def test_of_long_texts_the_prompts_beginning_and_the_answers_end_are_shown() -> None:
    prompt, answer = " ".join(f"p{i}" for i in range(2000)), " ".join(f"a{i}" for i in range(2000))
    for height in (16, 24, 60):
        rows = opened(SessionText("s-1", prompt, answer), height=height)
        assert any(row.startswith("   you     p0 p1") for row in rows) and "9,000 tokens in all" in "\n".join(rows)
        assert rows[-1].endswith(" a1999") and len(rows) == height


def test_why_there_is_no_text_stands_in_its_place() -> None:
    assert any("start it with --show-text" in row for row in opened(SessionText("s-1", "", ""), "start it with --show-text"))


def test_the_text_of_another_session_is_not_shown() -> None:
    assert not any("secret" in row for row in opened(SessionText("s-2", "secret", "secret")))
