"""The virtual world of a drill: a clock, and a network that loses, doubles, delays and reorders what it carries. Pure.

Every choice comes from the one generator that is passed in, and ties in time are broken by order of arrival: a seed replays bit
for bit.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol


class Generator(Protocol):
    """What a drill asks of `random.Random`."""

    def random(self) -> float: ...
    def randrange(self, stop: int, /) -> int: ...


@dataclass(frozen=True, slots=True)
class Hostility:
    """Chances per message, and how long delays are."""

    drop: float = 0.0
    duplicate: float = 0.0
    slow: float = 0.0
    echo: float = 0.0  # comes once more, long after: from the buffer of a link that broke, or of a process that stood still
    disk_error: float = 0.0  # per token that is journalled
    undelivered: float = 0.0  # steps that the first stage is said not to have got; half of them it did get
    confused: float = 0.0  # reports that leave a session out, or name another index than they were asked for
    unreadable: float = 0.0  # ranges of keys and values that their owner cannot read
    delay_s: float = 0.004
    slow_s: float = 0.5
    load_s: float = 0.0  # how long a stage takes to load, at most
    keeps_order: bool = False  # of what one sends another, as a stream does
    echo_s: float = 6.0

    def times(self, level: float) -> Hostility:
        """The same with other chances."""
        return replace(self, **{name: level * getattr(self, name) for name in CHANCES})


AGAIN = 4  # a message that comes twice comes so many times later the second time: what follows from the first may have begun
CHANCES = ("drop", "duplicate", "slow", "echo", "disk_error", "undelivered", "confused", "unreadable")
HOSTILE = Hostility(
    drop=0.01,
    duplicate=0.03,
    slow=0.05,
    echo=0.02,
    disk_error=0.002,
    undelivered=0.01,
    confused=0.005,
    unreadable=0.03,
    load_s=0.3,
)
PEACE = Hostility(keeps_order=True)


class World:
    """Runs what was put into it in order of time."""

    def __init__(self, generator: Generator, speculate: str = "always") -> None:
        self.generator, self.speculate = generator, speculate
        self.now_s = 0.0
        self.hostility = PEACE
        self.blocked: set[tuple[str, str]] = set()  # (from, to): a partition, perhaps one-way
        self.trace = 0  # a running hash of everything that was delivered
        self._pair_numbers: dict[tuple[str, str], int] = {}
        self._last_s: dict[tuple[str, str], float] = {}  # when the newest message of a pair arrives
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def after(self, delay_s: float, work: Callable[[], None]) -> None:
        self._at(self.now_s + delay_s, work)

    def _at(self, time_s: float, work: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._queue, (time_s, self._count, work))

    def run(self, until_s: float, done: Callable[[], bool] = lambda: False) -> None:
        """Advance to `until_s`, or until `done`."""
        while self._queue and self._queue[0][0] <= until_s and not done():
            self.now_s, _, work = heapq.heappop(self._queue)
            work()
        if not done():
            self.now_s = until_s

    def send(self, source: str, target: str, deliver: Callable[[], None]) -> None:
        """Carry one message; it may be lost, come twice, late and so out of order, or once more when nobody expects it."""
        hostility = self.hostility
        copies = 2 if self.generator.random() < hostility.duplicate else 1
        for copy in range(copies):
            if (source, target) in self.blocked or self.generator.random() < hostility.drop:
                continue
            delay_s = hostility.delay_s * (0.1 + self.generator.random()) * (1 + AGAIN * copy)
            if self.generator.random() < hostility.slow:
                delay_s += hostility.slow_s * self.generator.random()
            arrival_s = self.now_s + delay_s
            if hostility.keeps_order:
                arrival_s = self._last_s[source, target] = max(arrival_s, self._last_s.get((source, target), 0.0))
            self._at(arrival_s, lambda: self._arrive(source, target, deliver))
            if hostility.echo and self.generator.random() < hostility.echo:
                self.after(hostility.echo_s * self.generator.random(), lambda: self._arrive(source, target, deliver))

    def _arrive(self, source: str, target: str, deliver: Callable[[], None]) -> None:
        pair = self._pair_numbers.setdefault((source, target), len(self._pair_numbers))
        self.trace = (self.trace * 1000003 + pair + int(self.now_s * 1e6)) % (1 << 61)
        deliver()

    def happens(self, chance: float) -> bool:
        return chance > 0 and self.generator.random() < chance

    def choose(self, options: list[str]) -> str:
        return options[self.generator.randrange(len(options))]
