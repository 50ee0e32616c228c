"""The metrics log: what is written is read back; torn and damaged lines are skipped and counted; a failing disk costs records only."""

from __future__ import annotations

import errno
import io
import json
import math
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.errors import InvalidInput, NotFound
from engine.data.json_text import plain
from engine.data.status import Severity
from engine.report import jsonl_writer
from engine.report.jsonl import LogRecord, decode, encode, log_files, read_log, rotated
from engine.report.jsonl_writer import JsonlWriter

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
records = st.builds(LogRecord, st.text(), st.dictionaries(st.text(), values, max_size=5), st.text(), st.floats(0, 1e12), st.floats(0, 1e9))


@settings(max_examples=200)
@given(records)
def test_a_record_is_one_ascii_line_and_comes_back(record: LogRecord) -> None:
    line = encode(record)
    assert line.endswith(b"\n") and line.count(b"\n") == 1 and b"\r" not in line and line.isascii() and b"\x1b" not in line
    assert decode(line) == record


@settings(max_examples=100)
@given(st.lists(records, min_size=1, max_size=8), st.data())
def test_a_log_cut_anywhere_loses_its_last_line_only(tmp_path_factory: Any, rows: list[LogRecord], data: st.DataObject) -> None:
    lines = [encode(r) for r in rows]
    whole = b"".join(lines)
    cut = data.draw(st.integers(len(whole) - len(lines[-1]), len(whole) - 2))
    path = tmp_path_factory.mktemp("log") / "metrics.jsonl"
    path.write_bytes(whole[:cut])
    found = read_log(path)
    assert list(found.records) == rows[:-1]
    assert found.num_torn == (cut > len(whole) - len(lines[-1])) and found.num_damaged == 0


@settings(max_examples=60, deadline=None)
@given(st.lists(records, min_size=1, max_size=30), st.integers(200, 2000))
def test_rotation_keeps_order_caps_size_and_loses_only_the_oldest(tmp_path_factory: Any, rows: list[LogRecord], max_bytes: int) -> None:
    path = tmp_path_factory.mktemp("log") / "metrics.jsonl"
    writer = JsonlWriter(path, max_file_bytes=max_bytes, num_old_files=3)
    for row in rows:
        writer.write(row.kind, row.data, row.cause_id)
    writer.close()
    assert writer.num_written == len(rows) and writer.num_lost == 0
    files = log_files(path)
    assert len(files) <= 4
    longest = max(len(encode(r)) for r in rows) + 64  # the writer's own clocks may print longer
    assert all(f.stat().st_size <= max(max_bytes, longest) for f in files)
    kept = [(r.kind, r.data) for r in read_log(path).records]
    assert kept == [(r.kind, r.data) for r in rows][len(rows) - len(kept) :]
    if len(files) < 4:
        assert len(kept) == len(rows)


@pytest.mark.parametrize(
    "line",
    [
        b"not json\n",
        b"[]\n",
        b'"x"\n',
        b"null\n",
        b"{}\n",
        b"\xff\xfe\n",
        b"[" * 100_000 + b"\n",
        encode(LogRecord("a", {})).replace(b'"schema":1', b'"schema":2'),
    ],
)
def test_a_damaged_line_in_the_middle_is_counted_and_skipped(tmp_path: Path, line: bytes) -> None:
    good = encode(LogRecord("a", {"x": 1}))
    (tmp_path / "metrics.jsonl").write_bytes(good + line + good)
    found = read_log(tmp_path)
    assert (len(found.records), found.num_damaged, found.num_torn) == (2, 1, 0)


def test_what_json_lacks_becomes_null_and_enums_their_text() -> None:
    found = plain({"nan": math.nan, "inf": -math.inf, "severity": Severity.WARN, 3: (1, {2}), "path": Path("x")})
    assert json.loads(json.dumps(found)) == {"nan": None, "inf": None, "severity": "WARN", "3": [1, [2]], "path": "x"}


def test_no_log_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no metrics log"):
        read_log(tmp_path)


def test_other_files_in_the_folder_are_not_part_of_the_log(tmp_path: Path) -> None:
    names = [
        "metrics.jsonl",
        "metrics.1.jsonl",
        "metrics.10.jsonl",
        "metrics.2.jsonl",
        "metrics.01.jsonl",
        "metrics.x.jsonl",
        "other.jsonl",
    ]
    for name in names:
        (tmp_path / name).write_bytes(b"")
    assert [f.name for f in log_files(tmp_path)] == ["metrics.10.jsonl", "metrics.2.jsonl", "metrics.1.jsonl", "metrics.jsonl"]


