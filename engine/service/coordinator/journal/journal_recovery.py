"""`--recover`: what can still be read of a damaged journal goes into a new one; the damaged file stays beside it."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.data.errors import NoodleError
from engine.files import failure
from engine.service.coordinator.journal.journal import SCHEMA, Journal, check_row
from engine.service.coordinator.journal.journal_file import lock, open_database

log = logging.getLogger(__name__)

TABLES = {"facts": 2, "sessions": 7, "tokens": 4, "endings": 4, "plans": 3, "events": 7}  # and their columns


def recover(path: Path) -> None:
    """Make `path` a journal that can be read. Nothing is done to one that is sound; raises Refused while a coordinator uses it."""
    if _is_sound(path):
        return
    owned = lock(path)
    try:
        if not path.exists():
            return
        aside = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
        try:
            for suffix in ("", "-wal", "-shm"):  # what was written last may stand in the second alone
                if (part := path.with_name(path.name + suffix)).exists():
                    part.rename(aside.with_name(aside.name + suffix))
        except OSError as error:
            raise failure(error, path) from error
        found = _salvage(aside, path)
    finally:
        owned.release()
    counts = ", ".join(f"{num} {table}" for table, num in found.items() if num)
    log.warning("the journal was damaged: %s could be read again; the damaged one is kept as %s", counts or "nothing", aside)


def _is_sound(path: Path) -> bool:
    try:
        with contextlib.closing(Journal(path)) as journal:
            return journal.is_sound()
    except NoodleError:
        return False


def _salvage(damaged: Path, path: Path) -> dict[str, int]:
    database = open_database(path, SCHEMA)
    counts = dict.fromkeys(TABLES, 0)
    try:
        for table, num_columns in TABLES.items():
            places = ",".join("?" * num_columns)
            for row in _rows(damaged, table):
                with contextlib.suppress(sqlite3.Error, ValueError, TypeError, KeyError, RecursionError, NoodleError):
                    check_row(table, row)
                    database.execute(f"INSERT OR IGNORE INTO {table} VALUES ({places})", row)
                    counts[table] += 1
    finally:
        database.close()
    return counts


def _rows(path: Path, table: str) -> Iterator[tuple[Any, ...]]:
    """All rows that SQLite still reads, from both ends, since a damaged page ends a scan."""
    seen: set[tuple[Any, ...]] = set()
    for order in ("ASC", "DESC"):
        with contextlib.suppress(sqlite3.Error, OverflowError):
            database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
            database.text_factory = lambda content: content.decode("utf-8", "replace")
            try:
                for row in database.execute(f"SELECT * FROM {table} ORDER BY {'session_id' if table == 'tokens' else 'rowid'} {order}"):
                    if row not in seen:
                        seen.add(row)
                        yield row
            finally:
                database.close()
