"""Where the turns of a chat come from: a person at a terminal, or a pipe with one turn a line."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Protocol

from prompt_toolkit import PromptSession
from prompt_toolkit.formatted_text import HTML
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from engine.commands.output import note
from engine.files import decoded
from engine.folders import state_folder

MAX_LINE_BYTES = 4 << 20


class Reader(Protocol):
    """Gives one turn after the other; None at the end. `is_person` if somebody reads what is said."""

    is_person: bool

    async def next(self) -> str | None: ...


class Typed:
    """At a terminal. Enter sends; Alt-Enter begins a new line, and pasted lines stay lines."""

    is_person = True

    def __init__(self, keeps_history: bool) -> None:
        self._session: PromptSession[str] = PromptSession(
            history=_history() if keeps_history else InMemoryHistory(),
            key_bindings=_keys(),
            multiline=True,
            prompt_continuation="  ",
        )

    async def next(self) -> str | None:
        """Ctrl-C empties the line."""
        while True:
            try:
                return await self._session.prompt_async(HTML("<b>&gt; </b>"))
            except KeyboardInterrupt:
                note("Ctrl-D ends the chat")
            except EOFError:
                return None


class Piped:
    """From standard input; raises InvalidInput for a line that is no UTF-8."""

    is_person = False

    async def next(self) -> str | None:
        line = await asyncio.to_thread(sys.stdin.buffer.readline, MAX_LINE_BYTES)
        return decoded(line, "standard input").rstrip("\r\n") if line else None


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter")
    @keys.add("c-j")  # Enter that was typed ahead, while the terminal still turned it into a line feed
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter")
    @keys.add("escape", "c-j")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys


def _history() -> History:
    """A file that only this user reads; none where none can be written."""
    path = state_folder() / "chat_history"
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600))
        path.chmod(0o600)
    except OSError as error:
        note(f"noodle-engine: what is typed is not kept for later ({error.strerror}: {path})")
        return InMemoryHistory()
    return FileHistory(str(path))


def reader(keeps_history: bool) -> Reader:
    """Typed if a person sits at both ends, else piped."""
    return Typed(keeps_history) if sys.stdin.isatty() and sys.stdout.isatty() else Piped()
