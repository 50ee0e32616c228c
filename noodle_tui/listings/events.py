"""Events, newest first, severity as a word."""

from __future__ import annotations

from engine.data.status import Event, Severity
from noodle_tui.core.pages import Page
from noodle_tui.listings.repeats import folded, folds, routine_of, with_count
from noodle_tui.state import ConsoleState
from noodle_tui.text.figures import clock, short_id
from noodle_tui.text.tables import Column, Table, widest

SEVERITY_STYLES = {Severity.INFO: "dim", Severity.OK: "ok", Severity.WARN: "warn", Severity.ERROR: "error"}


def events_table(state: ConsoleState) -> Table:
    """What the coordinator said happened, as far back as this console knows."""
    rows = state.shown.events if state.shown else ()
    kind = state.ui.event_kind if state.ui.page is Page.EVENTS else ""
    if kind:
        rows = tuple(row for row in rows if row.kind == kind)
    hidden: dict[str, int] = {}
    if folds(state, Page.EVENTS) and not kind:
        kept, counts = folded(rows, _routine_kind)
        rows, hidden = tuple(kept), {_identity(kept[i]): count for i, count in counts.items()}
    return Table(
        noun=f"{kind} events".strip(),
        rows=rows,
        columns=(
            Column("time", "TIME", 8, lambda r: r.wall_s, lambda r: clock(r.wall_s), style=lambda r: "dim"),
            Column("severity", "SEV", 5, lambda r: r.severity, lambda r: str(r.severity), style=lambda r: SEVERITY_STYLES[r.severity]),
            Column("kind", "KIND", 8, lambda r: r.kind, style=lambda r: "dim", from_width=70),
            Column("subject", "SUBJECT", widest([short_id(r.subject) for r in rows[:200]], 7, 12), lambda r: r.subject, _short),
            Column("text", "WHAT", 0, lambda r: r.text, lambda r: with_count(state, r.text, hidden.get(_identity(r), 0))),
            Column("sequence", "", 0, lambda r: r.sequence),
            Column("cause", "", 0, lambda r: r.cause_id),
        ),
        identity=_identity,
        is_warning=lambda row: row.severity in (Severity.WARN, Severity.ERROR),
        empty="No events yet.  They come with the first frame of a coordinator.",
    )


def kinds(state: ConsoleState) -> tuple[str, ...]:
    """What has happened so far, by kind, in the order of the alphabet."""
    return tuple(sorted({event.kind for event in state.shown.events})) if state.shown else ()


def _short(event: Event) -> str:
    return short_id(event.subject)


def _identity(event: Event) -> str:
    return f"{event.sequence}@{event.wall_s:.3f}"


def _routine_kind(event: Event) -> str:
    return routine_of(event.kind, event.text) if event.severity is Severity.INFO else ""
