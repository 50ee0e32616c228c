"""The journal: what was written is read back by the next process, twice the same token is refused, a full disk is said."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from engine.control.sessions.past_sessions import MAX_FINISHED, NO_PAST, PastSessions
from engine.data.errors import Exhausted, InvalidInput, Refused, Unavailable
from engine.data.generation import FinishReason, GenerateRequest, Logprobs, PromptMode, TokenLogprob, Used
from engine.data.plan import Plan, Stage
from engine.data.sampling import GREEDY, LogitBias, Sampling, SamplingRequest, resolved
from engine.data.status import Event, SessionStatus, Severity
from engine.service.coordinator.coordinator import _as_before
from engine.service.coordinator.journal.journal import Journal, JournalledToken, written
from tests.control.harness import card


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "a" / "journal.sqlite3")
    journal.open_session(written("s-1", (1, 2), GenerateRequest(prompt="hi"), Used(GREEDY)))
    for index, token_id in enumerate((5, 6, 7)):
        journal.append_token("s-1", index, token_id)
    journal.adopt_plan(Plan(1, "balanced", (Stage("w1", 0, 3),)))
    event = Event(1, 12.5, Severity.WARN, "node", "w1", "heartbeat late", "c-1")
    journal.add_event(event)
    journal.close_session("s-1", "length")
    journal.close()
    again = Journal(tmp_path / "a" / "journal.sqlite3")
    assert again.tokens("s-1") == [JournalledToken(5), JournalledToken(6), JournalledToken(7)]
    assert again.events() == [event]
    ended = again.session("s-1")
    assert ended is not None and ended.finish_reason is FinishReason.LENGTH
    again.close()


def test_plans_come_back_as_they_were_the_newest_of_them(tmp_path: Path) -> None:
    plans = [Plan(n, "balanced", (Stage("w1", 0, n), Stage("w2", n, 9)), (0.5, 0.25), 0.5, 0.8, 0.4, True) for n in (1, 2, 3)]
    with contextlib.closing(Journal(tmp_path / "journal.sqlite3")) as journal:
        for plan in plans:
            journal.adopt_plan(plan)
    with contextlib.closing(Journal(tmp_path / "journal.sqlite3")) as again:
        assert [found.plan for found in again.plans(2)] == plans[1:]
        assert all(found.wall_s > 1e9 for found in again.plans(2))


def test_a_token_is_journalled_once(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite3")
    journal.append_token("s-1", 0, 5)
    with pytest.raises(Exception, match="UNIQUE"):
        journal.append_token("s-1", 0, 6)
    assert journal.tokens("s-1") == [JournalledToken(5)]


def test_a_full_disk_is_said_with_the_way_out(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite3")
    journal._db.execute("PRAGMA max_page_count = 1")
    with pytest.raises(Exhausted, match="free disk space or choose another --state-dir"):
        for index in range(2000):
            journal.append_token("s-1", index, 5)


def test_the_next_coordinator_finds_what_the_last_one_did_not_finish(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite3")
    asked = SamplingRequest(0.5, 3, 0.9, None, 7, logit_bias=(LogitBias(3, -1.5),), min_tokens=2, logprobs=True, top_logprobs=2)
    request = GenerateRequest(prompt="hi", max_new_tokens=9, sampling=asked, stop=("x", "y"), ignore_eos=True, mode=PromptMode.AUTO)
    used = Used(resolved(asked, SamplingRequest(repetition_penalty=1.1), (2,))[0], "default", ("repetition_penalty",))
    reported = Logprobs(TokenLogprob(5, -0.25), (TokenLogprob(7, -0.125), TokenLogprob(5, -0.25)))
    for session_id in ("s-b", "s-a", "s-done", "s-failed"):
        journal.open_session(written(session_id, (1, 2), request, used))
    journal.append_token("s-a", 0, 5, reported)
    journal.append_token("s-a", 1, 6)
    journal.append_token("s-a", 3, 8)  # the write of index 2 failed: this one does not count
    journal.close_session("s-done", "length")
    journal.close_session("s-failed", "error", Unavailable("w2 was lost"))
    journal.adopt_plan(Plan(4, "balanced", (Stage("w1", 0, 3),)))
    assert (journal.incarnation, journal.cluster_id("noodle-1")) == (1, "noodle-1")
    journal.close()
    again = Journal(tmp_path / "journal.sqlite3")
    assert (again.incarnation, again.cluster_id("noodle-2"), again.last_plan_version()) == (2, "noodle-1", 4)
    left = [again.session(session_id) for session_id in again.unfinished()]
    tokens = (JournalledToken(5, reported), JournalledToken(6))
    assert [(s.session_id, s.tokens, s.request, s.used) for s in left if s] == [("s-b", (), request, used), ("s-a", tokens, request, used)]
    failed = again.session("s-failed")
    assert failed is not None and failed.finish_reason is FinishReason.ERROR
    assert isinstance(failed.error, Unavailable) and str(failed.error) == "w2 was lost"
    assert again.session("s-never") is None
    again.close()


def test_sessions_that_ended_come_back_newest_first_the_last_of_them_and_all_are_counted(tmp_path: Path) -> None:
    failed = SessionStatus("s-0", "failed", 3, 1, 9, 0.25, 4.0, 7.5, 0.03, finish_reason="error", why="w2 was lost")
    ends = [failed, *(SessionStatus(f"s-{n}", "done", 3, n, 99, 0.2, 4.0, 1.5, finish_reason="length") for n in range(1, MAX_FINISHED + 2))]
    with contextlib.closing(Journal(tmp_path / "journal.sqlite3")) as journal:
        assert journal.past_sessions() == NO_PAST
        for end in ends:
            journal.open_session(written(end.session_id, (1,), GenerateRequest(prompt="x"), Used(GREEDY)))
            journal.close_session(end.session_id, end.finish_reason, None, end)
        journal.open_session(written("s-refused", (1,), GenerateRequest(prompt="x"), Used(GREEDY)))
        journal.close_session("s-refused", "error", Exhausted("the queue is full"))
    with contextlib.closing(Journal(tmp_path / "journal.sqlite3")) as again:
        assert again.past_sessions() == PastSessions(tuple(reversed(ends))[:MAX_FINISHED], MAX_FINISHED + 1, 1)
        again.close_session("s-0", "error", None, failed)  # it ends a second time: still one session
        found = again.past_sessions()
        assert found.latest[0] == failed and (found.num_done, found.num_failed) == (MAX_FINISHED + 1, 1)


def test_a_session_is_closed_and_remembered_or_neither(tmp_path: Path) -> None:
    """A coordinator that ended between the two would take the session over and count it twice."""
    with contextlib.closing(Journal(tmp_path / "journal.sqlite3")) as journal:
        journal.open_session(written("s-1", (1,), GenerateRequest(prompt="x"), Used(GREEDY)))
        journal._db.execute("ALTER TABLE endings RENAME TO elsewhere")
        with pytest.raises(Exhausted):
            journal.close_session("s-1", "length", None, SessionStatus("s-1", "done", 1, 1, 1, 0.1, 0.0, 0.1))
        assert journal.unfinished() == ["s-1"]
        journal.open_session(written("s-2", (1,), GenerateRequest(prompt="x"), Used(GREEDY)))  # and the journal goes on
        assert len(journal.unfinished()) == 2


def test_a_journal_from_before_endings_were_kept_has_none(tmp_path: Path) -> None:
    with contextlib.closing(Journal(tmp_path / "journal.sqlite3")) as journal:
        journal._db.executescript("DROP TABLE endings")
    with contextlib.closing(Journal(tmp_path / "journal.sqlite3")) as again:
        assert again.past_sessions() == NO_PAST
        again._db.execute("INSERT INTO endings VALUES (1, 's-1', 'done', ?)", (json.dumps({**asdict(END), "of_a_later_version": 1}),))
        assert again.past_sessions().latest == (END,)


END = SessionStatus("s-1", "done", 1, 1, 1, 0.1, 0.0, 0.1)


# What a coordinator before version 3 of the journal wrote.
_OLDER = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT);
CREATE TABLE sessions (session_id TEXT PRIMARY KEY, wall_s REAL, prompt_ids TEXT, request TEXT, finish_reason TEXT, error TEXT);
CREATE TABLE tokens (session_id TEXT, token_index INTEGER, token_id INTEGER, PRIMARY KEY (session_id, token_index)) WITHOUT ROWID;
INSERT INTO sessions VALUES ('s-1', 5.0, '[1, 2]', '{"prompt": "hi", "prompt_ids": [], "max_new_tokens": 9, "sampling": {"temperature": 0.5,
"top_k": 3, "top_p": 0.9, "repetition_penalty": 1.1, "seed": 7}, "stop": [], "ignore_eos": false}', NULL, NULL);
INSERT INTO tokens VALUES ('s-1', 0, 5);
PRAGMA user_version = 2;
"""


