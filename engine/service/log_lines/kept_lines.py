"""The last log lines of this process, in memory. One handler for the process, as logging itself has one root."""

from __future__ import annotations

import logging
from collections import deque

from engine.data.status import Severity, WrittenLine
from engine.printable import one_line

MAX_LINES = 500
MAX_CHARS = 500


class KeptLines(logging.Handler):
    """Keeps what it is given; numbers grow over a restart of the process too, so that a reader never misses the new one's lines."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: deque[WrittenLine] = deque(maxlen=MAX_LINES)

    def emit(self, record: logging.LogRecord) -> None:
        """Called by logging, with this handler's lock held."""
        try:
            text = one_line(record.getMessage())[:MAX_CHARS]
        except Exception:  # as every handler does: who logs must not fail by it
            self.handleError(record)
            return
        newest = self._lines[-1].number if self._lines else 0
        number = max(newest + 1, int(1e6 * record.created))
        self._lines.append(WrittenLine(number, record.created, _severity(record.levelno), text))

    def after(self, number: int) -> tuple[WrittenLine, ...]:
        """Lines with a greater number, the oldest first."""
        self.acquire()
        try:
            return tuple(line for line in self._lines if line.number > number)
        finally:
            self.release()


def _severity(level: int) -> Severity:
    return Severity.ERROR if level >= logging.ERROR else Severity.WARN if level >= logging.WARNING else Severity.INFO


def kept_lines() -> KeptLines:
    """Those of this process, from the first call on."""
    root = logging.getLogger()
    found = next((handler for handler in root.handlers if isinstance(handler, KeptLines)), None)
    if found is None:
        found = KeptLines()
        root.addHandler(found)
    return found
