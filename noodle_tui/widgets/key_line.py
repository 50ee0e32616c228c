"""The last row: the keys that matter now, the most used first, as many as fit. Words name bindings by id: a user's own keys show."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from rich.cells import cell_len

from noodle_tui.core.pages import FOLD_FROM, Leaving, Page, Preview, ThemeChoice
from noodle_tui.state import ConsoleState, LinkState
from noodle_tui.text.lines import Canvas, Line, Span, line

GAP = "  "
_ID = re.compile(r"([a-z]+\.[a-z_]+)")
_FOLD = "{view.expand} all"
_HOLD = "{view.hold} hold"
_CANCEL = "{view.node} / {nav.in} / {nav.out}"
_PAGES: Mapping[Page, str] = {  # ids of bindings, then what they do here
    Page.OVERVIEW: "nav.in open|nav.panel panel|view.expand all|cluster.whatif what-if|cluster.rebalance rebalance|view.hold hold"
    "|list.filter filter|prompt.write prompt|list.sort sort|view.warn warn|cluster.profile profile|cluster.auto adapt",
    Page.NODES: "nav.in details|list.filter filter|list.sort sort|view.warn warn|cluster.drain drain|list.mark mark|cluster.profile profile"
    "|view.export export|view.hold hold",
    Page.PLAN: "view.mode view|view.expand all|view.compare compare|nav.in node|cluster.whatif what-if|cluster.rebalance rebalance"
    "|cluster.rollback roll back|view.export export|view.hold hold",
    Page.WHATIF: "cluster.apply apply|view.compare compare|view.metric measure|nav.in stages|cluster.whatif ask again"
    "|cluster.rollback roll back|view.export export",
    Page.EVENTS: "nav.in full|list.filter filter|view.kind kind|view.newest newest|time.prev time.next plans|view.expand all"
    "|view.warn warn|view.export export|view.hold hold",
    Page.SESSIONS: "nav.in details|cluster.cancel cancel|list.mark mark|list.filter filter|list.sort sort"
    "|view.warn warn|view.export export|view.hold hold",
    Page.PROFILE: "cluster.profile profile|view.phase phase|view.metric measure|view.node next|view.expand all|view.compare compare"
    "|nav.in layers|list.sort sort|list.filter filter|view.export export",
    Page.PROMPT: "nav.in write|nav.out stop|nav.page_up nav.page_down scroll|prompt.copy copy|prompt.save save"
    "|time.prev time.next conversations|view.export export",
    Page.LOGS: "nav.in full|list.filter filter|view.warn warn|view.node source|view.follow follow|view.expand all|view.export export"
    "|view.hold hold",
}
_TAIL = ("{app.help} help", "{app.quit} quit")


def key_line(state: ConsoleState, canvas: Canvas, *, typing: bool = False) -> Line:
    """Whole words only; a dialog and a text field have their own."""
    words = [state.named(word) for word in (_typing(state) if typing else _words(state))]
    return line(Span(_fitted(words, canvas.width), "dim"))


def _typing(state: ConsoleState) -> list[str]:
    leave = "esc stop the answer" if state.generation.running else "esc then {screen.overview}-{screen.logs} screens"
    return [leave, "tab settings", "alt+enter line", "up last prompts", "enter send", *_help(state), "{app.interrupt} quit"]


def _help(state: ConsoleState) -> list[str]:
    """The key of the help that is no text, if there is one."""
    names = next(key.label for key in state.keys if key.id == "app.help").split(" ")
    return [f"{name} help" for name in names if len(name) > 1][:1]


def _words(state: ConsoleState) -> list[str]:
    ui = state.ui
    if isinstance(ui.dialog, Preview):
        from noodle_tui.changes.actions import still_holds  # not for the first paint

        choose = ["{nav.up} {nav.down} choose"] if ui.dialog.choices else []
        holds = not still_holds(ui.dialog, state)
        return [*choose, *(["{dialog.yes} do it", f"{_CANCEL} cancel"] if holds else ["{nav.in} / {nav.out} close"])]
    if isinstance(ui.dialog, ThemeChoice):
        return ["{nav.up} {nav.down} choose", "{nav.in} keep", "{nav.out} take back"]
    if isinstance(ui.dialog, Leaving):
        return ["{dialog.yes} quit", f"{_CANCEL} stay"]
    if ui.dialog is not None:
        return ["{nav.in} / {nav.out} close"]
    if ui.help:
        return [
            "type to filter",
            "{nav.page_down} more",
            "{nav.out} clear" if ui.help_filter else "{nav.out} close",
            "{app.interrupt} quit",
        ]
    words = _page_words(state) if state.shown is not None else []
    if state.link.state is not LinkState.LIVE and state.replay is None:
        words = ["{link.retry} retry", *(word for word in words if not word.startswith("{cluster."))]  # no change without a coordinator
    if state.replay is not None:
        pause = "{view.hold} go on" if state.replay.paused else "{view.hold} pause"
        step = "{time.prev} {time.next} step"
        words = [pause, step, "{time.slower} {time.faster} pace", "{app.command} seek", *(word for word in words if word != _HOLD)]
    elif state.held is not None:
        words = ["{view.hold} resume", *(word for word in words if word != _HOLD)]
    if ui.page is not Page.OVERVIEW and words:
        words.append("{nav.out} back")
    if state.generation.running and ui.page is not Page.PROMPT:
        words.insert(0, "{screen.prompt} answer runs")
    return [*words, "{app.command} command", *_TAIL]


def _page_words(state: ConsoleState) -> list[str]:
    """Of the screen; `z` says what it would do, and nothing where few stages are always shown one by one."""
    page = state.ui.page
    words = [_ID.sub(r"{\1}", word) for word in _PAGES[page].split("|")]
    num_stages = len(state.shown.status.stages) if state.shown else 0
    if page in (Page.PLAN, Page.OVERVIEW) and num_stages < FOLD_FROM:
        words.remove(_FOLD)
    return ["{view.expand} fold" if word == _FOLD and page in state.ui.expanded else word for word in words]


def _fitted(words: Sequence[str], width: int) -> str:
    """Words from the front as long as the last two fit as well, and of those the last."""
    tail = GAP.join(words[-2:])
    if cell_len(tail) + 2 > width:
        return f" {words[-1]}" if cell_len(words[-1]) + 2 <= width else ""
    head = ""
    for word in words[:-2]:
        if cell_len(head) + cell_len(word) + len(GAP) + cell_len(tail) + 2 <= width:
            head += f"{word}{GAP}"
    return f" {head}{tail}"
