"""A sound or a message of the desktop when something begins to be wrong: for those who look elsewhere. Off unless it is asked for."""

from __future__ import annotations

from collections.abc import Callable

from engine.printable import one_line
from noodle_tui.listings.diagnosis import findings
from noodle_tui.state import ConsoleState

MAX_CHARS = 120
BELL = "\a"


class Alarm:
    """Belongs to one app; `write` is given what goes to the terminal."""

    def __init__(self, mode: str, write: Callable[[str], object]) -> None:
        self._mode = mode
        self._write = write

    def heard(self, before: ConsoleState, after: ConsoleState, now_s: float) -> None:
        """Once for everything that was not there before; what stood when the console came is no news."""
        if before.latest is None or after.replay is not None or before.link.address != after.link.address:
            return
        known = {finding.key for finding in findings(before, now_s)}
        fresh = [finding for finding in findings(after, now_s) if finding.key not in known]
        if fresh:
            self._write(signal_of(self._mode, f"noodle: {fresh[0].what}, {fresh[0].why}"))


def signal_of(mode: str, text: str) -> str:
    """Bytes for the terminal: BEL, or OSC 9 (most terminals) and OSC 777 (urxvt and others); `;` would end a field of it."""
    if mode != "notify":
        return BELL
    title, _, body = one_line(text)[:MAX_CHARS].replace(";", ",").partition(", ")
    return f"\x1b]9;{title}, {body}{BELL}\x1b]777;notify;{title};{body}{BELL}"
