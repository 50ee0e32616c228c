"""Dialogs as boxes of lines over the body: the preview of a change, the theme picker, a text to read in full."""

from __future__ import annotations

from noodle_tui.changes.actions import ACTIONS, KEY_OF, MODES, command_of, still_holds, title_of
from noodle_tui.core.keys import key_of
from noodle_tui.core.pages import Dialog, Leaving, Notice, Preview, ThemeChoice
from noodle_tui.listings.base_plan import as_planned
from noodle_tui.screens.whatif import error_band, expectation, plan_difference, unknowns
from noodle_tui.state import ConsoleState
from noodle_tui.text.lines import BLANK, Canvas, Line, Lines, Span, line, width_of, wrap
from noodle_tui.widgets.boxes import boxed, laid_over
from noodle_tui.widgets.plan.move_lines import MAX_UNKNOWNS, facts_of

MIN_WIDTH, MAX_WIDTH = 50, 92
CHOOSE = "{nav.up} and {nav.down} choose"
ROOMY = 56  # cells inside
TALL = 12  # rows inside
CONFIRM = "     {dialog.yes} = do it      {view.node} / {nav.in} / {nav.out} = cancel"
SHORT_CONFIRM = "  {dialog.yes} = do it  {view.node}/{nav.in}/{nav.out} = cancel"
STAY = "     {dialog.yes} = quit      {view.node} / {nav.in} / {nav.out} = stay"


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
        return _themes(state, dialog, canvas)
    if isinstance(dialog, Leaving):
        text = [line(row) for row in wrap(dialog.text, canvas.width)]
        return (
            line(Span("QUIT?", "title")),
            BLANK,
            *text,
            *_hasty(state, dialog, canvas),
            BLANK,
            line(Span(">[ Stay ]", "accent"), state.named(STAY)),
        )
    if isinstance(dialog, Notice):
        text = [line(row) for row in wrap(dialog.text, canvas.width)][: canvas.height - 3]
        return (line(Span(dialog.title, "title")), BLANK, *text, BLANK, line(Span(state.named("{nav.out} or {nav.in} closes"), "dim")))
    return _preview(state, dialog, canvas)


def _preview(state: ConsoleState, preview: Preview, canvas: Canvas) -> Lines:
    """What it is, what it does, what it costs, and whether `y` would do it; what matters least goes when it does not fit."""
    cluster = state.latest.status.cluster_id if state.latest else "the cluster"
    head = (line(Span(f"{title_of(preview)} on {cluster}?", "title")), BLANK)
    foot = _foot(state, preview, canvas)
    room = canvas.height - len(head) - len(foot)
    kept = dict[int, Lines]()
    parts = _parts(state, preview, canvas)
    for rank in sorted(range(len(parts)), key=lambda i: parts[i][0]):
        rows = parts[rank][1]
        if len(rows) <= room:
            kept[rank] = rows
            room -= len(rows)
    return (*head, *(row for rank in sorted(kept) for row in kept[rank]), *foot)


def _parts(state: ConsoleState, preview: Preview, canvas: Canvas) -> list[tuple[int, Lines]]:
    """In the order in which they stand, each with its rank: the highest ranks go first when there is no room."""
    action = ACTIONS[preview.action]
    parts: list[tuple[int, Lines]] = []

    def add(rank: int, name: str, text: str) -> None:
        parts.append((rank, tuple(_rows(name, text, canvas)) if text else ()))

    add(1, "undoes", preview.undoing)
    add(2, "why" if preview.action == "cluster.confirm" else "what", preview.about)
    if preview.action == "cluster.auto" and preview.choices:
        parts.append((0, _modes(state, preview, canvas)))
    elif preview.choices:
        place = preview.choices.index(preview.target) + 1 if preview.target in preview.choices else 0
        add(0, "where", f"{preview.target} ({place} of {len(preview.choices)}; {state.named(CHOOSE)})")
    add(8, "does", state.named(action.effect))
    base = preview.present or (as_planned(state.latest.status) if state.latest else None)
    if preview.plan is not None and base is not None:
        add(0, "expect", expectation(state, base, preview.plan))
        for i, (name, text) in enumerate(facts_of(preview.move)):
            add(3 + i, name, text)
        unknown = (*(preview.move.unknowns if preview.move else ()), *unknowns(state, base))
        parts += [(6, tuple(_rows("unknown", text, canvas, "warn"))) for text in unknown[:MAX_UNKNOWNS]]
        add(7, "trust", error_band(state, base))
    add(1, "based on", _basis(preview))
    add(9, "same as", command_of(preview))
    if preview.plan is not None and base is not None:
        parts.append((10, (BLANK, *plan_difference(base, preview.plan, canvas))))
    return parts


