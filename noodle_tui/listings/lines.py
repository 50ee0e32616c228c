"""Log lines, newest last, as a log reads."""

from __future__ import annotations

from noodle_tui.core.logs import LogLine, is_warning
from noodle_tui.core.pages import Page
from noodle_tui.listings.repeats import folded, folds, routine_of, with_count
from noodle_tui.state import ConsoleState
from noodle_tui.text.figures import clock, short_id
from noodle_tui.text.tables import Column, Table, widest

_STYLES = {"info": "dim", "ok": "ok", "WARN": "warn", "ERROR": "error"}


def lines_table(state: ConsoleState) -> Table:
    """Everything in memory, or the chosen source's lines only."""
    rows = state.logs.lines
    if state.ui.log_node:
        rows = tuple(row for row in rows if row.source == state.ui.log_node)
    hidden: dict[int, int] = {}
    if folds(state, Page.LOGS) and not state.ui.log_node:
        kept, counts = folded(rows[::-1], _routine_kind)
        rows, hidden = tuple(reversed(kept)), {kept[i].number: count for i, count in counts.items()}
    return Table(
        noun="lines",
        rows=rows,
        columns=(
            Column("time", "TIME", 8, lambda r: r.wall_s, lambda r: clock(r.wall_s), style=lambda r: "dim"),
            Column("level", "LEVEL", 5, lambda r: r.level, style=lambda r: _STYLES.get(r.level, "text")),
            Column(
                "source", "FROM", widest([short_id(r.source) for r in rows[-200:]], 5, 12), lambda r: r.source, lambda r: short_id(r.source)
            ),
            Column("text", "TEXT", 0, lambda r: r.text, lambda r: with_count(state, r.text, hidden.get(r.number, 0))),
        ),
        identity=lambda row: str(row.number),
        is_warning=is_warning,
        empty="No lines yet.",
    )


def sources(state: ConsoleState) -> tuple[str, ...]:
    """Who has written, in the order of their first line in memory."""
    return tuple(dict.fromkeys(line.source for line in state.logs.lines))


def _routine_kind(row: LogLine) -> str:
    """As `event_line` writes it in front."""
    kind, _, text = row.text.partition(": ")
    return routine_of(kind, text) if row.level == "info" else ""
