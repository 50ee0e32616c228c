"""From what a terminal sends to keys, pastes and answers: Textual's driver with a reader of its own. Never for Windows or a browser.

What is pasted is text, whatever bytes it holds and however the link cuts it: it never reaches the parser of keys. An Esc is a key of
its own even when another follows at once. Bytes that are not UTF-8 are shown as such instead of ending the thread that reads.
"""

from __future__ import annotations

import os
import select
import signal
from codecs import getincrementaldecoder
from typing import Any

from textual import events
from textual._xterm_parser import XTermParser
from textual.drivers.linux_driver import LinuxDriver

START, END = "\x1b[200~", "\x1b[201~"  # of bracketed paste
ESC = "\x1b"
ENTERS = "\r\n"  # after an Esc: Alt with Enter
INTRODUCERS = "[O"  # after an Esc: the beginning of a sequence that stands for one key or an answer
ESC_S = 0.05  # a lone Esc is a key when nothing has followed for so long
CUT_S = 1.0  # nobody types the beginning of a paste mark: its rest is waited for
PASTE_S = 5.0  # a paste that ends in silence has lost its end
POLL_S = 0.1
MAX_PASTE_CHARS = 1_000_000  # the rest of a longer one is dropped
Token = tuple[str, str]  # ("keys" | "paste" | "escape" | "alt+enter", text)


class Splitter:
    """Cuts the text of a terminal into pastes, lone Escs and everything else. Pure: who feeds it measures the silences."""

    def __init__(self) -> None:
        self._rest = ""
        self._pasting = False
        self._after_escape = False  # the Esc before was given out, its paste mark may still follow

    @property
    def patience_s(self) -> float | None:
        """After how much silence `flush` is due; None while nothing waits."""
        if self._pasting:
            return PASTE_S
        if not self._rest:
            return None
        return ESC_S if self._rest == ESC else CUT_S

    def feed(self, text: str) -> list[Token]:
        """What is complete now."""
        self._rest += text
        if self._after_escape and (START[1:].startswith(self._rest) or self._rest.startswith(START[1:])):
            self._rest = ESC + self._rest
        self._after_escape = False
        found: list[Token] = []
        while self._rest and self._step(found):
            pass
        return found

    def flush(self) -> list[Token]:
        """Nothing followed: what waits is complete as it stands."""
        rest, pasting, self._rest, self._pasting = self._rest, self._pasting, "", False
        if pasting:
            return [("paste", rest)]
        self._after_escape = rest == ESC
        return [("escape", ESC)] if rest == ESC else [("keys", rest)] if rest else []

    def _step(self, found: list[Token]) -> bool:
        """Take one piece off the rest; False when it has to wait for more."""
        if self._pasting:
            return self._paste(found)
        at = self._rest.find(ESC)
        if at != 0:
            self._take(found, len(self._rest) if at < 0 else at)
        elif self._rest.startswith(START):
            self._rest, self._pasting = self._rest[len(START) :], True
            return True
        elif START.startswith(self._rest):
            return False
        elif self._rest[1] in ENTERS:
            found.append(("alt+enter", self._rest[:2]))
            self._rest = self._rest[2:]
        elif self._rest[1] not in INTRODUCERS:
            found.append(("escape", ESC))
            self._rest = self._rest[1:]
        else:
            following = self._rest.find(ESC, 1)
            self._take(found, len(self._rest) if following < 0 else following)
        return True

    def _take(self, found: list[Token], length: int) -> None:
        found.append(("keys", self._rest[:length]))
        self._rest = self._rest[length:]

    def _paste(self, found: list[Token]) -> bool:
        text, mark, rest = self._rest.partition(END)
        if not mark:
            self._rest = text[:MAX_PASTE_CHARS] + text[MAX_PASTE_CHARS:][-len(END) :]
            return False
        found.append(("paste", text[:MAX_PASTE_CHARS]))
        self._rest, self._pasting = rest, False
        return True


class ConsoleDriver(LinuxDriver):
    """See the module docstring."""

    def run_input_thread(self) -> None:
        """Read until the driver is told to stop; every message goes to the app in the order in which it was typed."""
        splitter, parser, silent_s = Splitter(), XTermParser(), 0.0
        decode = getincrementaldecoder("utf-8")("replace").decode
        while not self.exit_event.is_set():
            patience_s = splitter.patience_s
            wait_s = POLL_S if patience_s is None else max(0.0, min(POLL_S, patience_s - silent_s))
            if select.select([self.fileno], [], [], wait_s)[0]:
                silent_s, tokens = 0.0, splitter.feed(decode(os.read(self.fileno, 4096)))
            else:
                silent_s += wait_s
                due = patience_s is not None and silent_s >= patience_s
                tokens = splitter.flush() if due else []
            self._pass_on(tokens, parser)

    def _pass_on(self, tokens: list[Token], parser: XTermParser) -> None:
        for kind, text in tokens:
            if kind == "paste":
                self.process_message(events.Paste(text))
            elif kind == "escape":
                self.process_message(events.Key("escape", ESC))
            elif kind == "alt+enter":
                self.process_message(events.Key("alt+enter", None))
            else:
                for message in parser.feed(text):
                    self.process_message(message)
        for message in parser.tick():
            self.process_message(message)

    def _sigcont_application(self, *_: Any) -> None:
        """Back from a stop. One that came from outside (kill -STOP) left our modes set: they are taken back and set again. Not while the
        terminal is an editor's."""
        if self._auto_restart and not self._must_signal_resume:
            self.suspend_application_mode()
            self._must_signal_resume = True
        super()._sigcont_application()


def suspend() -> None:
    """Stop this process alone, as the terminal's Ctrl-Z would; the driver gives the terminal back first."""
    os.kill(os.getpid(), signal.SIGTSTP)
