"""What must be settled with the terminal before the first byte is drawn: is there one, what can it show, will it freeze.

Textual writes from a thread without error handling: one character that the stream cannot encode kills the thread, its
queue fills up and the console hangs for ever. Therefore the streams are told to replace what they cannot encode.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from textual.driver import Driver

_PLAIN_TERMINALS = ("linux", "dumb")
WEB_DRIVER = "textual.drivers.web_driver:WebDriver"  # as textual-serve sets it for the processes behind its pages
NOT_A_TERMINAL = (
    "noodle-console needs a terminal for input and output. In scripts use noodle-engine, "
    "for example: noodle-engine status --connect HOST:PORT --json"
)


def output_stream() -> TextIO | None:
    """The stream Textual's driver writes to on this platform."""
    return sys.__stdout__ if os.name == "nt" else sys.__stderr__


def in_a_browser(environ: Mapping[str, str]) -> bool:
    """Whether textual-serve started this process: its pipes lead to a terminal in a page, which shows UTF-8."""
    return environ.get("TEXTUAL_DRIVER", "") == WEB_DRIVER


def driver_class() -> type[Driver] | None:
    """What reads the terminal; None leaves the choice to Textual: on Windows, and where the environment names a driver."""
    if os.name == "nt" or os.environ.get("TEXTUAL_DRIVER"):
        return None
    from noodle_tui.terminal.driver import ConsoleDriver

    return ConsoleDriver


def is_terminal() -> bool:
    """Whether a person can see the output and type."""
    if in_a_browser(os.environ):
        return True
    return all(stream is not None and stream.isatty() for stream in (sys.__stdin__, output_stream()))


def say(sentence: str) -> None:
    """Print where the user looks: on the error stream, or on standard output when that one is redirected."""
    redirected = sys.stderr is None or not sys.stderr.isatty()
    print(sentence, file=sys.stdout if redirected and sys.stdout is not None and sys.stdout.isatty() else sys.stderr)


def make_term_usable() -> None:
    """For TERM=dumb Rich assumes 80x25 whatever the real size is, and screens would be laid out for both in turn."""
    if os.environ.get("TERM", "").lower() in ("dumb", "unknown"):
        os.environ["TERM"] = "vt100"


def give_size() -> None:
    """A terminal that tells no size gets 24 rows of 80: Rich and Textual would each assume their own, and lay out for both in turn."""
    stream = output_stream()
    if os.name == "nt" or stream is None or not stream.isatty() or all(os.get_terminal_size(stream.fileno())):
        return
    import fcntl
    import termios

    fcntl.ioctl(stream.fileno(), termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))


def make_streams_forgiving() -> None:
    """No character may raise while it is written; see the module docstring."""
    for stream in (sys.__stdout__, sys.__stderr__):
        reconfigure = getattr(stream, "reconfigure", None)
        if stream is not None and reconfigure is not None and stream.isatty():
            reconfigure(errors="replace")


def wants_ascii(environ: Mapping[str, str], encoding: str | None, platform: str = os.name) -> bool:
    """Whether the terminal is likely to show anything but ASCII wrongly."""
    if environ.get("NOODLE_ASCII", "") not in ("", "0"):
        return True
    if in_a_browser(environ):
        return False
    if environ.get("TERM", "") in _PLAIN_TERMINALS:
        return True
    if platform == "nt" and "WT_SESSION" not in environ:
        return True  # the classic Windows console: its fonts lack most glyphs
    return (encoding or "").lower().replace("-", "").replace("_", "") not in ("utf8", "utf8sig")
