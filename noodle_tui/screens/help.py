"""Help over any screen, generated from the table of keys, so that it cannot disagree with it."""

from __future__ import annotations

import re

from noodle_tui.changes.actions import ACTIONS, preview_of
from noodle_tui.changes.help_filter import fits
from noodle_tui.state import ConsoleState
from noodle_tui.text.lines import BLANK, Canvas, Line, Lines, Span, beside, fit, line
from noodle_tui.text.sparkline import levels_of

TWO_COLUMNS_FROM = 80
LONG_FROM = 100
FILE_CELLS = 7
KEY_CELLS, WORD_CELLS, LONG_KEY_CELLS = 10, 8, 13
_MOVES = ("nav.up", "nav.down", "nav.page_up", "nav.page_down", "nav.home", "nav.end")


def help_body(state: ConsoleState, canvas: Canvas) -> Lines:
    """Keys that look; words of this screen, keys that change, symbols, other words, files. It scrolls, and holds what was typed to find."""
    title = line(Span(f" HELP  screen {state.ui.page.number} {state.ui.page.value}", "title"), *_hint(state, canvas))
    left = 54 if canvas.width >= LONG_FROM else 39 if canvas.width >= TWO_COLUMNS_FROM else 0
    look = _found(state, _look(state, canvas))
    own, others = (_words(state, canvas, here=here) for here in (True, False))
    files = _files(state, canvas.width - left - 3)
    rest = _found(state, (*own, BLANK, *_change(state, canvas), BLANK, *_symbols(canvas), BLANK, *others, BLANK, *files))
    rows = beside(look, rest, left, canvas.glyphs) if left else (*look, BLANK, *rest)
    if state.ui.help_filter and not look and not rest:
        rows = (line(Span(state.named(" nothing here contains that; {nav.out} clears the filter"), "dim")),)
    room = canvas.height - 2
    first = max(0, min(state.ui.help_scroll, len(rows) - room))
    more = len(rows) - first - room
    foot = line(Span(f" {more} more below", "dim")) if more > 0 else BLANK
    return (title, *rows[first : first + room], *([BLANK] * max(0, room - len(rows))), foot)[: canvas.height]


def _hint(state: ConsoleState, canvas: Canvas) -> Line:
    """What typing does, or what was typed."""
    if state.ui.help_filter:
        return line(
            "   filter: ", Span(fit(state.ui.help_filter, min(40, len(state.ui.help_filter)), canvas.glyphs), "accent"), Span(" ", "cursor")
        )
    wide = canvas.width >= TWO_COLUMNS_FROM
    hint = (
        "   type to filter, {nav.up} and {nav.down} scroll, {nav.out} or {app.help} closes"
        if wide
        else "   type to filter, {nav.out} closes"
    )
    return line(Span(state.named(hint), "dim"))


def _found(state: ConsoleState, rows: Lines) -> Lines:
    """The rows that contain what was typed; without it all."""
    text = state.ui.help_filter
    return tuple(row for row in rows if not text or (row and fits(text, *(span.text for span in row))))


def _look(state: ConsoleState, canvas: Canvas) -> Lines:
    """Moving and the screens take one row each where rows are few and nothing was typed to find them."""
    shown = [key for key in state.keys if not key.changes and state.ui.page in key.pages]
    rows = [line(Span(" LOOK", "title"), Span(" never changes the cluster", "dim"))]
    if not state.ui.help_filter:
        shown = [key for key in shown if not key.id.startswith("screen.")]
        rows.append(_entry("1..9", "screens, see the tabs", canvas))
    if canvas.width < LONG_FROM and not state.ui.help_filter:
        moves = [key for key in shown if key.id in _MOVES]
        rows.append(line(Span(f" {' '.join(key.label.replace(' ', '/') for key in moves)} ", "accent"), "move"))
        shown = [key for key in shown if key.id not in _MOVES]
    return (*rows, *(_entry(key.label, key.text, canvas) for key in shown))


def _change(state: ConsoleState, canvas: Canvas) -> Lines:
    """A star where the preview would say why it cannot be done now."""
    rows = [line(Span(" CHANGE", "title"), Span(" asks first, y does it", "dim"))]
    blocked = {key.id for key in state.keys if key.id in ACTIONS and preview_of(ACTIONS[key.id], state).blocked}
    narrow = max((len(key.label) for key in state.keys if key.changes), default=0)
    rows += [
        line(*_entry(key.label, key.text, canvas, min(KEY_CELLS, narrow)), Span(" *" if key.id in blocked else "", "warn"))
        for key in state.keys
        if key.changes
    ]
    return (*rows, *([line(Span(" * not now: press it to read why", "dim"))] if blocked else []))