def _modes(state: ConsoleState, preview: Preview, canvas: Canvas) -> Lines:
    """The modes to choose from, the present one named."""
    rows: list[Line] = []
    for name in preview.choices:
        chosen = name == preview.target
        first, *more = wrap(state.named(MODES[name]) + (" (now)" if name == preview.mode else ""), canvas.width - 11)
        mark = Span(canvas.glyphs.cursor if chosen else " ", "accent")
        more = more if canvas.height >= TALL else []
        rows += [line(mark, Span(f" {name:<8}", "title" if chosen else "text"), first), *(line(f"{'':<10}{row}") for row in more)]
    return tuple(rows)


def _basis(preview: Preview) -> str:
    if preview.action == "cluster.auto":
        return f"the mode is {preview.mode}; refused if it has changed"
    if preview.action == "cluster.acknowledge":
        return "what is on the screen; what comes later stays new"
    if preview.action == "cluster.forget":
        return "the node is lost; refused if it is back"
    if "plan_version" in ACTIONS[preview.action].sends or preview.action == "cluster.confirm":
        return f"plan #{preview.plan_version}; refused if it has moved"
    return f"plan #{preview.plan_version}; checked again here before it is sent"


def _foot(state: ConsoleState, preview: Preview, canvas: Canvas) -> Lines:
    if preview.pending:
        return (
            BLANK,
            line(Span("asking the coordinator what it would do ...", "accent")),
            line(Span(state.named("{view.node} / {nav.in} / {nav.out} = cancel"), "dim")),
        )
    reason = still_holds(preview, state)
    if reason:
        rows = [line(Span(row, "warn")) for row in wrap(reason, canvas.width)]
        again = (
            ""
            if preview.blocked or preview.choices
            else f"      {key_of(KEY_OF.get(preview.action, preview.action), state.keys)} = look again"
        )
        return (BLANK, *rows, line(Span(state.named("{nav.in} / {nav.out} = close") + again, "dim")))
    answers = line(Span(">[ Cancel ]", "accent"), state.named(CONFIRM if canvas.width >= ROOMY else SHORT_CONFIRM))
    return (*_hasty(state, preview, canvas), BLANK, answers)


def _hasty(state: ConsoleState, dialog: Preview | Leaving, canvas: Canvas) -> Lines:
    """Why the first `y` did nothing."""
    if not dialog.hasty:
        return ()
    text = state.named("{dialog.yes} came before this could be read: nothing was done, press it again")
    return (BLANK, *(line(Span(row, "warn")) for row in wrap(text, canvas.width)))


def _rows(name: str, text: str, canvas: Canvas, style: str = "dim") -> list[Line]:
    first, *more = wrap(text, canvas.width - 10)
    return [line(Span(f"{name:<10}", style), first), *(line(f"{'':<10}{row}") for row in more)]


def _themes(state: ConsoleState, choice: ThemeChoice, canvas: Canvas) -> Lines:
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
        line(Span("THEME", "title"), Span(state.named("  {nav.up} and {nav.down} show it at once"), "dim")),
        *rows,
        line(*sample),
        line(Span(state.named("{nav.in} keeps it   {nav.out} takes the old one back"), "dim")),
    )
