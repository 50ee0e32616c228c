"""Log lines: what the embedded cluster's processes write, and the coordinator's events beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from engine.data.status import Event, Severity

MAX_LINES = 5_000
BURSTS_PER_S = 4
_WORDS = (("ERROR", "ERROR"), ("CRITICAL", "ERROR"), ("Traceback", "ERROR"), ("WARN", "WARN"))


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line; `number` makes it the same line wherever it stands."""

    number: int
    wall_s: float
    level: str  # info, ok, WARN, ERROR
    source: str  # the process or subject
    text: str


@dataclass(frozen=True, slots=True)
class LogBurst:
    """How many lines came in one quarter of a second."""

    quarter: int  # of the console's clock
    num_lines: int


@dataclass(frozen=True, slots=True)
class LogBook:
    """The last lines, how many there ever were, and how fast they came within the last second."""

    lines: tuple[LogLine, ...] = ()  # oldest first
    num_ever: int = 0
    bursts: tuple[LogBurst, ...] = ()  # oldest first

    def with_lines(self, lines: Sequence[LogLine], now_s: float | None, *, anew: bool = False) -> LogBook:
        """More of them; `anew` forgets those before, without `now_s` they came long ago."""
        numbered = tuple(replace(line, number=self.num_ever + i) for i, line in enumerate(lines))
        bursts = self.bursts if now_s is None else with_burst(self.bursts, len(lines), now_s)
        known = () if anew else self.lines
        kept = (*known, *numbered)
        if known and any(line.wall_s < known[-1].wall_s for line in numbered):  # several processes, each with a past of its own
            kept = tuple(sorted(kept, key=lambda line: line.wall_s))
        return LogBook(kept[-MAX_LINES:], self.num_ever + len(lines), bursts)


def level_of(text: str) -> str:
    """The severity that a line of a process claims for itself."""
    return next((level for word, level in _WORDS if word in text[:200]), "info")


def event_line(event: Event, number: int) -> LogLine:
    """An event as a line."""
    return LogLine(number, event.wall_s, str(event.severity), event.subject, f"{event.kind}: {event.text}")


def is_warning(line: LogLine) -> bool:
    return line.level in (Severity.WARN, Severity.ERROR)


def with_burst(bursts: Sequence[LogBurst], num_lines: int, now_s: float) -> tuple[LogBurst, ...]:
    """The last second's quarters with `num_lines` more in the present one."""
    now = int(now_s * BURSTS_PER_S)
    kept = [burst for burst in bursts if now - BURSTS_PER_S < burst.quarter < now]
    present = sum(burst.num_lines for burst in bursts if burst.quarter == now)
    return (*kept, LogBurst(now, present + num_lines))


def lines_per_s(bursts: Sequence[LogBurst], now_s: float) -> int:
    """How many lines came within the last second."""
    first = int(now_s * BURSTS_PER_S) - BURSTS_PER_S
    return sum(burst.num_lines for burst in bursts if burst.quarter > first)
