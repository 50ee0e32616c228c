"""Opening the journal's file: one owner, one version, and every damaged or foreign state is one sentence with the way out."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from engine.data.errors import Corrupt, Exhausted, InvalidInput, NoodleError, Refused
from engine.data.typed_json import decode
from engine.files import failure

VERSION = 3
# How a journal of an older version becomes one of the next; what is new in it is as if it had never been asked for.
_UPGRADES = {
    2: """
    ALTER TABLE sessions ADD COLUMN used TEXT;
    ALTER TABLE tokens ADD COLUMN logprobs TEXT;
    UPDATE sessions SET used = json_object('sampling', json_extract(request, '$.sampling'));
    """,
}
BEGIN_ANEW = "save what can be read of it with --recover, move it away to begin anew, or choose another --state-dir"
_BUSY = ("SQLITE_BUSY", "SQLITE_LOCKED")


def lock(path: Path) -> FileLock:
    """Own the folder of `path` until the lock is released; makes the folder. Raises Refused while another process has it."""
    owned = FileLock(path.with_suffix(".lock"), mode=0o600)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        owned.acquire(timeout=0)
    except Timeout as e:
        raise Refused(f"another coordinator uses {path.parent}: stop it, or choose another --state-dir") from e
    except (OSError, NotImplementedError) as e:  # the latter: a disk without locks
        error = e if isinstance(e, OSError) else OSError(str(e))
        raise failure(error, error.filename or path.parent) from e
    return owned


def open_database(path: Path, schema: str) -> sqlite3.Connection:
    """The database with all its tables; raises InvalidInput, Corrupt or Exhausted for one that cannot be used."""
    _make_private(path)
    with explained(path):
        database = sqlite3.connect(path, isolation_level=None)
        try:
            database.execute("PRAGMA auto_vacuum=INCREMENTAL")  # counts for a new file only
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=NORMAL")
            _check_version(path, database)
            database.executescript(schema)
        except BaseException:
            database.close()
            raise
        return database


def _make_private(path: Path) -> None:
    """Prompts and answers are in it: only this user may read it, from the first byte on. A link is not followed."""
    try:
        if path.is_symlink():
            raise Refused(f"the journal {path} is a link to another file: choose another --state-dir, or name the one it leads to")
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600))
        path.chmod(0o600)
    except OSError as e:
        raise failure(e, path) from e


def _check_version(path: Path, database: sqlite3.Connection) -> None:
    (found,) = database.execute("PRAGMA user_version").fetchone()
    tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if tables and "facts" not in tables:
        raise InvalidInput(f"{path} is the database of another program: choose another --state-dir")
    while tables and found in _UPGRADES:
        database.executescript(f"BEGIN; {_UPGRADES[found]} PRAGMA user_version = {found + 1}; COMMIT;")
        found += 1
    if tables and found != VERSION:
        raise InvalidInput(f"{path} was written by another version ({found}, not {VERSION}): choose another --state-dir")
    database.execute(f"PRAGMA user_version = {VERSION}")


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """What reading the journal can raise becomes one sentence: its disk, its content, or who else uses it."""
    try:
        yield
    except sqlite3.IntegrityError:
        raise  # ours: the same row twice
    except sqlite3.Error as e:
        raise _database_failure(path, e) from e
    except (ValueError, TypeError, KeyError, RecursionError, NoodleError) as e:
        if isinstance(e, NoodleError) and str(path) in str(e):
            raise
        raise Corrupt(f"the journal {path} is damaged ({' '.join(str(e).split())[:160]}): {BEGIN_ANEW}") from e


def _database_failure(path: Path, error: sqlite3.Error) -> NoodleError:
    name = getattr(error, "sqlite_errorname", "") or ""
    if name.startswith(_BUSY):
        return Refused(f"the journal {path} is in use by another program ({error}): end it, or choose another --state-dir")
    if name.startswith(("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM", "SQLITE_AUTH")):
        way_out = "check its permissions and its disk, free some space, or choose another --state-dir"
        return Exhausted(f"the journal {path} cannot be used ({error}): {way_out}")
    return Corrupt(f"the journal {path} is damaged, or no journal ({error}): {BEGIN_ANEW}")


def from_json(kind: Any, text: Any) -> Any:
    """What a column holds as a value of the annotated type `kind`; raises Corrupt or ValueError inside `explained`."""
    return decode(kind, json.loads(text), getattr(kind, "__name__", "a row"), "it was changed by hand, or its disk failed")
