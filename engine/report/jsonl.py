"""The metrics log: JSON Lines, one record a line, ASCII only, each with its schema version, two clocks and its cause.

    {"schema": 1, "kind": "stage", "wall_s": 1.7e9, "monotonic_s": 12.5, "cause_id": "", "data": {...}}

This file knows the format: how a record becomes a line, how lines are read back, how a profile is written. Writing while a
cluster runs is `jsonl_writer`'s affair. Numbers that JSON does not have (NaN, infinities) become null.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.data.errors import Corrupt, NotFound
from engine.data.json_text import json_text, plain
from engine.files import failure, replace_whole
from engine.profile.profile import Profile

SCHEMA = 1
LOG_NAME = "metrics.jsonl"


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One thing that was measured or happened. `monotonic_s` orders records of one run, `wall_s` is for people."""

    kind: str
    data: Mapping[str, Any]
    cause_id: str = ""
    wall_s: float = field(default_factory=time.time)
    monotonic_s: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, slots=True)
class LogRead:
    """What a log held, oldest first, and what of it could not be read."""

    records: tuple[LogRecord, ...]
    num_torn: int  # last lines that the end of a process cut off
    num_damaged: int  # complete lines that are no records of this schema


def encode(record: LogRecord) -> bytes:
    """The record as one line with its end."""
    document = {"schema": SCHEMA, **{f.name: plain(getattr(record, f.name)) for f in dataclasses.fields(record)}}
    return json_text(document, compact=True).encode("ascii") + b"\n"


def decode(line: bytes) -> LogRecord | None:
    """The record on a line, or None if it holds none."""
    try:
        found = json.loads(line)
        if found["schema"] != SCHEMA or not isinstance(found["data"], dict):
            return None
        return LogRecord(str(found["kind"]), found["data"], str(found["cause_id"]), float(found["wall_s"]), float(found["monotonic_s"]))
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


# --- reading ------------------------------------------------------------------------------------------------------
def read_log(path: Path) -> LogRead:
    """Read a log file or a run's folder, rotated files included; raises NotFound if there is none."""
    records: list[LogRecord] = []
    num_torn = num_damaged = 0
    for file in log_files(path):
        for line in _lines(file):
            record = decode(line)
            if record is not None:
                records.append(record)
            elif line.endswith(b"\n"):
                num_damaged += 1
            else:
                num_torn += 1
    return LogRead(tuple(records), num_torn, num_damaged)


def log_files(path: Path) -> list[Path]:
    """The files of a log, oldest first: rotation renames x.jsonl to x.1.jsonl, then x.2.jsonl."""
    newest = path / LOG_NAME if path.is_dir() else path
    found = [(number, file) for file in newest.parent.glob("*") if (number := _age(newest, file)) is not None]
    if not found:
        raise NotFound(f"there is no metrics log at {newest}: give the folder that --metrics-dir named, or a .jsonl file")
    return [file for _, file in sorted(found, reverse=True)]


def rotated(path: Path, number: int) -> Path:
    """The name of the log that is `number` rotations old; 0 is the one being written."""
    return path.with_name(f"{path.stem}.{number}{path.suffix}") if number else path


def _age(newest: Path, file: Path) -> int | None:
    if file.name == newest.name:
        return 0
    number = file.name.removeprefix(f"{newest.stem}.").removesuffix(newest.suffix)
    return int(number) if number.isdecimal() and number.isascii() and file == rotated(newest, int(number)) else None


def _lines(file: Path) -> Iterator[bytes]:
    try:
        with file.open("rb") as stream:
            yield from stream
    except OSError as e:
        raise failure(e, file) from e


# --- writing once -------------------------------------------------------------------------------------------------
def write_profile_jsonl(profile: Profile, path: Path) -> None:
    """The profile as a log: one `profile` record with what holds for all of it, then one per step, layer and item."""
    parts = ("steps", "layers", "items")
    summary = {f.name: getattr(profile, f.name) for f in dataclasses.fields(profile) if f.name not in parts}
    rows = [("profile", summary)]
    for part in parts:
        rows += [(part.removesuffix("s"), row) for row in getattr(profile, part)]
    now_s = time.monotonic()
    lines = [encode(LogRecord(kind, plain(row), profile.fingerprint, profile.wall_s, now_s)) for kind, row in rows]
    replace_whole(path, b"".join(lines))


def read_profile_jsonl(path: Path) -> Profile:
    """The profile that `write_profile_jsonl` wrote. Raises NotFound, Corrupt naming what is wrong, NotSupported for another schema."""
    rows: dict[str, list[Mapping[str, Any]]] = {kind: [] for kind in ("profile", "step", "layer", "item")}
    for line in _lines(path) if path.is_file() else ():
        record = decode(line)
        if record is None or record.kind not in rows:
            raise Corrupt(f"{path} is not a profile's log: take the profile again with `noodle-engine profile MODEL --out DIR`")
        rows[record.kind].append(record.data)
    if not path.is_file():
        raise NotFound(f"{path} does not exist: write it with `noodle-engine profile MODEL --out DIR`, as profile.jsonl")
    if len(rows["profile"]) != 1:
        raise Corrupt(f"{path} has {len(rows['profile'])} profile records, one is needed: take the profile again")
    document = {**rows["profile"][0], "steps": rows["step"], "layers": rows["layer"], "items": rows["item"]}
    try:
        return Profile.from_json(json_text(document))
    except Corrupt as error:
        raise Corrupt(f"{path}: {error}") from error
