"""Dialogs as boxes of lines over the body: the preview of a change, the theme picker, a text to read in full."""

from __future__ import annotations

from noodle_tui.actions import ACTIONS, still_holds, title_of
from noodle_tui.lines import BLANK, Canvas, Line, Lines, Span, line, width_of, wrap
from noodle_tui.pages import Dialog, Notice, Preview, ThemeChoice
from noodle_tui.present_plan import replanned
from noodle_tui.screens.whatif import error_band, expectation, plan_difference, unknowns
from noodle_tui.state import ConsoleState
from noodle_tui.widgets.boxes import boxed, laid_over

MIN_WIDTH, MAX_WIDTH = 50, 92
CONFIRM = "y = do it      n / enter / esc = cancel"


def with_dialog(state: ConsoleState, base: Lines, canvas: Canvas) -> Lines:
    """`base` with the open dialog in its middle."""
    dialog = state.ui.dialog
    if dialog is None:
        return base
    width = min(MAX_WIDTH, canvas.width - 4)
    rows = _content(state, dialog, canvas.sized(width - 4, canvas.height - 2))
    needed = max((width_of(row) for row in rows), default=0) + 4
    return laid_over(base, boxed(rows, max(min(MIN_WIDTH, width), min(width, needed)), canvas.glyphs), canvas)


def _content(state: ConsoleState, dialog: Dialog, canvas: Canvas) -> Lines:
    if isinstance(dialog, ThemeChoice):
        return _themes(dialog, canvas)
    if isinstance(dialog, Notice):
        text = [line(row) for row in wrap(dialog.text, canvas.width)][: canvas.height - 3]
        return (line(Span(dialog.title, "title")), BLANK, *text, BLANK, line(Span("esc or enter closes", "dim")))
    return _preview(state, dialog, canvas)


def _preview(state: ConsoleState, preview: Preview, canvas: Canvas) -> Lines:
    """What it is, what it does, what it costs, and whether `y` would do it."""
    action = ACTIONS[preview.action]
    cluster = state.latest.status.cluster_id if state.latest else "the cluster"
    head = (line(Span(f"{title_of(preview)} on {cluster}?", "title")), BLANK)
    facts = [*_rows("does", action.effect, canvas)]
    if preview.plan is not None and state.latest is not None:
        facts += _rows("expect", expectation(replanned(state, state.latest.status), preview.plan), canvas)
    facts += _rows("based on", _basis(preview), canvas)
    if action.command and action.call:
        facts += _rows("same as", action.command, canvas)
    foot = _foot(state, preview, canvas)
    picture = _picture(state, preview, canvas)
    room = canvas.height - len(head) - len(facts) - len(foot)
    return (*head, *facts, *(picture if len(picture) <= room else ()), *foot)


def _basis(preview: Preview) -> str:
    if "plan_version" in ACTIONS[preview.action].sends:
        return f"plan #{preview.plan_version}; the coordinator refuses if it has moved"
    return f"plan #{preview.plan_version}; checked again here before it is sent"


def _picture(state: ConsoleState, preview: Preview, canvas: Canvas) -> Lines:
    if preview.plan is None or state.latest is None:
        return ()
    status = replanned(state, state.latest.status)
    return (BLANK, *plan_difference(status, preview.plan, canvas), line(Span(error_band(status), "dim")), *unknowns(status, canvas))


def _foot(state: ConsoleState, preview: Preview, canvas: Canvas) -> Lines:
    if preview.pending:
        return (BLANK, line(Span("asking the coordinator what it would do ...", "accent")), line(Span("n / enter / esc = cancel", "dim")))
    reason = still_holds(preview, state)
    if reason:
        rows = [line(Span(row, "warn")) for row in wrap(reason, canvas.width)]
        return (BLANK, *rows, line(Span("enter / esc = close", "dim")))
    return (BLANK, line(Span(">[ Cancel ]", "accent"), f"     {CONFIRM}"))


def _rows(name: str, text: str, canvas: Canvas) -> list[Line]:
    first, *more = wrap(text, canvas.width - 10)
    return [line(Span(f"{name:<10}", "dim"), first), *(line(f"{'':<10}{row}") for row in more)]


def _themes(choice: ThemeChoice, canvas: Canvas) -> Lines:
    room = max(3, canvas.height - 4)
    first = max(0, min(choice.index - room // 2, len(choice.names) - room))
    rows: list[Line] = []
    for i, name in enumerate(choice.names[first : first + room], first):
        chosen = i == choice.index
        rows.append(line(Span(f"{canvas.glyphs.cursor if chosen else ' '} ", "accent"), Span(name, "title" if chosen else "text")))
    sample = (
        Span("ok ", "ok"),
        Span("WARN ", "warn"),
        Span("ERROR", "error"),
        Span(" stale ", "stale"),
        Span("low", "low"),
        Span(" high", "high"),
    )
    return (
        line(Span("THEME", "title"), Span("  up and down show it at once", "dim")),
        *rows,
        line(*sample),
        line(Span("enter keeps it   esc takes the old one back", "dim")),
    )
