"""The sessions of the whole cluster, where a wide screen has room for them."""

from __future__ import annotations

from collections.abc import Sequence

from engine.data import SessionStatus
from noodle_tui.figures import age, rate, with_ms
from noodle_tui.lines import Canvas, Line, Lines, Span, fit, line


def session_list(sessions: Sequence[SessionStatus], canvas: Canvas) -> Lines:
    """A heading and as many sessions as fit, in the coordinator's order."""
    if canvas.height < 2:
        return ()
    room = canvas.height - 1 if len(sessions) < canvas.height else canvas.height - 2
    rows = [_row(session, canvas) for session in sessions[:room]]
    if len(sessions) > room:
        rows.append(line(Span(f" + {len(sessions) - room} more", "dim")))
    heading = f" {'SESSION':<16} {'STATE':<8} {'PROMPT':>6} {'OUT/MAX':>11} {'TOK/S':>6} {'TTFT':>8} {'AGE':>5}"
    return (line(Span(heading, "dim")), *rows)


def _row(session: SessionStatus, canvas: Canvas) -> Line:
    name = fit(session.session_id, 16, canvas.glyphs)
    state = fit(session.state, 8, canvas.glyphs)
    out = f"{session.num_generated}/{session.max_new_tokens}"
    figures = f"{session.num_prompt_tokens:>6} {out:>11} {rate(session.tokens_per_s):>6} {with_ms(session.ttft_s):>8}"
    return line(f" {name} {state} {figures} {age(session.age_s):>5}")
