"""Sessions in the coordinator's order, then those that ended, newest first."""

from __future__ import annotations

from collections.abc import Sequence

from engine.data.status import SessionStatus
from noodle_tui.core.pages import Page
from noodle_tui.glyphs import Glyphs
from noodle_tui.state import ConsoleState
from noodle_tui.text.figures import age, middle, quantile, rate, short_id, with_ms
from noodle_tui.text.lines import Line, Span
from noodle_tui.text.tables import Column, Table

_STYLES = {"queued": "dim", "prefill": "accent", "done": "dim", "cancelled": "dim", "failed": "error"}


NUM_WORST = 5
SLOW = 1.5  # times the median of the others


def first_token_s(sessions: Sequence[SessionStatus]) -> float:
    """The 95th percentile of the time to the first token, of those that have one; 0 without any."""
    return quantile([session.ttft_s for session in sessions if session.ttft_s > 0], 0.95)


def worst_sessions(sessions: Sequence[SessionStatus]) -> tuple[tuple[SessionStatus, str], ...]:
    """Those that wait, the longest first; then those whose steps, then whose first token took much longer than usual; each with that."""
    step_s = middle([s.step_p95_s for s in sessions if s.step_p95_s > 0])
    token_s = middle([s.ttft_s for s in sessions if s.ttft_s > 0])
    found = []
    for session in sessions:
        if session.state == "queued":
            why = f"waits {age(session.waiting_s or session.age_s)}" + (f": {session.why}" if session.why else "")
            found.append((0, session.waiting_s or session.age_s, session, why))
        elif step_s > 0 and session.step_p95_s > SLOW * step_s:
            found.append((1, session.step_p95_s, session, f"step p95 {with_ms(session.step_p95_s)}, usual {with_ms(step_s)}"))
        elif token_s > 0 and session.ttft_s > SLOW * token_s:
            found.append((2, session.ttft_s, session, f"first token after {with_ms(session.ttft_s)}, usual {with_ms(token_s)}"))
    found.sort(key=lambda entry: (entry[0], -entry[1], entry[2].session_id))
    return tuple((session, why) for _, _, session, why in found[:NUM_WORST])


def sessions_table(state: ConsoleState) -> Table:
    """The sessions that run, wait or ended; `!state:done` leaves the finished ones out."""
    status = state.shown.status if state.shown else None
    rows = status.sessions if status else ()
    if status and state.ui.page is not Page.OVERVIEW:  # its panel is about now
        rows += status.ended.latest
    return Table(
        noun="sessions",
        rows=rows,
        columns=COLUMNS,
        identity=lambda row: row.session_id,
        is_warning=lambda row: row.state == "failed" or (row.state == "queued" and row.age_s > 10),
        empty=state.named("No sessions.  {screen.prompt} = write a prompt")
        + ', or: noodle-engine generate "Hello" --connect '
        + (state.link.address or "HOST:PORT"),
    )


COLUMNS = (
    Column("session", "SESSION", 14, lambda r: r.session_id, lambda r: short_id(r.session_id)),
    Column("state", "STATE", 9, lambda r: r.state, style=lambda r: _STYLES.get(r.state, "text")),
    Column("prompt", "PROMPT", 6, lambda r: r.num_prompt_tokens, right=True, from_width=74),
    Column("cached", "", 0, lambda r: r.num_cached),
    Column("out", "OUT/MAX", 11, lambda r: r.num_generated, lambda r: f"{r.num_generated}/{r.max_new_tokens}", right=True),
    Column("max", "", 0, lambda r: r.max_new_tokens),
    Column("tokens_per_s", "TOK/S", 6, lambda r: r.tokens_per_s, lambda r: rate(r.tokens_per_s), right=True),
    Column("ttft_s", "TTFT", 7, lambda r: r.ttft_s, lambda r: with_ms(r.ttft_s), right=True),
    Column("step_p95_s", "P95", 7, lambda r: r.step_p95_s or None, lambda r: with_ms(r.step_p95_s), right=True, from_width=67),
    Column("age_s", "AGE", 5, lambda r: r.age_s, lambda r: age(r.age_s), right=True),
    Column("done", "DONE", 0, lambda r: None, draw=lambda r, width, glyphs: _bar(r, width, glyphs), from_width=90),
    Column("place", "", 0, lambda r: r.queue_place or None),
    Column("waiting_s", "", 0, lambda r: r.waiting_s if r.queue_place else None),
    Column("finish", "", 0, lambda r: r.finish_reason),
    Column("why", "", 0, lambda r: r.why),
)


def _bar(row: SessionStatus, width: int, glyphs: Glyphs) -> Line:
    reads = row.state == "prefill" and row.num_prompt_tokens > 0
    done_of, whole = (row.num_read, row.num_prompt_tokens) if reads else (row.num_generated, row.max_new_tokens)
    share = min(1.0, done_of / whole) if whole > 0 else 0.0
    cells = min(width, 20)
    done = round(share * cells)
    return (Span(glyphs.full * done, "low"), Span(glyphs.empty * (cells - done), "dim"))
