"""One whole screen as lines: the truth on top, tabs, the strip, a body by page, dialogs over it, keys at the bottom.

Pure: everything follows from the state and the canvas. `screens/main.py` shows it; golden tests read it directly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.cells import cell_len

from noodle_tui.core.pages import FIELD_ROWS, EntryKind, Page
from noodle_tui.glyphs import Glyphs
from noodle_tui.state import ConsoleState, LinkState
from noodle_tui.text.lines import Canvas, Line, Lines, Span, crop, fit, line, stack
from noodle_tui.widgets.boxes import boxed, laid_over
from noodle_tui.widgets.key_line import key_line
from noodle_tui.widgets.notices import notices, num_rows_above, opening
from noodle_tui.widgets.staleness import aged, faded
from noodle_tui.widgets.truth_line import is_too_small, strip_line, tabs_line, too_small_line, truth_line

if TYPE_CHECKING:
    from noodle_tui.changes.commands import Suggestion

Body = Callable[[ConsoleState, Canvas], Lines]
NUM_TOP_ROWS = 3
ENTRY_LABELS = {EntryKind.FILTER: " filter / ", EntryKind.COMMAND: " : "}
_WITHOUT_COORDINATOR = frozenset({Page.PROFILE, Page.LOGS})  # they show something while nothing has answered yet


@dataclass(frozen=True, slots=True)
class Settings:
    """What the screen needs to know of the program: its themes."""

    themes: tuple[str, ...] = ()


def _overview() -> Body:
    from noodle_tui.screens.overview import overview_body

    return overview_body


def _nodes() -> Body:
    from noodle_tui.screens.nodes import nodes_body

    return nodes_body


def _plan() -> Body:
    from noodle_tui.screens.plan import plan_body

    return plan_body


def _whatif() -> Body:
    from noodle_tui.screens.whatif import whatif_body

    return whatif_body


def _events() -> Body:
    from noodle_tui.screens.events import events_body

    return events_body


def _sessions() -> Body:
    from noodle_tui.screens.sessions import sessions_body

    return sessions_body


def _profile() -> Body:
    from noodle_tui.screens.profile import profile_body

    return profile_body


def _prompt() -> Body:
    from noodle_tui.screens.prompt import prompt_body

    return prompt_body


def _logs() -> Body:
    from noodle_tui.screens.logs import logs_body

    return logs_body


_BODIES: Mapping[Page, Callable[[], Body]] = {  # imported when first shown: the first paint needs one of nine
    Page.OVERVIEW: _overview,
    Page.NODES: _nodes,
    Page.PLAN: _plan,
    Page.WHATIF: _whatif,
    Page.EVENTS: _events,
    Page.SESSIONS: _sessions,
    Page.PROFILE: _profile,
    Page.PROMPT: _prompt,
    Page.LOGS: _logs,
}


def preload() -> None:
    """Import every screen, once the first paint is out."""
    from noodle_tui.screens import dialogs, help  # noqa: F401

    for body in _BODIES.values():
        body()


def top_lines(state: ConsoleState, canvas: Canvas) -> Lines:
    """Three rows that are there on every screen, over every dialog."""
    if is_too_small(canvas.width, canvas.height):
        return (crop(too_small_line(state, canvas), canvas.width),)
    rows = (truth_line(state, canvas), tabs_line(state, canvas), strip_line(state, canvas))
    return tuple(crop(row, canvas.width) for row in rows)


def body_lines(state: ConsoleState, canvas: Canvas, settings: Settings) -> Lines:
    """Exactly `canvas.height` rows, none wider than the canvas."""
    rows = _help(state, canvas) if state.ui.help else _page(state, canvas)
    rows = tuple(crop(row, canvas.width) for row in stack(rows, canvas.height))
    if state.ui.dialog is not None:
        from noodle_tui.screens.dialogs import with_dialog  # not for the first paint

        rows = with_dialog(state, rows, canvas)
    entry = state.ui.entry
    if entry is not None and entry.kind is EntryKind.COMMAND:
        from noodle_tui.changes.commands import suggestions

        rows = _palette(rows, suggestions(entry.text, state, state.keys, settings.themes), entry.choice, canvas)
    return rows


def screen_lines(state: ConsoleState, width: int, height: int, glyphs: Glyphs, now_s: float, settings: Settings | None = None) -> Lines:
    """The whole screen without its text fields: what tests compare."""
    canvas = Canvas(width, height, glyphs, now_s)
    top = top_lines(state, canvas)
    if len(top) == 1:
        return top
    fields = FIELD_ROWS if state.ui.page is Page.PROMPT else 0
    body = body_lines(state, canvas.sized(width, height - NUM_TOP_ROWS - 1 - fields), settings or Settings())
    return (*top, *body, *([()] * fields), last_line(state, canvas))


def last_line(state: ConsoleState, canvas: Canvas, *, typing: bool = False) -> Line:
    """The keys, or the line that is being typed with its cursor; its end stays in sight."""
    entry = state.ui.entry
    if entry is None:
        return crop(key_line(state, canvas, typing=typing), canvas.width)
    label = ENTRY_LABELS[entry.kind]
    room = canvas.width - len(label) - 1
    text = entry.text if cell_len(entry.text) <= room else canvas.glyphs.ellipsis + skip_text(entry.text, room - 2)
    return crop(line(Span(label, "accent"), text, Span(" ", "cursor")), canvas.width)


def skip_text(text: str, room: int) -> str:
    """The end of a text in at most `room` cells."""
    while cell_len(text) > room:
        text = text[1:]
    return text


def _help(state: ConsoleState, canvas: Canvas) -> Lines:
    from noodle_tui.screens.help import help_body  # not for the first paint

    return help_body(state, canvas)


def _page(state: ConsoleState, canvas: Canvas) -> Lines:
    """A line for notices first, then the screen; what is no longer fresh is faded."""
    if state.shown is None and state.ui.page not in _WITHOUT_COORDINATOR:
        return opening(state, canvas)
    top, above = notices(state, canvas), num_rows_above(state, canvas)
    rows = _BODIES[state.ui.page]()(aged(state, canvas.now_s), canvas.sized(canvas.width, canvas.height - above))
    fresh = state.link.state is LinkState.LIVE or state.replay is not None or state.ui.page in (Page.PROFILE, Page.LOGS)
    return (*top, *(rows if fresh else faded(rows))[len(top) - above :])


def _palette(base: Lines, found: Sequence[Suggestion], choice: int, canvas: Canvas) -> Lines:
    """Suggestions above the line that is being typed."""
    width = canvas.width if canvas.width < 100 else 84
    rows: list[Line] = []
    for i, suggestion in enumerate(found):
        chosen = i == choice
        text = fit(suggestion.text, 28, canvas.glyphs)
        rows.append(
            line(
                Span(canvas.glyphs.cursor if chosen else " ", "accent"),
                Span(f"{text} ", "title" if chosen else "text"),
                Span(suggestion.help, "dim"),
            )
        )
    if not rows:
        rows = [line(Span("no command fits", "dim"))]
    return laid_over(base, boxed(tuple(rows[: canvas.height - 2]), width, canvas.glyphs), canvas, bottom=True)
