"""Screen 9: what the cluster's processes write, and the coordinator's events, newest at the bottom."""

from __future__ import annotations

from noodle_tui.core.logs import MAX_LINES, LogLine, lines_per_s
from noodle_tui.core.pages import LAST, Page
from noodle_tui.listings import cursor_row, table_of, warns
from noodle_tui.state import ConsoleState
from noodle_tui.text.lines import BLANK, Canvas, Line, Lines, Span, line, width_of, wrap
from noodle_tui.text.tables import draw_table


def logs_body(state: ConsoleState, canvas: Canvas) -> Lines:
    """A heading that says whose lines these are, then the lines; with `enter` the chosen one in full."""
    table = table_of(state, Page.LOGS)
    if table is None:
        return ()
    listing = state.ui.listing(Page.LOGS)
    chosen: LogLine | None = cursor_row(state, Page.LOGS) if listing.detail else None
    full = [line(f"   {row}") for row in wrap(chosen.text, canvas.width - 4)][: canvas.height // 2] if chosen else []
    below = (
        [BLANK, line(Span(f" {chosen.source}", "title"), Span(state.named("  in full, {nav.out} closes"), "dim")), *full] if chosen else []
    )
    room = canvas.sized(canvas.width, canvas.height - 1 - len(below))
    return (_heading(state, len(table.rows), canvas), *draw_table(table, listing, room, warn_only=warns(state, Page.LOGS)), *below)[
        : canvas.height
    ]


def _heading(state: ConsoleState, num_rows: int, canvas: Canvas) -> Line:
    """Whose lines these are; what the key line says too gives way first."""
    follows = not state.ui.listing(Page.LOGS).cursor and state.ui.listing(Page.LOGS).index == LAST
    whose = state.ui.log_node or "all"
    own = state.link.boot or state.setup.owns_cluster
    source = "events and output of this console's processes" if own else "events, and what coordinator and workers write"
    dropped = state.logs.num_ever - len(state.logs.lines)
    lost = f"  {dropped} older ones dropped, {MAX_LINES} are kept" if dropped else ""
    per_s = lines_per_s(state.logs.bursts, canvas.now_s)
    flood = min(per_s, num_rows) > canvas.height - 2
    head = line(
        Span(" LOGS ", "title"),
        f" {whose}: ",
        Span(f"+{per_s} lines/s, more than fits", "warn") if flood else Span(source),
        Span(f"   {'following' if follows else state.named('{view.follow} = follow')}{lost}", "dim"),
    )
    more = Span(state.named("   {view.node} = next source"), "dim")
    return (*head, more) if width_of(head) + len(more.text) <= canvas.width else head
