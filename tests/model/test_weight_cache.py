"""The weight cache: what becomes an entry, what is resumed, what is removed first, and what a full disk says."""

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import Any

import pytest

from engine.data.errors import Corrupt, Exhausted
from engine.model.weights import partial_entry
from engine.model.weights.manifest import TensorEntry
from engine.model.weights.weight_cache import ABANDONED_S, IN_USE_S, WeightCache


def entry(data: bytes, name: str = "t") -> TensorEntry:
    return TensorEntry(name, "U8", (len(data),), len(data), hashlib.sha256(data).digest())


def put(cache: WeightCache, data: bytes) -> TensorEntry:
    made = entry(data)
    partial = cache.begin(made)
    partial.append(data)
    partial.finish()
    return made


def files(cache: WeightCache) -> list[str]:
    return sorted(p.name for p in (cache.folder / "tensors").glob("??/*"))


def test_only_whole_and_right_bytes_become_an_entry(tmp_path: Path) -> None:
    cache = WeightCache(tmp_path)
    good = put(cache, b"0123456789")
    assert cache.has(good) and cache.is_whole(good) and cache.path(good.sha256).read_bytes() == b"0123456789"
    wanted = entry(b"abcdefghij")
    for data in (b"abcdefghiX", b"abcde"):
        partial = cache.begin(wanted)
        partial.append(data)
        with pytest.raises(Corrupt, match="another content"):
            partial.finish()
    partial = cache.begin(wanted)
    with pytest.raises(Corrupt, match="more than its 10 bytes"):
        partial.append(b"abcdefghijk")
    partial.discard()
    assert not cache.has(wanted) and files(cache) == [good.sha256.hex()]


def test_a_damaged_entry_is_found_and_removed(tmp_path: Path) -> None:
    cache = WeightCache(tmp_path)
    one, other = put(cache, b"0123456789"), put(cache, b"9876543210")
    cache.path(one.sha256).write_bytes(b"0123456780")
    cache.path(other.sha256).write_bytes(b"987")
    assert cache.has(one), "the size alone does not tell"
    assert not cache.is_whole(one) and not cache.has(one)
    assert not cache.has(other) and files(cache) == []


