"""A recording: every frame that the console received, one JSON line each, so that yesterday can be looked at again.

    {"noodle_recording": 2, "cluster": "127.0.0.1:7070", "wall_s": 1.7e9}
    {"at_s": 0.0, "wall_s": 1.7e9, "frame": {...}}          a frame, `at_s` seconds after the recording began
    {"at_s": 9.1, "wall_s": 1.7e9, "lost": "connection refused"}   the coordinator went away

A name that ends in `.gz` is compressed. A last line that the end of a process cut off is ignored. Reading keeps the
offsets of the lines and the events, not the frames: an hour of them must not fill the memory.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from engine.data.errors import Corrupt, InvalidInput, NoodleError, NotFound, Refused
from engine.data.json_text import json_text
from engine.data.status import Event, SessionStatus, without_former
from engine.data.watch_frame import WatchFrame, completed, num_kept, shortened
from engine.files import failure
from noodle_tui.cluster.frame_json import frame_from_plain, frame_to_plain

VERSION = 2
MAX_BYTES = 2 * 2**30
MAX_EVENTS_KEPT = 500  # as many as the console shows


class Recorder:
    """Appends what arrives to a new file; whatever goes wrong is raised as NoodleError, and the file stays readable."""

    def __init__(self, path: Path, cluster: str, wall_s: float, now_s: float) -> None:
        self.path = path
        self._began_s = now_s
        self._num_bytes = 0
        self._finished: tuple[SessionStatus, ...] = ()
        self._file = self._create(path)
        self._write({"noodle_recording": VERSION, "cluster": cluster, "wall_s": wall_s})

    def frame(self, frame: WatchFrame, wall_s: float, now_s: float) -> None:
        """Keep one frame; of the sessions that ended, those that the frame before did not have."""
        plain = frame_to_plain(shortened(frame, self._finished))
        self._write({"at_s": round(now_s - self._began_s, 3), "wall_s": round(wall_s, 3), "frame": plain})
        self._finished = frame.status.ended.latest

    def lost(self, error: str, wall_s: float, now_s: float) -> None:
        """Keep that the coordinator went away."""
        self._write({"at_s": round(now_s - self._began_s, 3), "wall_s": round(wall_s, 3), "lost": error})

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()

    def _create(self, path: Path) -> IO[bytes]:
        try:
            return cast(IO[bytes], gzip.open(path, "xb", 6)) if path.suffix == ".gz" else path.open("xb")
        except FileExistsError:
            raise Refused(f"{path} exists: a recording never overwrites a file, give another name") from None
        except OSError as problem:
            raise failure(problem, path) from None

    def _write(self, record: dict[str, Any]) -> None:
        line = json_text(record, compact=True).encode("ascii") + b"\n"
        self._num_bytes += len(line)
        if self._num_bytes > MAX_BYTES:
            raise NoodleError(f"{self.path} has reached {MAX_BYTES // 2**30} GiB: the recording ends here")
        try:
            self._file.write(line)
            self._file.flush()
        except OSError as problem:
            raise failure(problem, self.path) from None


@dataclass(frozen=True, slots=True)
class Entry:
    """Where one record lies in the file, and what can be said of it without reading it again."""

    offset: int
    at_s: float
    wall_s: float
    first_event: int  # of the coordinator that ran then: one that began anew starts a new list
    stop_event: int
    plan_version: int
    stop_ended: int = 0
    num_finished: int = 0  # so many sessions before `stop_ended` were on the frame's list
    lost: str = ""


class Recording:
    """An open recording; entries are decoded when they are asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.num_damaged = 0
        self.torn = False
        self._events: list[Event] = []
        self._first_event, self._uptime_s = 0, 0.0
        self._ended: list[SessionStatus] = []  # all that the recording knows of, oldest first
        self._finished: tuple[SessionStatus, ...] = ()  # the list of the entry before
        self._file = self._open(path)
        self.cluster = self._header()
        self.entries = self._scan()
        if not self.entries:
            raise Corrupt(f"{path} holds no frame: the recording ended before the first one arrived")

    def __len__(self) -> int:
        return len(self.entries)

    def frame(self, index: int) -> WatchFrame | None:
        """The frame of an entry with the events that came with it; None where the coordinator was lost."""
        entry = self.entries[index]
        if entry.lost:
            return None
        self._file.seek(entry.offset)
        frame = frame_from_plain(json.loads(self._file.readline())["frame"])
        finished = tuple(reversed(self._ended[entry.stop_ended - entry.num_finished : entry.stop_ended]))
        return frame.with_finished(finished)

    def events_until(self, index: int) -> tuple[Event, ...]:
        """The newest events up to an entry, oldest first: what a console would show that had been there from the start."""
        entry = self.entries[index]
        return without_former(self._events[max(entry.first_event, entry.stop_event - MAX_EVENTS_KEPT) : entry.stop_event])

    def close(self) -> None:
        self._file.close()

    def _open(self, path: Path) -> IO[bytes]:
        try:
            return _unpacked(path) if path.suffix == ".gz" else path.open("rb")
        except FileNotFoundError:
            raise NotFound(f"there is no recording at {path}: make one with noodle-console --record FILE") from None
        except OSError as problem:
            raise failure(problem, path) from None

    def _header(self) -> str:
        head = _json(self._file.readline())
        version = head.get("noodle_recording") if isinstance(head, dict) else None
        if version is None:
            raise InvalidInput(f"{self.path} is not a recording of noodle-console: its first line does not say so")
        if version != VERSION:
            raise InvalidInput(f"{self.path} is a recording of version {version!r}, this console reads version {VERSION}")
        return str(head.get("cluster", ""))

    def _scan(self) -> tuple[Entry, ...]:
        entries: list[Entry] = []
        offset = self._file.tell()
        for line in self._file:
            entry = self._entry(offset, line)
            if entry is not None:
                entries.append(entry)
            elif line.endswith(b"\n"):
                self.num_damaged += 1
            else:
                self.torn = True
            offset += len(line)
        return tuple(entries)

    def _entry(self, offset: int, line: bytes) -> Entry | None:
        raw = _json(line)
        if not isinstance(raw, dict) or not line.endswith(b"\n"):
            return None
        try:
            at_s, wall_s = float(raw["at_s"]), float(raw["wall_s"])
            if "lost" in raw:
                return Entry(offset, at_s, wall_s, self._first_event, len(self._events), 0, lost=str(raw["lost"]) or "lost")
            frame = frame_from_plain(raw["frame"])
        except (KeyError, TypeError, ValueError, Corrupt):
            return None
        self._take_events(frame)
        self._take_finished(frame)
        ended = len(self._ended), len(self._finished)
        return Entry(offset, at_s, wall_s, self._first_event, len(self._events), frame.status.plan_version, *ended)

    def _take_events(self, frame: WatchFrame) -> None:
        if frame.status.uptime_s < self._uptime_s:
            self._first_event = len(self._events)
        self._uptime_s = frame.status.uptime_s
        newest = self._events[-1].sequence if len(self._events) > self._first_event else -1
        self._events += [event for event in frame.events if event.sequence > newest]

    def _take_finished(self, frame: WatchFrame) -> None:
        """From a whole list, as older recordings have in every frame, too."""
        finished = completed(frame, self._finished).status.ended.latest
        num_fresh = len(finished) - num_kept(finished, self._finished)
        self._ended += reversed(finished[:num_fresh])
        self._finished = finished


def _json(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _unpacked(path: Path) -> IO[bytes]:
    """The content in a temporary file, as far as it can be unpacked: seeking in compressed data is slow."""
    target = tempfile.TemporaryFile()  # noqa: SIM115  it lives as long as the recording
    unpack = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    with path.open("rb") as packed, contextlib.suppress(zlib.error):
        while chunk := packed.read(2**18):
            target.write(unpack.decompress(chunk))
    target.seek(0)
    return target
