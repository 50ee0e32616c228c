"""What a click means (`--mouse`): a tab opens its screen or joins its cluster, a row is chosen, a key in the last row is pressed.

Pure; keys do all of it too.
"""

from __future__ import annotations

from noodle_tui.core.keys import Key
from noodle_tui.core.pages import Page
from noodle_tui.listings import shown_rows, table_of
from noodle_tui.state import ConsoleState
from noodle_tui.text.figures import short_id
from noodle_tui.text.lines import Canvas, Line
from noodle_tui.widgets.key_line import GAP
from noodle_tui.widgets.truth_line import cluster_tabs, tabs_line

TABS_ROW, CLUSTERS_ROW = 1, 2


def page_at(state: ConsoleState, x: int, canvas: Canvas) -> Page | None:
    """The screen whose tab is drawn at cell `x` of the row of tabs."""
    at = 0
    pages = iter(Page)
    for span in tabs_line(state, canvas):
        page = next(pages, None) if "." in span.text else None
        if page is not None and at <= x < at + len(span.text):
            return page
        at += len(span.text)
    return None


def cluster_at(state: ConsoleState, x: int, drawn: Line) -> str:
    """The address of the cluster whose tab is drawn at cell `x` of the row below the screens' tabs; empty where none is."""
    at, tabs = 0, {text: address for address, text in cluster_tabs(state)}
    for span in drawn:
        if at <= x < at + len(span.text):
            return tabs.get(span.text, "")
        at += len(span.text)
    return ""


def key_at(state: ConsoleState, x: int, drawn: Line) -> str:
    """The id of the key that is named at cell `x` of the row of keys; empty where none is."""
    text = "".join(span.text for span in drawn)
    at = len(text) - len(text.lstrip())
    for word in text.strip().split(GAP):
        if at <= x < at + len(word):
            labels = [token for token in word.split() if any(token in key.label.split() for key in _here(state))]
            return next((key.id for key in _here(state) if labels and labels[0] in key.label.split()), "")
        at += len(word) + len(GAP)
    return ""


def _here(state: ConsoleState) -> list[Key]:
    return [key for key in state.keys if state.ui.page in key.pages]


def identity_at(state: ConsoleState, row: Line) -> str:
    """The list row that a drawn line shows, by its first word; empty where that is not the name of a row."""
    words = "".join(span.text for span in row).lstrip("> ").split()
    table = table_of(state, state.ui.list_page)
    if table is None or not words:
        return ""
    names = [table.identity(item) for item in shown_rows(state, state.ui.list_page)]
    return next((name for name in names if short_id(name) in (words[0], " ".join(words[:2]))), "")
