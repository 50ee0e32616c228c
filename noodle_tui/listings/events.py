"""Events, newest first, severity as a word."""

from __future__ import annotations

from engine.data import Severity
from noodle_tui.figures import clock
from noodle_tui.state import ConsoleState
from noodle_tui.tables import Column, Table, widest

SEVERITY_STYLES = {Severity.INFO: "dim", Severity.OK: "ok", Severity.WARN: "warn", Severity.ERROR: "error"}


def events_table(state: ConsoleState) -> Table:
    """What the coordinator said happened, as far back as this console knows."""
    rows = state.shown.events if state.shown else ()
    return Table(
        noun="events",
        rows=rows,
        columns=(
            Column("time", "TIME", 8, lambda r: r.wall_s, lambda r: clock(r.wall_s), style=lambda r: "dim"),
            Column("severity", "SEV", 5, lambda r: r.severity, lambda r: str(r.severity), style=lambda r: SEVERITY_STYLES[r.severity]),
            Column("kind", "KIND", 8, lambda r: r.kind, style=lambda r: "dim", from_width=70),
            Column("subject", "SUBJECT", widest([r.subject for r in rows[:200]], 7, 12), lambda r: r.subject),
            Column("text", "WHAT", 0, lambda r: r.text),
            Column("sequence", "", 0, lambda r: r.sequence),
            Column("cause", "", 0, lambda r: r.cause_id),
        ),
        identity=lambda row: f"{row.sequence}@{row.wall_s:.3f}",
        is_warning=lambda row: row.severity in (Severity.WARN, Severity.ERROR),
        empty="No events yet.  They come with the first frame of a coordinator.",
    )
