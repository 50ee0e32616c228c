"""Log lines: what the embedded cluster's processes write, and the coordinator's events beside them."""

from __future__ import annotations

from dataclasses import dataclass

from engine.data import Event, Severity

MAX_LINES = 5_000
_WORDS = (("ERROR", "ERROR"), ("CRITICAL", "ERROR"), ("Traceback", "ERROR"), ("WARN", "WARN"))


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line; `number` makes it the same line wherever it stands."""

    number: int
    wall_s: float
    level: str  # info, ok, WARN, ERROR
    source: str  # the process or subject
    text: str


def level_of(text: str) -> str:
    """The severity that a line of a process claims for itself."""
    return next((level for word, level in _WORDS if word in text[:200]), "info")


def event_line(event: Event, number: int) -> LogLine:
    """An event as a line."""
    return LogLine(number, event.wall_s, str(event.severity), event.subject, f"{event.kind}: {event.text}")


def is_warning(line: LogLine) -> bool:
    return line.level in (Severity.WARN, Severity.ERROR)
