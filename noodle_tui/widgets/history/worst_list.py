"""The sessions that are worst off, each with why."""

from __future__ import annotations

from noodle_tui.listings.sessions import NUM_WORST, worst_sessions
from noodle_tui.state import ConsoleState
from noodle_tui.text.figures import short_id
from noodle_tui.text.lines import Canvas, Lines, Span, fit, line, wrap

NAME = 14


def worst_list(state: ConsoleState, canvas: Canvas) -> Lines:
    """A heading and a row for each; nothing where there is no session or no room."""
    sessions = state.shown.status.sessions if state.shown else ()
    if not sessions or canvas.height < 2:
        return ()
    worst = worst_sessions(sessions)
    said = f"  at most {NUM_WORST}" if worst else "  none is worse off than the others"
    rows = [line(Span(" WORST SESSIONS", "title"), Span(said, "dim"))]
    for session, why in worst:
        first, *more = wrap(why, max(8, canvas.width - NAME - 3))
        rows.append(line(f" {fit(short_id(session.session_id), NAME, canvas.glyphs)} ", Span(first, "warn")))
        rows += [line(" " * (NAME + 2), Span(row, "warn")) for row in more[:2]]
    return tuple(rows[: canvas.height])
