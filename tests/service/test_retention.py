"""What the journal keeps, forgets and saves, and who can read it."""

from __future__ import annotations

import argparse
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.errors import NoodleError, Refused
from engine.data.generation import FinishReason, GenerateRequest, Used
from engine.data.sampling import GREEDY
from engine.data.status import SessionStatus
from engine.service.coordinator.journal.journal import PORTION, Journal, written
from engine.service.coordinator.journal.journal_recovery import recover
from engine.service.coordinator.options import Keep, keep

NOW = 1_800_000_000.0
DAY = 86400.0


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    found = Journal(tmp_path / "state" / "journal.sqlite3")
    yield found
    found.close()


def write(journal: Journal, number: int, wall_s: float, patch: pytest.MonkeyPatch, is_over: bool = True, failed: bool = False) -> str:
    session_id = f"s-{number}"
    patch.setattr("time.time", lambda: wall_s)
    journal.open_session(written(session_id, (1, 2), GenerateRequest(None, (1, 2)), Used(GREEDY)))
    for index in range(3):
        journal.append_token(session_id, index, 7)
    if is_over:
        status = SessionStatus(session_id, "failed" if failed else "done", 2, 3, 9, 0.1, 9.0, 1.0)
        journal.close_session(session_id, FinishReason.ERROR if failed else FinishReason.LENGTH, status=status)
    return session_id


def kept(journal: Journal, ids: list[str]) -> list[str]:
    return [i for i in ids if journal.session(i) is not None]


def forget_all(journal: Journal, limit: Keep) -> int:
    total = 0
    while count := journal.prune(NOW, limit):
        total += count
    return total


def test_sessions_go_by_age_and_by_number_and_what_runs_stays(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [write(journal, n, NOW - (10 - n) * DAY, monkeypatch, is_over=n != 1, failed=n in (2, 8)) for n in range(10)]
    before = journal.past_sessions()
    assert journal.prune(NOW, Keep(100 * DAY, 100)) == 0 and kept(journal, ids) == ids
    assert forget_all(journal, Keep(6.5 * DAY, 100)) == 3
    assert kept(journal, ids) == ["s-1", *ids[4:]], "the second runs"
    assert forget_all(journal, Keep(100 * DAY, 2)) == 4 and kept(journal, ids) == ["s-1", *ids[8:]]
    assert journal.tokens("s-4") == [] and [t.token_id for t in journal.tokens("s-1")] == [7, 7, 7] and journal.unfinished() == ["s-1"]
    after = journal.past_sessions()
    assert (after.num_done, after.num_failed) == (before.num_done, before.num_failed) == (7, 2), "counts go on"


def test_a_portion_is_bounded_and_the_file_shrinks(journal: Journal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for n in range(3 * PORTION):
        write(journal, n, NOW - 5 * DAY, monkeypatch)
    assert journal.prune(NOW, Keep(DAY, 10)) == PORTION
    journal._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    size = (tmp_path / "state" / "journal.sqlite3").stat().st_size
    assert forget_all(journal, Keep(DAY, 10)) == 2 * PORTION
    journal._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert (tmp_path / "state" / "journal.sqlite3").stat().st_size < size


@given(st.integers(1, 10**7), st.integers(0, 10**9 - 1))
def test_what_is_kept_can_be_written_and_read(minutes: int, number: int) -> None:
    assert keep(str(Keep(60.0 * minutes, number))) == Keep(60.0 * minutes, number)
    assert keep(str(keep(str(number)))) == keep(str(number))


@pytest.mark.parametrize(("text", "found"), [("30d", (30 * DAY, 10**9)), ("12h,500", (DAY / 2, 500)), ("5m,0", (300.0, 0))])
def test_ages_and_numbers(text: str, found: tuple[float, int]) -> None:
    assert keep(text) == Keep(*found)


@pytest.mark.parametrize("text", ["", ",", "d", "30", "30x", "-1d", "1d5", "1d,2,3", "1.5d"])
def test_what_is_neither(text: str) -> None:
    if text == "30":
        assert keep(text).num_sessions == 30
        return
    with pytest.raises(argparse.ArgumentTypeError, match="30d,10000"):
        keep(text)


# --- who can read it ----------------------------------------------------------------------------------------------------
def test_only_the_user_can_read_it(journal: Journal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write(journal, 0, NOW, monkeypatch)
    folder = tmp_path / "state"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {p.name: stat.S_IMODE(p.stat().st_mode) for p in folder.glob("journal.sqlite3*")} == dict.fromkeys(
        ("journal.sqlite3", "journal.sqlite3-wal", "journal.sqlite3-shm"), 0o600
    )


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "journal.sqlite3").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Refused, match="is a link to another file"):
        Journal(tmp_path / "state" / "journal.sqlite3")
    assert not (tmp_path / "elsewhere").exists()


# --- what can still be read ---------------------------------------------------------------------------------------------
def damaged(path: Path, monkeypatch: pytest.MonkeyPatch, how: Any) -> list[str]:
    journal = Journal(path)
    ids = [write(journal, n, NOW - n, monkeypatch) for n in range(300)]
    journal._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    journal.close()
    content = bytearray(path.read_bytes())
    path.write_bytes(how(content))
    return ids


def in_the_middle(content: bytearray) -> bytes:
    middle = len(content) // 2 // 4096 * 4096
    return bytes(content[:middle]) + b"\xff" * 8192 + bytes(content[middle + 8192 :])


def test_what_can_be_read_of_a_damaged_journal_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state" / "journal.sqlite3"
    ids = damaged(path, monkeypatch, in_the_middle)
    recover(path)
    journal = Journal(path)
    assert len(kept(journal, ids)) > 100 and (tmp_path / "state").glob("*.damaged-*")
    for session_id in kept(journal, ids):
        found = journal.session(session_id)
        assert found is not None and found.prompt_ids == (1, 2) and {t.token_id for t in found.tokens} <= {7}
    journal.close()


def test_one_value_that_was_changed_by_hand_costs_one_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal.sqlite3"
    journal = Journal(path)
    ids = [write(journal, n, NOW - n, monkeypatch, is_over=n > 0) for n in range(5)]
    journal._db.execute("UPDATE endings SET status = '{' WHERE session_id = 's-3'")
    journal.close()
    with pytest.raises(NoodleError, match="--recover"):
        Journal(path)
    recover(path)
    again = Journal(path)
    assert kept(again, ids) == ids and len(again.past_sessions().latest) == 3
    again.close()


@pytest.mark.parametrize("content", [b"", b"not a database", b"SQLite format 3\0" + b"\0" * 500])
def test_of_nothing_a_new_one_is_made(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "journal.sqlite3"
    path.write_bytes(content)
    recover(path)
    Journal(path).close()
    recover(path)
    assert len([*tmp_path.glob("*.damaged-*")]) <= 1, "one that opens is left alone"


def test_another_coordinators_journal_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite3"
    owner = Journal(path)
    with pytest.raises(Refused, match="another coordinator uses"):
        recover(path)
    owner.close()