def test_a_fetch_goes_on_where_it_broke_even_for_another_process(tmp_path: Path) -> None:
    cache, wanted = WeightCache(tmp_path), entry(b"0123456789")
    partial = cache.begin(wanted)
    partial.append(b"0123")
    partial.close()
    again = cache.begin(wanted)
    assert again.num_bytes == again.resumed_bytes == 4
    again.close()
    program = f"""
import os
from pathlib import Path
from engine.model.weights.manifest import TensorEntry
from engine.model.weights.weight_cache import WeightCache
partial = WeightCache(Path({str(tmp_path / "other")!r})).begin(TensorEntry("t", "U8", (10,), 10, bytes.fromhex({wanted.sha256.hex()!r})))
partial.append(b"01234567")
os._exit(9)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 9
    taken = WeightCache(tmp_path / "other").begin(wanted)
    assert taken.num_bytes == 8
    taken.append(b"89")
    taken.finish()
    assert WeightCache(tmp_path / "other").is_whole(wanted) and len(files(WeightCache(tmp_path / "other"))) == 1


def test_what_a_living_process_writes_is_left_alone(tmp_path: Path) -> None:
    cache, wanted = WeightCache(tmp_path), entry(b"0123456789")
    target = cache.path(wanted.sha256)
    target.parent.mkdir(parents=True)
    own = cache.begin(wanted)
    host = own._path.name.removeprefix(target.name + ".").rpartition("-")[0]
    own.discard()
    alive = target.with_name(f"{target.name}.{host}-{os.getppid()}.partial")
    alive.write_bytes(b"01")
    partial = cache.begin(wanted)
    assert partial.num_bytes == 0 and alive.exists()
    partial.discard()


def _write(folder: Path, go: Any, data: bytes) -> None:
    go.wait()
    put(WeightCache(folder), data)


def test_several_processes_that_fetch_the_same_tensor_leave_one_whole_entry(tmp_path: Path) -> None:
    data = os.urandom(100_000)
    context = multiprocessing.get_context("fork")
    go = context.Event()
    writers = [context.Process(target=_write, args=(tmp_path, go, data)) for _ in range(4)]
    for writer in writers:
        writer.start()
    go.set()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    assert WeightCache(tmp_path).is_whole(entry(data)) and len(files(WeightCache(tmp_path))) == 1


def test_what_was_used_longest_ago_goes_first_and_what_is_wanted_or_in_use_stays(tmp_path: Path) -> None:
    now_s = 1_000_000.0
    cache = WeightCache(tmp_path, limit_bytes=40, clock=lambda: now_s)
    old, older, recent = put(cache, b"o" * 10), put(cache, b"O" * 10), put(cache, b"r" * 10)
    for made, age_s in ((old, IN_USE_S + 1), (older, IN_USE_S + 2), (recent, IN_USE_S - 1)):
        os.utime(cache.path(made.sha256), (now_s - age_s, now_s - age_s))
    cache.make_room([entry(b"n" * 20)])
    assert not cache.has(older) and cache.has(old) and cache.has(recent)
    cache.make_room([old, entry(b"n" * 30)])
    assert cache.has(old) and cache.has(recent), "what is in use stays even beyond the limit"
    WeightCache(tmp_path, limit_bytes=15, clock=lambda: now_s).make_room([recent])
    assert not cache.has(old) and cache.has(recent), "a lower limit holds from the next load on"
    with pytest.raises(Exhausted, match="needs 41 bytes of weights, --cache-limit allows 40"):
        cache.make_room([entry(b"n" * 41)])
    assert cache.size().num_entries == 1 and cache.size().num_bytes == 10


def test_what_nobody_goes_on_with_is_removed(tmp_path: Path) -> None:
    cache = WeightCache(tmp_path)
    put(cache, b"0123456789")
    left = cache.path(bytes(32)).with_name("00.another-host-1.partial")
    left.parent.mkdir(parents=True)
    left.write_bytes(b"x")
    cache.make_room([])
    assert left.exists()
    os.utime(left, (0, left.stat().st_mtime - ABANDONED_S - 1))
    cache.make_room([])
    assert not left.exists()


class _Full:
    """A file on a disk that takes three more bytes."""

    def __init__(self, path: Path, mode: str) -> None:
        self._file, self._room = FileIO(path, mode), 3

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, data: bytes) -> int:
        if not self._room:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = self._file.write(data[: self._room])
        self._room -= taken
        return taken


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = WeightCache(tmp_path)
    monkeypatch.setattr(partial_entry, "FileIO", _Full)
    partial = cache.begin(entry(b"0123456789"))
    with pytest.raises(Exhausted, match=r"the disk is full\): free some space, or choose another --cache-dir"):
        partial.append(b"0123456789")
    assert files(cache) == []
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 5})())
    with pytest.raises(Exhausted, match=r"10 bytes of weights are missing here, the disk of the weight cache .* has 5 free"):
        cache.make_room([entry(b"0123456789")])


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = WeightCache(tmp_path / "file" / "cache")
    actions: list[Callable[[], object]] = [
        lambda: cache.begin(entry(b"1")),
        lambda: cache.config_folder(b"{}"),
        lambda: cache.make_room([entry(b"1")]),
    ]
    for action in actions:
        with pytest.raises(Exhausted, match=str(cache.folder)):
            action()


def test_the_configuration_is_kept_by_content(tmp_path: Path) -> None:
    cache = WeightCache(tmp_path)
    folder = cache.config_folder(b'{"a": 1}')
    assert (folder / "config.json").read_bytes() == b'{"a": 1}'
    (folder / "config.json").write_text("damaged")
    assert cache.config_folder(b'{"a": 1}') == folder and (folder / "config.json").read_bytes() == b'{"a": 1}'
    assert cache.config_folder(b"{}") != folder
