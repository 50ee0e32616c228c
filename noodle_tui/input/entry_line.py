"""The line at the bottom in which filters and commands are typed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from noodle_tui.core.keys import BY_ID
from noodle_tui.core.messages import EntryChanged
from noodle_tui.core.pages import Entry, EntryKind
from noodle_tui.text.safe_text import safe_text, types

if TYPE_CHECKING:
    from noodle_tui.app import ConsoleApp
    from noodle_tui.changes.commands import Suggestion

MAX_CHARS = 500
MAX_ENTERED = 50


class EntryLine:
    """Belongs to one app; `run` is given every command that was entered.

    Not a stock field: showing one lays the screen out anew, which costs 15 kB.
    """

    def __init__(self, app: ConsoleApp, run: Callable[[str], None]) -> None:
        self._app = app
        self._run = run
        self._entered: list[str] = []  # commands, the newest last
        self._back = 0  # how many of them the line has gone back; 0: it is new
        self._typed = ""  # before it went back

    def open(self, kind: EntryKind, text: str) -> None:
        """Begin to type."""
        self._back = 0
        self._set(Entry(kind, text))

    def open_filter(self) -> None:
        """The filter of the list that the cursor keys move."""
        ui = self._app.state.ui
        if ui.page in BY_ID["list.filter"].pages:
            self.open(EntryKind.FILTER, ui.listing(ui.list_page).filter)

    def press(self, entry: Entry, key: str, character: str | None) -> None:
        """One key while the line is open; those that mean nothing here do nothing."""
        if key in self._KEYS:
            self._KEYS[key](self, entry)
        elif character is not None and types(character):
            self.insert(entry, character)

    def insert(self, entry: Entry, text: str) -> None:
        """Typed or pasted text."""
        self._set(replace(entry, text=(entry.text + safe_text(text))[:MAX_CHARS], choice=-1))

    def close(self, entry: Entry, *, keep: bool) -> None:
        """Back to the keys; a filter that is not kept is cleared."""
        if entry.kind is EntryKind.FILTER and not keep:
            self._set(replace(entry, text=""))
        self._set(None)

    def _set(self, entry: Entry | None) -> None:
        self._app.dispatch(EntryChanged(entry))
        self._app.paint_soon()

    def _found(self, text: str) -> tuple[Suggestion, ...]:
        from noodle_tui.changes.commands import suggestions

        return suggestions(text, self._app.state, self._app.state.keys, self._app.settings.themes)

    def _choose(self, entry: Entry, step: int) -> None:
        """Move through the suggestions; above the first stands what was typed."""
        choice = max(-1, min(len(self._found(entry.text)) - 1, entry.choice + step))
        self._set(replace(entry, choice=choice if entry.kind is EntryKind.COMMAND else -1))

    def _submit(self, entry: Entry) -> None:
        """Enter: a filter stays, a command runs; a picked suggestion that lacks its argument is only filled in."""
        found = self._found(entry.text) if entry.kind is EntryKind.COMMAND else ()
        picked = found[entry.choice] if 0 <= entry.choice < len(found) else None
        if picked is not None and not picked.complete:
            self._fill(entry, picked)
            return
        self.close(entry, keep=True)
        line = (picked.text.split(" [")[0] if picked else entry.text).strip()
        if line and entry.kind is EntryKind.COMMAND:
            self._entered = [*(old for old in self._entered if old != line), line][-MAX_ENTERED:]
            self._run(line)

    def _up(self, entry: Entry) -> None:
        """Through the suggestions; from above the first of them to earlier commands."""
        if entry.kind is EntryKind.COMMAND and entry.choice < 0 and self._back < len(self._entered):
            self._typed = self._typed if self._back else entry.text
            self._back += 1
            self._set(replace(entry, text=self._entered[-self._back]))
        elif not self._back:
            self._choose(entry, -1)

    def _down(self, entry: Entry) -> None:
        """Back to what was being typed, then through the suggestions."""
        if self._back and entry.choice < 0:
            self._back -= 1
            self._set(replace(entry, text=self._entered[-self._back] if self._back else self._typed))
        else:
            self._choose(entry, 1)

    def _complete(self, entry: Entry) -> None:
        """Tab: take the picked suggestion, or the first."""
        found = self._found(entry.text) if entry.kind is EntryKind.COMMAND else ()
        if found:
            self._fill(entry, found[max(0, entry.choice)])

    def _fill(self, entry: Entry, picked: Suggestion) -> None:
        self._set(replace(entry, text=picked.text if picked.complete else picked.text.split(" ")[0] + " ", choice=-1))

    _KEYS: ClassVar[dict[str, Callable[[EntryLine, Entry], None]]] = {
        "enter": _submit,
        "tab": _complete,
        "escape": lambda self, entry: self.close(entry, keep=False),
        "up": _up,
        "down": _down,
        "backspace": lambda self, entry: self._set(replace(entry, text=entry.text[:-1], choice=-1)),
        "ctrl+h": lambda self, entry: self._set(replace(entry, text=entry.text[:-1], choice=-1)),
        "ctrl+w": lambda self, entry: self._set(replace(entry, text=entry.text.rstrip().rpartition(" ")[0], choice=-1)),
        "ctrl+u": lambda self, entry: self._set(replace(entry, text="", choice=-1)),
    }
