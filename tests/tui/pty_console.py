"""The real `noodle-console` process on a pseudo-terminal, read through pyte: what a person would see, byte by byte."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyte

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 120.0  # a machine that is busy with other things takes its time
CONSOLE = (sys.executable, "-m", "noodle_tui")
_ANSWERS = {b"\x1b[?2026$p": b"\x1b[?2026;2$y", b"\x1b[6n": b"\x1b[1;1R", b"\x1b[c": b"\x1b[?62c"}
# pyte prints these instead of ignoring them
_UNKNOWN_TO_PYTE = re.compile(rb"\x1b\[[<>=][0-9;]*u|\x1b\[\?[0-9;]*\$p|\x1bP.*?\x1b\\", re.DOTALL)
_PARTIAL = re.compile(rb"\x1b(\[[^@-~]*)?\Z")


class Terminal(pyte.Screen):
    """pyte's own `display` fails while a wide character is half overwritten, which happens between two reads."""

    @property
    def display(self) -> list[str]:
        return ["".join(self.buffer[y][x].data for x in range(self.columns)) for y in range(self.lines)]


class PtyConsole:
    """Use as a context manager; `wait_for` is the only way to wait."""

    def __init__(
        self,
        args: Sequence[str],
        *,
        width: int = 80,
        height: int = 24,
        env: Mapping[str, str] | None = None,
        command: Sequence[str] = CONSOLE,
        cwd: Path = ROOT,
    ) -> None:
        self.raw = bytearray()
        self.screen = Terminal(width, height)
        self.last_byte_s = 0.0
        self.started_s = time.perf_counter()
        self._stream = pyte.ByteStream(self.screen)
        self._changed = threading.Condition()
        self._pending = b""
        self._reading = True
        self.fd, terminal = pty.openpty()
        self._tell_size(width, height)
        # setsid makes the terminal the controlling one, so that closing it sends SIGHUP
        self._process = subprocess.Popen(
            ["setsid", "--ctty", *command, *args], stdin=terminal, stdout=terminal, stderr=terminal, cwd=cwd, env=_environment(env or {})
        )
        self.pid = self._process.pid
        os.close(terminal)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def __enter__(self) -> PtyConsole:
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.kill()
        self._process.wait()
        self.hang_up()

    @property
    def text(self) -> str:
        """The screen now."""
        with self._changed:
            return "\n".join(row.rstrip() for row in self.screen.display)

    def wait_for(self, what: str | Callable[[], bool], timeout_s: float = DEADLINE_S) -> None:
        """Until the text is on the screen or the condition holds; fails with the screen in the message."""
        holds = what if callable(what) else lambda: what in "\n".join(self.screen.display)
        with self._changed:
            if not self._changed.wait_for(holds, timeout_s):
                raise AssertionError(f"not seen within {timeout_s} s: {what}\n" + "\n".join(self.screen.display))

    def wait_for_silence(self, seconds: float, at_most_s: float = DEADLINE_S) -> None:
        """Until nothing was written for so long, or the console writes without an end."""
        until_s = time.perf_counter() + at_most_s
        with self._changed:
            while self._changed.wait(seconds) and time.perf_counter() < until_s:
                pass

    def resize(self, width: int, height: int) -> None:
        """As a window does it: the kernel tells the console."""
        with self._changed:
            self.screen.resize(height, width)
            self._tell_size(width, height)

    def _tell_size(self, width: int, height: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def poll(self) -> int | None:
        """The exit code, if it has ended."""
        return self._process.poll()

    def send(self, keys: str | bytes) -> None:
        os.write(self.fd, keys.encode() if isinstance(keys, str) else keys)

    def agree(self, mark: str) -> None:
        """`y` to the open dialog, again as long as it says that nobody can have read it yet, until it has led to something."""
        early = "came before this could be read"
        while True:
            self.send("y")
            self.wait_for(lambda: any(text in "\n".join(self.screen.display) for text in (mark, early)))
            if mark in self.text:
                return
            self.wait_for_silence(0.1)

    def state(self) -> str:
        """Of the process, as the kernel has it: R, S, T (stopped)."""
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]

    def exit_code(self, timeout_s: float = DEADLINE_S) -> int:
        """The process's exit code, once it has ended by itself; -N for a signal."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError("the console did not end\n" + self.text) from None

    def hang_up(self) -> None:
        """Take the terminal away."""
        self._reading = False
        self._thread.join(5)
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _read(self) -> None:
        while self._reading:
            try:
                ready, _, _ = select.select([self.fd], [], [], 0.05)
                data = os.read(self.fd, 65536) if ready else None
            except OSError:
                return  # the console ended and took its side of the terminal with it
            if data is None:
                continue
            with self._changed:
                self._take(data)
                self._changed.notify_all()

    def _take(self, data: bytes) -> None:
        self.raw += data
        self.last_byte_s = time.perf_counter()
        for query, answer in _ANSWERS.items():
            if query in data:
                os.write(self.fd, answer)
        data = self._pending + data
        partial = _PARTIAL.search(data)
        cut = partial.start() if partial else len(data)
        self._pending = data[cut:]
        self._stream.feed(_UNKNOWN_TO_PYTE.sub(b"", data[:cut]))


def _environment(changes: Mapping[str, str]) -> dict[str, str]:
    """A known terminal, whatever this process runs in."""
    kept = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "NOODLE_ASCII", "LC_ALL", "COLUMNS", "LINES", "PYTHONIOENCODING")}
    return {**kept, "TERM": "xterm-256color", "COLORTERM": "truecolor", "LANG": "C.UTF-8", **changes}
