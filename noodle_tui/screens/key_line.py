"""The last row: the keys that matter now, as many as fit."""

from __future__ import annotations

from rich.cells import cell_len

from noodle_tui.lines import Canvas, Line, Span, line
from noodle_tui.pages import Leaving, Page, Preview, ThemeChoice
from noodle_tui.state import ConsoleState, LinkState
from noodle_tui.widgets.plan_layout import FOLD_FROM

_PAGES: dict[Page, str] = {
    Page.OVERVIEW: "enter open|tab panel|S what-if|R rebalance|p prompt|/ filter|o sort|space hold",
    Page.NODES: "enter details|/ filter|o sort|w warnings|D drain|x export",
    Page.PLAN: "v view|z fold|c compare|enter node|S what-if|R rebalance|H roll back|x export",
    Page.WHATIF: "S ask again|A apply...|c compare|enter stages|m measure|H roll back|x export",
    Page.EVENTS: "enter in full|/ filter|w warnings|, . plan changes|f kind|g newest|z unfold|x export",
    Page.SESSIONS: "enter details|X cancel...|/ filter|o sort|x export",
    Page.PROFILE: "enter layers|b phase|m measure|n next|P take one|c compare|z unfold|o sort|/ filter|x export",
    Page.PROMPT: "enter write|esc stop|pgup pgdn scroll|f2 copy|f3 save",
    Page.LOGS: "enter in full|/ filter|w warnings|n source|f follow|x export",
}
_TAIL = ("? help", "q quit")


def key_line(state: ConsoleState, canvas: Canvas, *, typing: bool = False) -> Line:
    """Other keys while typing than while looking; a dialog has its own."""
    if typing:
        stop = "esc stop the answer" if state.generation.running else "esc leave the field"
        return line(Span(f" enter send   {stop}   tab settings   up last prompt   ctrl+c quit", "dim"))
    return line(Span(_fitted(_words(state), canvas.width), "dim"))


def _words(state: ConsoleState) -> list[str]:
    ui = state.ui
    if isinstance(ui.dialog, Preview):
        from noodle_tui.actions import still_holds  # not for the first paint

        choose = ["up down choose"] if ui.dialog.choices else []
        return [*choose, *(["enter / esc close"] if still_holds(ui.dialog, state) else ["y do it", "n / enter / esc cancel"])]
    if isinstance(ui.dialog, ThemeChoice):
        return ["up down choose", "enter keep", "esc take back"]
    if isinstance(ui.dialog, Leaving):
        return ["y quit", "n / enter / esc stay"]
    if ui.dialog is not None:
        return ["enter / esc close"]
    if ui.help:
        return ["type to filter", "pgdn more", "esc clear" if ui.help_filter else "esc close", "ctrl+c quit"]
    words = _PAGES[ui.page].split("|")
    if ui.page is Page.PLAN and state.shown is not None and len(state.shown.status.stages) < FOLD_FROM:
        words.remove("z fold")  # few stages are always shown one by one
    if state.shown is None:
        words = []
    if state.link.state is not LinkState.LIVE and state.replay is None:
        words = ["r retry", *(word for word in words if not word[0].isupper())]  # no change without a coordinator
    if state.replay is not None:
        words = ["space go on" if state.replay.paused else "space pause", ", . step", "- + pace", ": seek", *words]
    elif state.held is not None:
        words = ["space resume", *(word for word in words if word != "space hold")]
    if ui.page is not Page.OVERVIEW and words:
        words.append("esc back")
    if state.generation.running and ui.page is not Page.PROMPT:
        words.insert(0, "8 answer runs")
    return [*words, ": command", *_TAIL]


def _fitted(words: list[str], width: int) -> str:
    """Words from the front as long as the last two fit as well."""
    tail = "   ".join(words[-2:])
    head = ""
    for word in words[:-2]:
        if cell_len(head) + cell_len(word) + 3 + cell_len(tail) + 2 > width:
            continue
        head += f"{word}   "
    return f" {head}{tail}"