# --- a disk that fails --------------------------------------------------------------------------------------------
class Disk(io.BytesIO):
    """A file that takes `room` bytes and then is full."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def write(self, data: Any) -> int:
        if self.room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = min(self.room, len(data))
        self.room -= taken
        return super().write(data[:taken])


def test_a_full_disk_loses_records_counts_them_and_the_log_says_so_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "metrics.jsonl"
    writer = JsonlWriter(path)
    writer.write("before", {})
    _until_handled(writer, 1)
    full = threading.Event()
    full.set()
    real = JsonlWriter._put

    def put(self: JsonlWriter, line: bytes) -> None:
        if full.is_set():
            if self._file is not None and line != b"\n":
                self._file.write(line[: len(line) // 2])  # half a line fitted
            raise OSError(errno.ENOSPC, "No space left on device")
        real(self, line)

    monkeypatch.setattr(JsonlWriter, "_put", put)
    for _ in range(3):
        writer.write("during", {})
    _until_handled(writer, 4)
    full.clear()
    writer.write("after", {})
    writer.close()
    found = read_log(path)
    assert [r.kind for r in found.records] == ["before", "lost", "after"]
    assert found.records[1].data == {"num_records": 3}
    assert (writer.num_written, writer.num_lost) == (2, 3)
    assert found.num_damaged >= 1 and found.num_torn == 0


def test_a_line_that_only_half_fits_is_lost_not_half_a_record(tmp_path: Path) -> None:
    writer = JsonlWriter(tmp_path / "metrics.jsonl")
    writer._file = Disk(room=20)  # type: ignore[assignment]
    writer.write("half", {"x": "y" * 100})
    writer.close()
    assert (writer.num_written, writer.num_lost) == (0, 1)


def test_a_disk_that_hangs_blocks_neither_writes_nor_close(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    released, hanging = threading.Event(), threading.Event()

    def hang(self: JsonlWriter, line: bytes) -> None:
        hanging.set()
        released.wait(60)

    writer = JsonlWriter(tmp_path / "metrics.jsonl", queue_records=8)
    monkeypatch.setattr(JsonlWriter, "_put", hang)
    writer.write("first", {})
    assert hanging.wait(120)
    for _ in range(100):
        writer.write("more", {})
    assert writer.num_lost == 92
    writer.close(timeout_s=0.05)
    writer.write("late", {})
    assert writer.num_lost == 93
    released.set()


def test_a_record_that_cannot_be_encoded_or_is_too_long_costs_only_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Hostile:
        def __str__(self) -> str:
            raise RuntimeError("no")

    monkeypatch.setattr(jsonl_writer, "MAX_RECORD_BYTES", 1000)
    writer = JsonlWriter(tmp_path / "metrics.jsonl")
    writer.write("hostile", {"x": Hostile()})
    writer.write("long", {"x": "y" * 1000})
    writer.write("fine", {})
    writer.close()
    assert [r.kind for r in read_log(tmp_path).records] == ["lost", "fine"]
    assert writer.num_lost == 2


def test_appending_to_a_torn_log_starts_on_a_new_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(encode(LogRecord("old", {})) + b'{"schema":1,"kin')
    writer = JsonlWriter(path)
    writer.write("new", {})
    writer.close()
    found = read_log(path)
    assert [r.kind for r in found.records] == ["old", "new"] and found.num_damaged == 1


def test_a_folder_that_cannot_be_written_is_said_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="--metrics-dir"):
        JsonlWriter(tmp_path / "file" / "metrics.jsonl")


def test_rotation_that_fails_loses_records_but_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "metrics.jsonl"
    rotated(path, 1).mkdir()  # a folder where the rotated file should go
    (rotated(path, 1) / "x").write_text("")
    writer = JsonlWriter(path, max_file_bytes=300, num_old_files=1)
    for _ in range(20):
        writer.write("x", {})
    writer.close()
    assert writer.num_written + writer.num_lost == 20 and writer.num_lost > 0


def _until_handled(writer: JsonlWriter, num: int) -> None:
    done = threading.Event()
    for _ in range(2000):
        if writer.num_written + writer.num_lost >= num:
            return
        done.wait(0.005)
    raise AssertionError(f"the writer handled {writer.num_written + writer.num_lost} of {num} records")


def test_a_log_has_one_writer_until_that_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    first = JsonlWriter(path)
    with pytest.raises(InvalidInput, match="written by another process"):
        JsonlWriter(path)
    first.write("kept", {})
    first.close()
    second = JsonlWriter(path)
    second.write("more", {})
    second.close()
    assert [record.kind for record in read_log(tmp_path).records] == ["kept", "more"]
