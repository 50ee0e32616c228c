"""The events of a cluster as its operators read them: numbered, the newest of them at hand, and how far they have been seen."""

from __future__ import annotations

import collections
import time
from collections.abc import Iterator

from engine.control.commands import Record
from engine.data.errors import InvalidInput
from engine.data.status import Event, Severity
from engine.service.coordinator.journal.journal import Journal

MAX_EVENTS = 2000
_WARNINGS = (Severity.WARN, Severity.ERROR)


class EventList:
    """Goes on where the journal's former coordinators ended."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._events: collections.deque[Event] = collections.deque(journal.events(MAX_EVENTS), maxlen=MAX_EVENTS)
        self._sequence = self._events[-1].sequence if self._events else 0
        self.acknowledged = journal.acknowledged()

    def __iter__(self) -> Iterator[Event]:
        return iter(self._events)

    def add(self, record: Record) -> Event:
        """Number it and keep it at hand, instead of the one that it tells again; `keep` journals it."""
        self._sequence += 1
        former = self._former(record) if record.is_again else None
        again_of = (former.again_of or former.sequence) if former else 0
        event = Event(self._sequence, time.time(), record.severity, record.kind, record.subject, record.text, record.cause_id, again_of)
        if former is not None:
            self._events.remove(former)
        self._events.append(event)
        return event

    def keep(self, event: Event) -> None:
        """Raises Exhausted if the journal cannot be written."""
        self._journal.add_event(event)

    def _former(self, record: Record) -> Event | None:
        return next((e for e in reversed(self._events) if (e.kind, e.subject) == (record.kind, record.subject)), None)

    def after(self, sequence: int) -> tuple[Event, ...]:
        return tuple(e for e in self._events if e.sequence > sequence)

    @property
    def num_unacknowledged(self) -> int:
        """Warnings and errors at hand that nobody said they have seen."""
        return self._num_warnings(self.acknowledged, self._sequence)

    def acknowledge(self, sequence: int) -> int:
        """An operator has seen everything up to that event, 0: up to the newest; returns how many warnings were new by that.

        Raises InvalidInput for an event that is yet to come.
        """
        if sequence > self._sequence:
            raise InvalidInput(f"there is no event {sequence} yet: the newest is {self._sequence}, see `noodle-engine events --json`")
        upto = sequence or self._sequence
        if upto <= self.acknowledged:
            return 0
        num_new, self.acknowledged = self._num_warnings(self.acknowledged, upto), upto
        self._journal.keep_acknowledged(upto)
        return num_new

    def _num_warnings(self, after: int, upto: int) -> int:
        return sum(e.severity in _WARNINGS and after < e.sequence <= upto for e in self._events)
