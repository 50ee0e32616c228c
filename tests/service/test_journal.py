"""The journal: what was written is read back by the next process, twice the same token is refused, a full disk is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.data import Event, Exhausted, GenerateRequest, Plan, Severity, Stage
from engine.service.journal import Journal


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "a" / "journal.sqlite3")
    journal.open_session("s-1", (1, 2), GenerateRequest(prompt="hi"))
    for index, token_id in enumerate((5, 6, 7)):
        journal.append_token("s-1", index, token_id)
    journal.adopt_plan(Plan(1, "balanced", (Stage("w1", 0, 3),)))
    event = Event(1, 12.5, Severity.WARN, "node", "w1", "heartbeat late", "c-1")
    journal.add_event(event)
    journal.close_session("s-1", "length")
    journal.close()
    again = Journal(tmp_path / "a" / "journal.sqlite3")
    assert again.tokens("s-1") == [5, 6, 7]
    assert again.events() == [event]
    assert again.finish_reasons() == {"s-1": "length"}
    again.close()


def test_a_token_is_journalled_once(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite3")
    journal.append_token("s-1", 0, 5)
    with pytest.raises(Exception, match="UNIQUE"):
        journal.append_token("s-1", 0, 6)
    assert journal.tokens("s-1") == [5]


def test_a_full_disk_is_said_with_the_way_out(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite3")
    journal._db.execute("PRAGMA max_page_count = 1")
    with pytest.raises(Exhausted, match="free disk space or choose another --state-dir"):
        for index in range(2000):
            journal.append_token("s-1", index, 5)
