"""Writing the metrics log while a cluster runs: a thread behind a bounded queue.

Nothing here may cost a token. `write` neither blocks nor raises: when the queue is full or the disk refuses, records are lost
and counted, and the log itself says how many were lost as soon as it can be written again.
"""

from __future__ import annotations

import errno
import logging
import os
import queue
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from engine.data.errors import InvalidInput
from engine.report.jsonl import LogRecord, encode, rotated

log = logging.getLogger(__name__)

MAX_FILE_BYTES = 64 * 2**20
NUM_OLD_FILES = 4
QUEUE_RECORDS = 4096
MAX_RECORD_BYTES = 2**20
CLOSE_TIMEOUT_S = 2.0


class JsonlWriter:
    """Appends records to `path`; when it would grow beyond `max_file_bytes` it is renamed and the oldest one deleted.

    Raises InvalidInput if the file cannot be opened now or another process writes it; afterwards nothing raises.
    """

    def __init__(
        self, path: Path, max_file_bytes: int = MAX_FILE_BYTES, num_old_files: int = NUM_OLD_FILES, queue_records: int = QUEUE_RECORDS
    ) -> None:
        self._path, self._max_file_bytes, self._num_old_files = path, max_file_bytes, num_old_files
        self._queue: queue.Queue[LogRecord | None] = queue.Queue(queue_records)
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._file: IO[bytes] | None = None
        self._size_bytes = 0
        self._num_untold = 0  # lost since the log last said how many
        self.num_written = 0
        self.num_lost = 0
        self._only_writer = FileLock(path.with_suffix(".lock"))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._only_writer.acquire(timeout=0)  # two that rotate one log would lose each other's records
            self._open()
        except Timeout as e:
            raise InvalidInput(f"the metrics log {path} is written by another process: choose another --metrics-dir") from e
        except (OSError, NotImplementedError) as e:  # the latter: a disk without locks
            raise InvalidInput(f"cannot write the metrics log {path}: {getattr(e, 'strerror', e)}; choose another --metrics-dir") from e
        self._thread = threading.Thread(target=self._run, name="metrics-log", daemon=True)
        self._thread.start()

    def write(self, kind: str, data: Mapping[str, Any], cause_id: str = "") -> None:
        """Queue a record. `data` belongs to the writer from now on: do not change it."""
        if self._closed.is_set():
            self._lose(1)
            return
        try:
            self._queue.put_nowait(LogRecord(kind, data, cause_id))
        except queue.Full:
            self._lose(1)

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Write what is queued, for at most `timeout_s`; a disk that hangs does not hold up the process."""
        self._closed.set()
        try:
            self._queue.put(None, timeout=timeout_s)
        except queue.Full:
            return
        self._thread.join(timeout_s)
        self._only_writer.release()

    # ------------------------------------------------------------------------------------------ on the thread
    def _run(self) -> None:
        while (record := self._queue.get()) is not None:
            try:
                self._append(record)
            except Exception as e:  # whatever it is, the next record gets its chance
                self._fail(e)
        if self._file is not None:
            self._file.close()

    def _append(self, record: LogRecord) -> None:
        line = encode(record)
        if len(line) > MAX_RECORD_BYTES:
            raise ValueError(f"a record of {len(line)} bytes, the limit is {MAX_RECORD_BYTES}")
        if self._size_bytes and self._size_bytes + len(line) > self._max_file_bytes:
            self._rotate()
        if self._file is None:
            self._open()
        if self._num_untold:
            self._tell_losses()
        self._put(line)
        self.num_written += 1

    def _tell_losses(self) -> None:
        with self._lock:
            num_records, self._num_untold = self._num_untold, 0
        try:
            self._put(encode(LogRecord("lost", {"num_records": num_records})))
        except OSError:
            with self._lock:
                self._num_untold += num_records
            raise

    def _put(self, line: bytes) -> None:
        if self._file is None:
            raise OSError(errno.EBADF, "the log is closed")
        written = self._file.write(line)  # unbuffered: one system call, so a line is whole or torn, never mixed
        self._size_bytes += written
        if written != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _open(self) -> None:
        self._file = self._path.open("ab", buffering=0)
        self._size_bytes = self._file.tell()
        if self._size_bytes and self._last_byte() != b"\n":
            self._put(b"\n")  # a torn line must not swallow the next one

    def _last_byte(self) -> bytes:
        with self._path.open("rb") as stream:
            stream.seek(-1, os.SEEK_END)
            return stream.read(1)

    def _rotate(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file, self._size_bytes = None, 0
        for number in range(self._num_old_files, 0, -1):
            older = rotated(self._path, number - 1)
            if older.exists():
                older.replace(rotated(self._path, number))
        if self._num_old_files == 0:
            self._path.unlink(missing_ok=True)

    def _fail(self, error: Exception) -> None:
        if not self._num_untold:
            log.warning("the metrics log %s loses records: %s", self._path, error)
        self._lose(1)
        if self._file is not None and isinstance(error, OSError):
            self._file.close()
            self._file, self._size_bytes = None, 0

    def _lose(self, num_records: int) -> None:
        with self._lock:
            self.num_lost += num_records
            self._num_untold += num_records
