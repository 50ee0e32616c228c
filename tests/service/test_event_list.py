"""What only comes again is one event with a count, for those who watch and in the journal."""

from __future__ import annotations

from pathlib import Path

from engine.control.commands import Record
from engine.data.status import Event, Severity, without_former
from engine.service.coordinator.event_list import EventList
from engine.service.coordinator.journal.journal import Journal

OTHER = Record(Severity.OK, "plan", "#2", "serving on 3 stages")


def again(num_times: int, subject: str = "#7") -> Record:
    return Record(Severity.INFO, "adapt", subject, f"{num_times} times in 9 s: declined", is_again=num_times > 1)


def test_an_event_takes_the_place_of_the_one_that_it_tells_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite3")
    events, told = EventList(journal), list[Event]()
    for record in (again(1), again(1, "#8"), OTHER, again(2), OTHER, again(4)):
        told.append(events.add(record))
        events.keep(told[-1])
    assert [(e.sequence, e.again_of) for e in events] == [(2, 0), (3, 0), (5, 0), (6, 1)]
    assert events.after(4) == (told[4], told[5]), "who watches is told"
    assert without_former(told) == tuple(events), "and need not have seen all tellings between"
    assert without_former([told[0], told[1], told[5]]) == (told[1], told[5])
    assert [(e.sequence, e.text) for e in journal.events()] == [(e.sequence, e.text) for e in events]
    journal.close()


def test_what_a_former_coordinator_said_stays(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite3")
    former = EventList(journal)
    former.keep(former.add(again(1)))
    events = EventList(journal)
    for record in (again(1), again(2)):
        events.keep(events.add(record))
    assert [e.sequence for e in journal.events()] == [e.sequence for e in events] == [1, 3]
    journal.close()
