"""The coordinator's memory on disk: sessions, tokens, plans and events in SQLite (WAL).

A token is journalled before it is emitted. Writes are small and synchronous; a failing disk raises Exhausted, so the
session that could not be journalled ends with an error instead of a token nobody can ever replay. One coordinator owns the
journal at a time; each that opens it begins a new incarnation, which out-ranks the ones before.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.control.adaptation.rules import check_mode
from engine.control.sessions.past_sessions import FAILED, MAX_FINISHED, PastSessions
from engine.data.errors import Exhausted, NoodleError
from engine.data.generation import FinishReason, GenerateRequest, Logprobs, TokenLogprob, Used
from engine.data.json_text import json_text
from engine.data.plan import AdoptedPlan, Plan
from engine.data.status import Event, SessionStatus, Severity
from engine.service.coordinator.journal.journal_file import explained, from_json, lock, open_database
from engine.service.coordinator.options import Keep
from engine.service.errors import from_number, status_number

SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT);
CREATE TABLE IF NOT EXISTS sessions
    (session_id TEXT PRIMARY KEY, wall_s REAL, prompt_ids TEXT, request TEXT, finish_reason TEXT, error TEXT,
    used TEXT);
CREATE INDEX IF NOT EXISTS unfinished ON sessions (session_id) WHERE finish_reason IS NULL;
CREATE TABLE IF NOT EXISTS tokens
    (session_id TEXT, token_index INTEGER, token_id INTEGER, logprobs TEXT, PRIMARY KEY (session_id, token_index)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS endings (number INTEGER PRIMARY KEY, session_id TEXT UNIQUE, state TEXT, status TEXT);
CREATE INDEX IF NOT EXISTS endings_by_state ON endings (state);
CREATE TABLE IF NOT EXISTS plans (plan_version INTEGER PRIMARY KEY, wall_s REAL, plan TEXT);
CREATE TABLE IF NOT EXISTS events
    (sequence INTEGER PRIMARY KEY, wall_s REAL, severity TEXT, kind TEXT, subject TEXT, text TEXT, cause_id TEXT);
"""
PORTION = 100  # sessions that are forgotten at once
KEPT_EVENTS, KEPT_PLANS = 10_000, 1_000
_FORGOTTEN = ("forgotten_done", "forgotten_failed")  # facts: how many of each are not in `endings` any more
MAX_CHECKED = 50  # plans and events that are looked at when the journal is opened
_CLOSE = "UPDATE sessions SET finish_reason = ?, error = ? WHERE session_id = ?"
_REMEMBER = "INSERT OR REPLACE INTO endings (session_id, state, status) VALUES (?, ?, ?)"


@dataclass(frozen=True, slots=True)
class JournalledToken:
    """A generated token, with its log probabilities if the request asks for them."""

    token_id: int
    logprobs: Logprobs | None = None


@dataclass(frozen=True, slots=True)
class JournalledSession:
    """All that is known of a session; `finish_reason` is None while it is not over."""

    session_id: str
    wall_s: float  # when it was submitted
    prompt_ids: tuple[int, ...]
    request: GenerateRequest
    used: Used
    tokens: tuple[JournalledToken, ...]
    finish_reason: FinishReason | None
    error: NoodleError | None


@dataclass(frozen=True, slots=True)
class WrittenSession:
    """A session that begins, as the journal keeps it."""

    session_id: str
    prompt_ids_json: str
    request_json: str
    used_json: str


def written(session_id: str, prompt_ids: tuple[int, ...], request: GenerateRequest, used: Used) -> WrittenSession:
    """Write a session down. Of a long prompt that takes a while, so that it is done beside the event loop."""
    return WrittenSession(session_id, json_text(prompt_ids), json_text(request), json_text(used))