def _entry(label: str, text: str, canvas: Canvas, narrow: int = KEY_CELLS) -> Line:
    """Where keys have few cells, those that would push their text aside are known by their first name alone."""
    cells = narrow if canvas.width < LONG_FROM else LONG_KEY_CELLS
    label = label if len(label) <= cells else label.split(" ")[0]
    return line(Span(f" {label:<{cells}} ", "accent"), text)


def _symbols(canvas: Canvas) -> Lines:
    g = canvas.glyphs
    return (
        line(Span(" SYMBOLS", "title")),
        line(" ", Span("ok", "ok"), " fine ", Span("WARN", "warn"), " over limit ", Span("ERROR", "error"), " failed"),
        line(" ", Span(f"[{levels_of('stage', g)}]", "low"), " step time, 0..2x its plan"),
        line(" ", Span(g.bottleneck, "bottleneck"), f" slowest stage  {g.hop} hop  {g.broken_scale} unscaled"),
    )


WORDS = (  # every abbreviation on the screens, what it stands for, and the screens that a newcomer meets it on, by their keys
    ("p50 p95", "half, 95% are shorter", "12356"),
    ("tok/s", "tokens a second", "168"),
    ("STEP", "one token of every session", "14"),
    ("TTFT", "time to the first token", "68"),
    ("KV", "what sessions have read", "12345"),
    ("HOP >", "from one node to the next", "1235"),
    ("STG S0", "stage: the items of a node", "12"),
    ("S0 S1", "stages, in their order", "34"),
    ("ITEMS", "embedding, blocks, head", "1237"),
    ("planned", "by the plan, for what runs", "1234"),
    ("current", "the same plan, newer times", "4"),
    ("measured", "as it really runs", "34"),
    ("MAX/s", "tokens a second at most", "4"),
    ("ITEMS", "that would move", "4"),
    ("GAIN", "in tokens a second, at most", "4"),
    ("PROOF", "that no plan is better", "4"),
    ("waits", "behind steps of others", "23"),
    ("OWNER", "the node of each item", "3"),
    ("COST", "of an item, 9 = the slowest", "3"),
    ("MEM", "weights and KV, of the most", "14"),
    ("UTIL", "of a GPU, or of one core", "12"),
    ("SEEN", "since its last heartbeat", "12"),
    ("TEMP", "temperature", "2"),
    ("Q", "steps that wait at a node", "2"),
    ("IDLE", "of a step, without work", "1"),
    ("UP", "since the coordinator began", "1"),
    ("SEV", "severity: info to ERROR", "5"),
    ("W !", "warning, lost or refused", "125"),
    ("AGE", "since a session began", "6"),
    ("OUT/MAX", "tokens written, at most", "6"),
    ("prefill", "reading a prompt", "67"),
    ("decode", "writing, token by token", "67"),
    ("STEP", "share of a whole step", "7"),
    ("noise", "how much its times vary", "7"),
    ("overhead", "neither bytes nor FLOPs", "7"),
    ("seed", "draws the same answer again", "8"),
    ("top p", "draw among the likeliest", "8"),
    ("FROM", "a node, or the coordinator", "9"),
    ("#14", "the number of a plan", "1345"),
    ("!!", "the slowest stage", "1347"),
    ("STALE", "silent for 3 s", ""),
    ("OFFLINE", "it connects again by itself", ""),
    ("rw", "capital letters may act", ""),
)


def _words(state: ConsoleState, canvas: Canvas, *, here: bool) -> Lines:
    """A row each: those of this screen, or the others."""
    page = str(state.ui.page.number)
    title = Span(" WORDS", "title"), Span(" of this screen" if here else " elsewhere", "dim")
    return (line(*title), *(_entry(word, text, canvas, WORD_CELLS) for word, text, pages in WORDS if (page in pages) is here))


def _files(state: ConsoleState, width: int) -> Lines:
    """Where settings and themes lie on this platform, and the variables that count."""
    rows = [row for path in state.setup.files for row in _in_rows(path, width - FILE_CELLS)]
    heads = [" FILES", *[""] * len(rows)]
    return (
        *(line(Span(f"{head:<{FILE_CELLS}}", "title"), row) for head, row in zip(heads, rows, strict=False)),
        line(Span(f"{' ENV':<{FILE_CELLS}}", "title"), "NO_COLOR NOODLE_ASCII=1 NOODLE_TOKEN"),
    )


def _in_rows(path: str, width: int) -> list[str]:
    """A path whose folders take a row more where it is long."""
    rows = [""]
    for part in re.findall(r"[^/\\]*[/\\]?", path):
        if rows[-1] and len(rows[-1]) + len(part) > width:
            rows.append(" ")
        rows[-1] += part
    return rows
