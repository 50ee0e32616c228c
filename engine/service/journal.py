"""The coordinator's memory on disk: sessions, tokens, plans and events in SQLite (WAL).

A token is journalled before it is emitted. Writes are small and synchronous; a failing disk raises Exhausted, so the
session that could not be journalled ends with an error instead of a token nobody can ever replay.
"""

from __future__ import annotations

import json
import sqlite3
import time
from dataclasses import asdict
from pathlib import Path

from engine.data import Event, Exhausted, GenerateRequest, Plan, Severity

_SCHEMA = """
CREATE TABLE IF NOT EXISTS sessions (session_id TEXT PRIMARY KEY, wall_s REAL, prompt_ids TEXT, request TEXT, finish_reason TEXT);
CREATE TABLE IF NOT EXISTS tokens
    (session_id TEXT, token_index INTEGER, token_id INTEGER, PRIMARY KEY (session_id, token_index)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS plans (plan_version INTEGER PRIMARY KEY, wall_s REAL, plan TEXT);
CREATE TABLE IF NOT EXISTS events
    (sequence INTEGER PRIMARY KEY, wall_s REAL, severity TEXT, kind TEXT, subject TEXT, text TEXT, cause_id TEXT);
"""


class Journal:
    """One SQLite file, owned by one coordinator."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(_SCHEMA)
        self._path = path

    def open_session(self, session_id: str, prompt_ids: tuple[int, ...], request: GenerateRequest) -> None:
        row = (session_id, time.time(), json.dumps(prompt_ids), json.dumps(asdict(request)))
        self._write("INSERT INTO sessions VALUES (?, ?, ?, ?, NULL)", row)

    def append_token(self, session_id: str, index: int, token_id: int) -> None:
        self._write("INSERT INTO tokens VALUES (?, ?, ?)", (session_id, index, token_id))

    def close_session(self, session_id: str, finish_reason: str) -> None:
        self._write("UPDATE sessions SET finish_reason = ? WHERE session_id = ?", (finish_reason, session_id))

    def adopt_plan(self, plan: Plan) -> None:
        self._write("INSERT INTO plans VALUES (?, ?, ?)", (plan.plan_version, time.time(), json.dumps(asdict(plan))))

    def add_event(self, event: Event) -> None:
        row = (event.sequence, event.wall_s, str(event.severity), event.kind, event.subject, event.text, event.cause_id)
        self._write("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    def tokens(self, session_id: str) -> list[int]:
        rows = self._db.execute("SELECT token_id FROM tokens WHERE session_id = ? ORDER BY token_index", (session_id,))
        return [token_id for (token_id,) in rows]

    def events(self) -> list[Event]:
        rows = self._db.execute("SELECT * FROM events ORDER BY sequence").fetchall()
        return [Event(seq, wall, Severity(sev), kind, subject, text, cause) for seq, wall, sev, kind, subject, text, cause in rows]

    def finish_reasons(self) -> dict[str, str | None]:
        return dict(self._db.execute("SELECT session_id, finish_reason FROM sessions").fetchall())

    def close(self) -> None:
        self._db.close()

    def _write(self, statement: str, row: tuple[object, ...]) -> None:
        try:
            self._db.execute(statement, row)
        except sqlite3.OperationalError as e:
            raise Exhausted(f"the journal {self._path} cannot be written ({e}): free disk space or choose another --state-dir") from e
