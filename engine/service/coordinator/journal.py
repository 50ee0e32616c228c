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
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from engine.control.sessions.past_sessions import FAILED, MAX_FINISHED, PastSessions
from engine.data.adopted_plan import AdoptedPlan
from engine.data.errors import Exhausted, InvalidInput, NoodleError, Refused
from engine.data.generation import FinishReason, GenerateRequest, Sampling
from engine.data.plan import Plan, Stage
from engine.data.status import Event, SessionStatus, Severity
from engine.service.errors import from_number, status_number

_VERSION = 2
_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT);
CREATE TABLE IF NOT EXISTS sessions
    (session_id TEXT PRIMARY KEY, wall_s REAL, prompt_ids TEXT, request TEXT, finish_reason TEXT, error TEXT);
CREATE INDEX IF NOT EXISTS unfinished ON sessions (session_id) WHERE finish_reason IS NULL;
CREATE TABLE IF NOT EXISTS tokens
    (session_id TEXT, token_index INTEGER, token_id INTEGER, PRIMARY KEY (session_id, token_index)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS endings (number INTEGER PRIMARY KEY, session_id TEXT UNIQUE, state TEXT, status TEXT);
CREATE INDEX IF NOT EXISTS endings_by_state ON endings (state);
CREATE TABLE IF NOT EXISTS plans (plan_version INTEGER PRIMARY KEY, wall_s REAL, plan TEXT);
CREATE TABLE IF NOT EXISTS events
    (sequence INTEGER PRIMARY KEY, wall_s REAL, severity TEXT, kind TEXT, subject TEXT, text TEXT, cause_id TEXT);
"""
_CLOSE = "UPDATE sessions SET finish_reason = ?, error = ? WHERE session_id = ?"
_REMEMBER = "INSERT OR REPLACE INTO endings (session_id, state, status) VALUES (?, ?, ?)"


@dataclass(frozen=True, slots=True)
class JournalledSession:
    """All that is known of a session; `finish_reason` is None while it is not over."""

    session_id: str
    wall_s: float  # when it was submitted
    prompt_ids: tuple[int, ...]
    request: GenerateRequest
    token_ids: tuple[int, ...]
    finish_reason: FinishReason | None
    error: NoodleError | None


class Journal:
    """One SQLite file, owned by one coordinator. Raises Refused while another one has it."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(path.with_suffix(".lock"))
        try:
            self._lock.acquire(timeout=0)
        except Timeout as e:
            raise Refused(f"another coordinator uses {path.parent}: stop it, or choose another --state-dir") from e
        self._path = path
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._check_version()
        self._db.executescript(_SCHEMA)
        self.incarnation = int(self._fact("incarnation") or 0) + 1
        self._set_fact("incarnation", str(self.incarnation))

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
        return self._fact("adaptation_mode") or wanted

    def drained(self) -> tuple[str, ...]:
        """The nodes that operators left out of plans."""
        return tuple(json.loads(self._fact("drained") or "[]"))

    def acknowledged(self) -> int:
        """The newest event of which an operator said that they have seen it and all before it."""
        return int(self._fact("acknowledged") or 0)

    # ------------------------------------------------------------------------------------------ writing
    def keep_adaptation_mode(self, mode: str) -> None:
        self._set_fact("adaptation_mode", mode)

    def keep_drained(self, worker_ids: tuple[str, ...]) -> None:
        self._set_fact("drained", json.dumps(worker_ids))

    def keep_acknowledged(self, sequence: int) -> None:
        self._set_fact("acknowledged", str(sequence))

    def open_session(self, session_id: str, prompt_ids: tuple[int, ...], request: GenerateRequest) -> None:
        row = (session_id, time.time(), json.dumps(prompt_ids), json.dumps(asdict(request)))
        self._write("INSERT INTO sessions VALUES (?, ?, ?, ?, NULL, NULL)", row)

    def append_token(self, session_id: str, index: int, token_id: int) -> None:
        self._write("INSERT INTO tokens VALUES (?, ?, ?)", (session_id, index, token_id))

    def close_session(
        self, session_id: str, finish_reason: str, error: NoodleError | None = None, status: SessionStatus | None = None
    ) -> None:
        """A session is over; one that was refused at once leaves no `status` to remember."""
        text = None if error is None else json.dumps([status_number(error), str(error)])
        writes: list[tuple[str, tuple[object, ...]]] = [(_CLOSE, (finish_reason, text, session_id))]
        if status is not None:
            writes.append((_REMEMBER, (session_id, status.state, json.dumps(asdict(status)))))
        self._write_together(writes)

    def adopt_plan(self, plan: Plan) -> None:
        self._write("INSERT INTO plans VALUES (?, ?, ?)", (plan.plan_version, time.time(), json.dumps(asdict(plan))))

    def add_event(self, event: Event) -> None:
        row = (event.sequence, event.wall_s, str(event.severity), event.kind, event.subject, event.text, event.cause_id)
        self._write("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    # ------------------------------------------------------------------------------------------ reading
    def session(self, session_id: str) -> JournalledSession | None:
        row = self._db.execute("SELECT * FROM sessions WHERE session_id = ?", (session_id,)).fetchone()
        return self._session(row) if row else None

    def unfinished(self) -> list[str]:
        """The ids of sessions that a former coordinator left, in the order in which they came."""
        return [row[0] for row in self._db.execute("SELECT session_id FROM sessions WHERE finish_reason IS NULL ORDER BY wall_s, rowid")]

    def _session(self, row: tuple[Any, ...]) -> JournalledSession:
        session_id, wall_s, prompt_ids, request, reason, error = row
        failure = from_number(*json.loads(error)) if error else None
        ended = FinishReason(reason) if reason else None
        prompt = tuple(json.loads(prompt_ids))
        wanted, token_ids = _request(json.loads(request)), tuple(self.tokens(session_id))
        return JournalledSession(session_id, wall_s, prompt, wanted, token_ids, ended, failure)

    def past_sessions(self) -> PastSessions:
        """Those that ended under former coordinators."""
        rows = self._db.execute("SELECT status FROM endings ORDER BY number DESC LIMIT ?", (MAX_FINISHED,)).fetchall()
        counts = dict(self._db.execute("SELECT state = ?, COUNT(*) FROM endings GROUP BY 1", (FAILED,)).fetchall())
        return PastSessions(tuple(_ending(json.loads(text)) for (text,) in rows), counts.get(0, 0), counts.get(1, 0))

    def tokens(self, session_id: str) -> list[int]:
        """The session's tokens up to the first that is missing: after a failed write nothing that follows counts."""
        rows = self._db.execute("SELECT token_index, token_id FROM tokens WHERE session_id = ? ORDER BY token_index", (session_id,))
        return [token_id for number, (index, token_id) in enumerate(rows) if index == number]

    def plans(self, limit: int) -> list[AdoptedPlan]:
        """The newest `limit` plans that were adopted, oldest first."""
        rows = self._db.execute("SELECT wall_s, plan FROM plans ORDER BY plan_version DESC LIMIT ?", (limit,)).fetchall()
        return [AdoptedPlan(wall_s, _plan(json.loads(text))) for wall_s, text in rows[::-1]]

    def last_plan_version(self) -> int:
        return int(self._db.execute("SELECT COALESCE(MAX(plan_version), 0) FROM plans").fetchone()[0])

    def events(self, limit: int = -1) -> list[Event]:
        """The newest `limit` events, oldest first; all of them if it is negative."""
        rows = self._db.execute("SELECT * FROM events ORDER BY sequence DESC LIMIT ?", (limit,)).fetchall()
        return [Event(seq, wall, Severity(sev), kind, subject, text, cause) for seq, wall, sev, kind, subject, text, cause in rows[::-1]]

    def close(self) -> None:
        self._db.close()
        self._lock.release()

    def _check_version(self) -> None:
        (found,) = self._db.execute("PRAGMA user_version").fetchone()
        (tables,) = self._db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
        if tables and found != _VERSION:
            raise InvalidInput(f"{self._path} was written by another version ({found}, not {_VERSION}): choose another --state-dir")
        self._db.execute(f"PRAGMA user_version = {_VERSION}")

    def _fact(self, name: str) -> str | None:
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
        except sqlite3.OperationalError as e:
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


def _ending(document: dict[str, Any]) -> SessionStatus:
    known = {field.name for field in fields(SessionStatus)}  # a later version may remember more
    return SessionStatus(**{name: value for name, value in document.items() if name in known})


def _plan(document: dict[str, Any]) -> Plan:
    stages = tuple(Stage(**stage) for stage in document.pop("stages"))
    times = {name: tuple(document.get(name, ())) for name in ("stage_s", "hop_s")}
    return Plan(**document | times | {"stages": stages})


def _request(document: dict[str, Any]) -> GenerateRequest:
    sampling = Sampling(**document.pop("sampling"))
    prompt_ids, stop = tuple(document.pop("prompt_ids")), tuple(document.pop("stop"))
    return GenerateRequest(**document, prompt_ids=prompt_ids, stop=stop, sampling=sampling)
