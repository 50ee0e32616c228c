"""The line at the bottom in which filters and commands are typed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from noodle_tui.commands import Suggestion, suggestions
from noodle_tui.keys import BY_ID
from noodle_tui.messages import EntryChanged
from noodle_tui.pages import Entry, EntryKind

if TYPE_CHECKING:
    from noodle_tui.app import ConsoleApp


class EntryLine:
    """Belongs to one app; `run` is given every command that was entered."""

    def __init__(self, app: ConsoleApp, run: Callable[[str], None]) -> None:
        self._app = app
        self._run = run

    def _found(self, text: str) -> tuple[Suggestion, ...]:
        return suggestions(text, self._app.state, self._app.settings.keys, self._app.settings.themes)

    def choose(self, entry: Entry, step: int) -> None:
        """Move through the suggestions; above the first stands what was typed."""
        choice = max(-1, min(len(self._found(entry.text)) - 1, entry.choice + step))
        self._app.dispatch(EntryChanged(replace(entry, choice=choice)))

    def open(self, kind: EntryKind, text: str) -> None:
        """Begin to type."""
        self._app.dispatch(EntryChanged(Entry(kind, text)))
        self._app.main.open_entry(kind, text)

    def open_filter(self) -> None:
        """The filter of the list that the cursor keys move."""
        ui = self._app.state.ui
        if ui.page in BY_ID["list.filter"].pages:
            self.open(EntryKind.FILTER, ui.listing(ui.list_page).filter)

    def typed(self, text: str) -> None:
        """The line changed."""
        entry = self._app.state.ui.entry
        if entry is not None and entry.text != text:
            self._app.dispatch(EntryChanged(replace(entry, text=text, choice=-1)))
            self._app.paint_soon()

    def submitted(self, text: str) -> None:
        """Enter: a filter stays, a command runs; a picked suggestion that lacks its argument is only filled in."""
        entry = self._app.state.ui.entry
        if entry is None:
            return
        if entry.kind is EntryKind.FILTER:
            self.close(entry, keep=True)
            return
        found = self._found(entry.text)
        picked = found[entry.choice] if 0 <= entry.choice < len(found) else None
        if picked is not None and not picked.complete:
            self._app.main.set_entry(picked.text.split(" ")[0] + " ")
            return
        self.close(entry, keep=True)
        line = (picked.text.split(" [")[0] if picked else text).strip()
        if line:
            self._run(line)
        self._app.paint_soon()

    def complete(self, entry: Entry) -> None:
        """Tab: take the picked suggestion, or the first."""
        found = self._found(entry.text)
        if entry.kind is EntryKind.COMMAND and found:
            picked = found[max(0, entry.choice)]
            self._app.main.set_entry(picked.text if picked.complete else picked.text.split(" ")[0] + " ")

    def close(self, entry: Entry, *, keep: bool) -> None:
        """Back to the keys; a filter that is not kept is cleared."""
        if entry.kind is EntryKind.FILTER and not keep:
            self._app.dispatch(EntryChanged(replace(entry, text="")))
        self._app.dispatch(EntryChanged(None))
        self._app.main.close_entry()
        self._app.paint_soon()