class Journal:
    """One SQLite file, owned by one coordinator. Raises Refused while another one has it."""

    def __init__(self, path: Path) -> None:
        self._path, self.folder = path, path.parent
        self._lock = lock(path)
        try:
            self._db = open_database(path, SCHEMA)
            with explained(path):
                self.incarnation = int(self._fact("incarnation") or 0) + 1
            self._set_fact("incarnation", str(self.incarnation))
            self._check_content()
        except BaseException:
            self._lock.release()
            raise

    def _check_content(self) -> None:
        """Read what a coordinator needs when it begins, so that damage is said before anything else happens."""
        self.past_sessions()
        self.plans(MAX_CHECKED)
        self.events(MAX_CHECKED)
        self.unfinished()
        self.drained()
        self.acknowledged()

    def cluster_id(self, suggested: str) -> str:
        """The cluster's name: that of the first coordinator here."""
        if self._fact("cluster_id") is None:
            self._set_fact("cluster_id", suggested)
        return self._fact("cluster_id") or suggested

    def adaptation_mode(self, wanted: str) -> str:
        """The mode to begin with: what an operator last switched to, unless this coordinator is started with another one than before."""
        if self._fact("adaptation_wanted") != wanted:
            self._set_fact("adaptation_wanted", wanted)
            self.keep_adaptation_mode(wanted)
        with explained(self._path):
            return str(check_mode(self._fact("adaptation_mode") or wanted))

    def drained(self) -> tuple[str, ...]:
        """The nodes that operators left out of plans."""
        with explained(self._path):
            return tuple(from_json(tuple[str, ...], self._fact("drained") or "[]"))

    def dtype(self) -> str:
        """What `--dtype auto` stands for in this cluster; empty if that was never chosen."""
        return self._fact("dtype") or ""

    def acknowledged(self) -> int:
        """The newest event of which an operator said that they have seen it and all before it."""
        with explained(self._path):
            return int(self._fact("acknowledged") or 0)

    # ------------------------------------------------------------------------------------------ writing
    def keep_adaptation_mode(self, mode: str) -> None:
        self._set_fact("adaptation_mode", mode)

    def keep_drained(self, worker_ids: tuple[str, ...]) -> None:
        self._set_fact("drained", json_text(worker_ids))

    def keep_dtype(self, dtype: str) -> None:
        self._set_fact("dtype", dtype)

    def keep_acknowledged(self, sequence: int) -> None:
        self._set_fact("acknowledged", str(sequence))

    def open_session(self, session: WrittenSession) -> None:
        row = (session.session_id, time.time(), session.prompt_ids_json, session.request_json, session.used_json)
        self._write("INSERT INTO sessions VALUES (?, ?, ?, ?, NULL, NULL, ?)", row)

    def append_token(self, session_id: str, index: int, token_id: int, logprobs: Logprobs | None = None) -> None:
        text = _logprobs_json(logprobs) if logprobs is not None else None
        self._write("INSERT INTO tokens VALUES (?, ?, ?, ?)", (session_id, index, token_id, text))

    def together(self) -> contextlib.AbstractContextManager[None]:
        """What is appended within this reaches the file as one transaction, all of it or none: a fourth of the time for each."""
        return self._transaction()

    def close_session(
        self, session_id: str, finish_reason: str, error: NoodleError | None = None, status: SessionStatus | None = None
    ) -> None:
        """A session is over; one that was refused at once leaves no `status` to remember."""
        text = None if error is None else json_text([status_number(error), str(error)])
        writes: list[tuple[str, tuple[object, ...]]] = [(_CLOSE, (finish_reason, text, session_id))]
        if status is not None:
            writes.append((_REMEMBER, (session_id, status.state, json_text(status))))
        self._write_together(writes)

    def adopt_plan(self, plan: Plan) -> None:
        self._write("INSERT INTO plans VALUES (?, ?, ?)", (plan.plan_version, time.time(), json_text(plan)))

    def add_event(self, event: Event) -> None:
        row = (event.sequence, event.wall_s, str(event.severity), event.kind, event.subject, event.text, event.cause_id)
        writes: list[tuple[str, tuple[object, ...]]] = [("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)", row)]
        if event.again_of:
            former = "DELETE FROM events WHERE kind = ? AND subject = ? AND sequence >= ?"
            writes.insert(0, (former, (event.kind, event.subject, event.again_of)))
        self._write_together(writes)

    def prune(self, now_s: float, keep: Keep) -> int:
        """Forget a portion of what `keep` does not cover; returns how many sessions that were. What runs is never forgotten."""
        oldest_kept = "SELECT rowid FROM sessions WHERE finish_reason IS NOT NULL ORDER BY rowid DESC LIMIT 1 OFFSET ?"
        with explained(self._path):
            found = self._db.execute(
                "SELECT session_id FROM sessions WHERE finish_reason IS NOT NULL AND"
                f" (wall_s < ? OR rowid <= COALESCE(({oldest_kept}), -1)) ORDER BY rowid LIMIT ?",
                (now_s - keep.age_s, keep.num_sessions, PORTION),
            ).fetchall()
        ids = [(str(session_id),) for (session_id,) in found]
        with explained(self._path):
            states = [self._db.execute("SELECT state = ? FROM endings WHERE session_id = ?", (FAILED, *i)).fetchone() for i in ids]
        writes: list[tuple[str, tuple[object, ...]]] = []
        for number, name in enumerate(_FORGOTTEN):
            if count := sum(state == (number,) for state in states):
                writes.append(("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, str(int(self._fact(name) or 0) + count))))
        for table in ("tokens", "endings", "sessions"):
            writes += [(f"DELETE FROM {table} WHERE session_id = ?", i) for i in ids]
        writes.append(("DELETE FROM events WHERE sequence <= (SELECT MAX(sequence) FROM events) - ?", (KEPT_EVENTS,)))
        writes.append(("DELETE FROM plans WHERE plan_version <= (SELECT MAX(plan_version) FROM plans) - ?", (KEPT_PLANS,)))
        self._write_together(writes)
        if ids:
            self._write("PRAGMA incremental_vacuum", ())
        return len(ids)

    # ------------------------------------------------------------------------------------------ reading
    def session(self, session_id: str) -> JournalledSession | None:
        with explained(self._path):
            row = self._db.execute("SELECT * FROM sessions WHERE session_id = ?", (session_id,)).fetchone()
            return self._session(row) if row else None

    def unfinished(self) -> list[str]:
        """The ids of sessions that a former coordinator left, in the order in which they came."""
        with explained(self._path):
            rows = self._db.execute("SELECT session_id FROM sessions WHERE finish_reason IS NULL ORDER BY wall_s, rowid")
            return [str(session_id) for (session_id,) in rows]

    def _session(self, row: tuple[Any, ...]) -> JournalledSession:
        session_id, wall_s, prompt_ids, request, reason, error, used = row
        failure = from_number(*json.loads(error)) if error else None
        ended = FinishReason(reason) if reason else None
        prompt = from_json(tuple[int, ...], prompt_ids)
        wanted, made, tokens = from_json(GenerateRequest, request), from_json(Used, used), tuple(self.tokens(session_id))
        return JournalledSession(session_id, float(wall_s), prompt, wanted, made, tokens, ended, failure)

    def past_sessions(self) -> PastSessions:
        """Those that ended under former coordinators."""
        with explained(self._path):
            rows = self._db.execute("SELECT status FROM endings ORDER BY number DESC LIMIT ?", (MAX_FINISHED,)).fetchall()
            counts = dict(self._db.execute("SELECT state = ?, COUNT(*) FROM endings GROUP BY 1", (FAILED,)).fetchall())
            done, failed = (counts.get(number, 0) + int(self._fact(name) or 0) for number, name in enumerate(_FORGOTTEN))
            return PastSessions(tuple(from_json(SessionStatus, text) for (text,) in rows), done, failed)

    def tokens(self, session_id: str) -> list[JournalledToken]:
        """The session's tokens up to the first that is missing: after a failed write nothing that follows counts."""
        statement = "SELECT token_index, token_id, logprobs FROM tokens WHERE session_id = ? ORDER BY token_index"
        with explained(self._path):
            rows = enumerate(self._db.execute(statement, (session_id,)))
            return [JournalledToken(int(token_id), _logprobs(text)) for number, (index, token_id, text) in rows if index == number]

    def plans(self, limit: int) -> list[AdoptedPlan]:
        """The newest `limit` plans that were adopted, oldest first."""
        with explained(self._path):
            rows = self._db.execute("SELECT wall_s, plan FROM plans ORDER BY plan_version DESC LIMIT ?", (limit,)).fetchall()
            return [AdoptedPlan(float(wall_s), from_json(Plan, text)) for wall_s, text in rows[::-1]]

    def last_plan_version(self) -> int:
        with explained(self._path):
            return int(self._db.execute("SELECT COALESCE(MAX(plan_version), 0) FROM plans").fetchone()[0])

    def events(self, limit: int = -1) -> list[Event]:
        """The newest `limit` events, oldest first; all of them if it is negative."""
        with explained(self._path):
            rows = self._db.execute("SELECT * FROM events ORDER BY sequence DESC LIMIT ?", (limit,)).fetchall()
            return [
                Event(seq, float(wall), Severity(sev), str(kind), str(subject), str(text), str(cause))
                for seq, wall, sev, kind, subject, text, cause in rows[::-1]
            ]

    def is_sound(self) -> bool:
        """Whether every page of the file can be read; takes as long as reading it."""
        with explained(self._path):
            return bool(self._db.execute("PRAGMA quick_check(1)").fetchone() == ("ok",))

    def close(self) -> None:
        self._db.close()
        self._lock.release()

    def _fact(self, name: str) -> str | None:
        with explained(self._path):
            row = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
            return row[0] if row else None

    def _set_fact(self, name: str, value: str) -> None:
        self._write("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def _write(self, statement: str, row: tuple[object, ...]) -> None:
        self._write_together([(statement, row)])

    def _write_together(self, writes: list[tuple[str, tuple[object, ...]]]) -> None:
        """All of them or none."""
        try:
            with self._transaction() if len(writes) > 1 else contextlib.nullcontext():
                for statement, row in writes:
                    self._db.execute(statement, row)
        except sqlite3.IntegrityError:
            raise  # the same row twice: a fault of ours, not of the disk
        except sqlite3.DatabaseError as e:
            raise Exhausted(f"the journal {self._path} cannot be written ({e}): free disk space or choose another --state-dir") from e

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # a full disk may have ended it already
                self._db.execute("ROLLBACK")
            raise


def check_row(table: str, row: tuple[Any, ...]) -> None:
    """Raise what reading the row would raise; for what is taken over from a damaged journal."""
    if table == "sessions":
        from_json(tuple[int, ...], row[2])
        from_json(GenerateRequest, row[3])
        FinishReason(row[4]) if row[4] else None
        from_number(*json.loads(row[5])) if row[5] else None
        from_json(Used, row[6])
    elif table == "endings":
        from_json(SessionStatus, row[3])
    elif table == "plans":
        from_json(Plan, row[2])
    elif table == "events":
        Severity(row[2])
    elif table == "tokens":
        int(row[1]), int(row[2]), _logprobs(row[3])


def _logprobs_json(logprobs: Logprobs) -> str:
    """The chosen token first, then the likeliest, each with its log probability: how they are spelled the tokenizer knows."""
    return json_text([[entry.token_id, entry.logprob] for entry in (logprobs.chosen, *logprobs.top)], compact=True)


def _logprobs(text: str | None) -> Logprobs | None:
    if text is None:
        return None
    chosen, *top = (TokenLogprob(int(token_id), float(logprob)) for token_id, logprob in json.loads(text))
    return Logprobs(chosen, tuple(top))
