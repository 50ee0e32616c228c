"""Where every key and every paste goes, one after the other: to the dialog, the help, a line, a field, or the table of keys.

All of them come here from the app's own queue, before Textual hands them to a widget: a burst such as `8hello` must not run ahead of
the field that `8` opens. What types a character is text wherever text is taken, and never a command there.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from textual import events

from noodle_tui.core.keys import Key
from noodle_tui.core.messages import HelpFiltered
from noodle_tui.input.key_effects import ALWAYS
from noodle_tui.state import ConsoleState
from noodle_tui.text.safe_text import types
from noodle_tui.widgets.prompt_field import PromptField, TextField

if TYPE_CHECKING:
    from noodle_tui.app import ConsoleApp

FIELD_KEYS = {"enter": "nav.in", "escape": "nav.out", "tab": "nav.panel", "shift+tab": "nav.panel_back"}  # whatever a user has bound
IN_A_FIELD = frozenset({"nav.page_up", "nav.page_down", "prompt.copy", "prompt.save", "app.command", "app.help"})


class Keyboard:
    """Belongs to one app."""

    def __init__(self, app: ConsoleApp) -> None:
        self._app = app

    async def take(self, event: events.Key) -> None:
        """One key; Alt with a key is Esc, then that key: terminals send both alike. Where lines are written Alt with Enter is a new one."""
        field, ui = self._app.main.field, self._app.state.ui
        if isinstance(field, PromptField) and event.key in field.NEW_LINE and not (ui.entry or ui.dialog or ui.help):
            await field.edit(event.key)
            return
        for key in _without_alt(event):
            await self._take(key)

    def paste(self, text: str) -> None:
        """Into what takes text now, else nowhere."""
        state, field = self._app.state, self._app.main.field
        if state.ui.dialog is not None:
            return
        if state.ui.entry is not None:
            self._app.effects.entry.insert(state.ui.entry, text.strip())
        elif state.ui.help:
            from noodle_tui.changes.help_filter import pasted  # not for the first paint

            self._app.dispatch(HelpFiltered(pasted(state.ui.help_filter, text.strip())))
        elif field is not None:
            field.paste(text)
        self._app.paint_soon()

    async def _take(self, event: events.Key) -> None:
        state, field = self._app.state, self._app.main.field
        key = key_of_event(event, state)
        if key is not None and key.id in ALWAYS:
            self._app.effects.press(key.id)
        elif state.ui.entry is not None:
            self._app.effects.entry.press(state.ui.entry, event.key, event.character)
        elif state.ui.dialog is not None:
            self._press(key, event)
        elif state.ui.help and self._typed_into_help(event):
            self._app.paint_soon()
        elif field is not None and not state.ui.help:
            await self._into_field(field, key, event)
        else:
            self._press(key, event)

    def _press(self, key: Key | None, event: events.Key) -> None:
        if key is not None:
            waited_s = max(0.0, time.monotonic() - event.time)  # in queues, since it was typed
            self._app.effects.press(key.id, self._app.clock() - waited_s)

    async def _into_field(self, field: TextField | PromptField, key: Key | None, event: events.Key) -> None:
        if event.character is not None and types(event.character):
            field.write(event.character)
        elif event.key in FIELD_KEYS:
            self._app.effects.press(FIELD_KEYS[event.key])
        elif key is not None and key.id in IN_A_FIELD:
            self._app.effects.press(key.id)
        else:
            await field.edit(event.key)

    def _typed_into_help(self, event: events.Key) -> bool:
        """Whether the key filters the open help."""
        from noodle_tui.changes.help_filter import typed  # not for the first paint

        state = self._app.state
        text = typed(state.ui.help_filter, event.key, event.character, state.keys)
        if text is not None:
            self._app.dispatch(HelpFiltered(text))
        return text is not None


def key_of_event(event: events.Key, state: ConsoleState) -> Key | None:
    """What a key is bound to on this screen; a dialog takes the keys of all screens, since `n` is its No."""
    names = set(event.aliases)
    here = (key for key in state.keys if state.ui.dialog is not None or state.ui.page in key.pages)
    return next((key for key in here if names & set(key.keys.split(","))), None)


def _without_alt(event: events.Key) -> tuple[events.Key, ...]:
    if not event.key.startswith("alt+"):
        return (event,)
    name = event.key.removeprefix("alt+")
    if event.character is not None and event.is_printable:
        name = name.removeprefix("shift+").upper() if event.character.isupper() else name
    found = events.Key("escape", "\x1b"), events.Key(name, event.character)
    for key in found:
        key.time = event.time
    return found
