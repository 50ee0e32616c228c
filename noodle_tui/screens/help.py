"""Help over any screen, generated from the table of keys, so that it cannot disagree with it."""

from __future__ import annotations

from collections.abc import Sequence

from noodle_tui.actions import ACTIONS, preview_of
from noodle_tui.keys import Key
from noodle_tui.lines import BLANK, Canvas, Line, Lines, Span, beside, line
from noodle_tui.pages import Page
from noodle_tui.state import ConsoleState

TWO_COLUMNS_FROM = 100
KEY_CELLS = 12


def help_body(state: ConsoleState, keys: Sequence[Key], canvas: Canvas) -> Lines:
    """Keys that look, keys that change, symbols, files; scrolls where it does not fit."""
    title = line(
        Span(f" HELP  screen {state.ui.page.number} {state.ui.page.value}", "title"), Span("   up and down scroll, esc or ? closes", "dim")
    )
    look = _look(state, keys)
    rest = (*_change(state, keys, canvas), BLANK, *_symbols(canvas), BLANK, *_files())
    rows = beside(look, rest, 54, canvas.glyphs) if canvas.width >= TWO_COLUMNS_FROM else (*look, BLANK, *rest)
    room = canvas.height - 2
    first = max(0, min(state.ui.help_scroll, len(rows) - room))
    more = len(rows) - first - room
    foot = line(Span(f" {more} more below", "dim")) if more > 0 else BLANK
    return (title, *rows[first : first + room], *([BLANK] * max(0, room - len(rows))), foot)[: canvas.height]


def _look(state: ConsoleState, keys: Sequence[Key]) -> Lines:
    shown = [key for key in keys if not key.changes and state.ui.page in key.pages and not key.id.startswith("screen.")]
    rows = [
        line(Span(" LOOK", "title"), Span(" never changes the cluster", "dim")),
        _entry("1..9", "screens: " + " ".join(p.value for p in Page)[:36]),
    ]
    return (*rows, *(_entry(key.label, key.text) for key in shown))


def _change(state: ConsoleState, keys: Sequence[Key], canvas: Canvas) -> Lines:
    rows = [line(Span(" CHANGE", "title"), Span(" capital letter: shows what it would do, y does it", "dim"))]
    for key in keys:
        if key.changes:
            action = ACTIONS.get(key.id)
            blocked = preview_of(action, state).blocked if action else ""
            note = Span(f"  not now: {blocked}" if blocked else "", "dim")
            rows.append(line(*_entry(key.label, key.text), note))
    return tuple(rows)


def _entry(label: str, text: str) -> Line:
    return line(Span(f" {label:<{KEY_CELLS}} ", "accent"), text)


def _symbols(canvas: Canvas) -> Lines:
    g = canvas.glyphs
    return (
        line(Span(" SYMBOLS", "title")),
        line(" ", Span("ok", "ok"), " fine   ", Span("WARN", "warn"), " over a limit   ", Span("ERROR", "error"), " lost or failed"),
        line(" ", Span(f"[{g.levels}]", "low"), " step times of a stage: 0 to 2x its plan, newest right"),
        line(" ", Span(g.bottleneck, "bottleneck"), f" the slowest stage   {g.hop} a hop   {g.broken_scale} blocks not to scale"),
        line(" ITEMS are the model's embedding, blocks and head, counted from 0"),
        line(" STALE: connected, but silent for 3 s   OFFLINE: retried 1 2 4 8 15 s"),
    )


def _files() -> Lines:
    return (
        line(Span(" FILES", "title"), "  ~/.config/noodle/console.toml   ~/.config/noodle/themes/*.toml"),
        line(Span(" ENV", "title"), "  NO_COLOR   NOODLE_ASCII=1   NOODLE_TOKEN"),
    )