def test_sessions_of_an_older_journal_go_on_as_they_were_sampled(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "journal.sqlite3")) as database:
        database.executescript(_OLDER)
    for _ in range(2):  # the second time it is of this version
        with contextlib.closing(Journal(tmp_path / "journal.sqlite3")) as journal:
            (found,) = [journal.session(session_id) for session_id in journal.unfinished()]
            assert found is not None and found.used == Used(Sampling(0.5, 3, 0.9, 1.1, 7)) and found.tokens == (JournalledToken(5),)
            assert found.request == GenerateRequest("hi", max_new_tokens=9, sampling=SamplingRequest(0.5, 3, 0.9, 1.1, 7))


def test_a_journal_has_one_owner_and_one_version(tmp_path: Path) -> None:
    first = Journal(tmp_path / "journal.sqlite3")
    with pytest.raises(Refused, match="another coordinator uses"):
        Journal(tmp_path / "journal.sqlite3")
    first._db.execute("PRAGMA user_version = 1")
    first.close()
    with pytest.raises(InvalidInput, match="written by another version"):
        Journal(tmp_path / "journal.sqlite3")


def test_the_mode_of_adaptation_outlives_the_coordinator_unless_it_is_started_with_another(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite3"

    def started_with(wanted: str, then: str = "") -> str:
        journal = Journal(path)
        mode = journal.adaptation_mode(wanted)
        if then:
            journal.keep_adaptation_mode(then)
        journal.close()
        return mode

    assert started_with("off") == "off"
    assert started_with("off", then="auto") == "off"
    assert started_with("off") == "auto"
    assert started_with("suggest") == "suggest"
    assert started_with("suggest") == "suggest"


def test_what_operators_said_of_nodes_and_warnings_is_kept(tmp_path: Path) -> None:
    with contextlib.closing(Journal(tmp_path / "journal.sqlite3")) as journal:
        assert (journal.drained(), journal.acknowledged()) == ((), 0)
        journal.keep_drained(("w1", "w2"))
        journal.keep_drained(("w2",))
        journal.keep_acknowledged(7)
    with contextlib.closing(Journal(tmp_path / "journal.sqlite3")) as again:
        assert (again.drained(), again.acknowledged()) == (("w2",), 7)


def test_a_restarted_coordinator_goes_on_in_the_dtype_that_was_chosen(tmp_path: Path) -> None:
    cards = [replace(card(), ref=replace(card().ref, dtype=dtype)) for dtype in ("float32", "bfloat16")]
    journal = Journal(tmp_path / "j")
    assert _as_before(cards, journal) == cards, "nothing was ever planned, so there is a choice"
    journal.keep_dtype("bfloat16")
    journal.close()
    again = Journal(tmp_path / "j")
    assert _as_before(cards, again) == cards[1:] and _as_before(cards[:1], again) == cards[:1]
    again.close()


def test_a_journal_of_before_there_was_a_choice_goes_on_in_float32(tmp_path: Path) -> None:
    cards = [replace(card(), ref=replace(card().ref, dtype=dtype)) for dtype in ("float32", "bfloat16")]
    journal = Journal(tmp_path / "j")
    journal.adopt_plan(Plan(1, "balanced", (Stage("w1", 0, 5),)))
    assert _as_before(cards, journal) == cards[:1]
    journal.close()
