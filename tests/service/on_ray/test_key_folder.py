"""The key of a worker on Ray does not stay on the node when its actor is killed. Without Ray: an actor is a plain class."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.service.on_ray import key_folder
from engine.service.on_ray.worker_actor import WorkerActor

PROGRAM = """
import sys
from engine.service.on_ray.worker_actor import WorkerActor
actor = WorkerActor()
actor.request("w1")
print("made", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def elsewhere(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process, whose actor has made a key."""
    environment = {**os.environ, "TMPDIR": str(folder)}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "made\n"
        yield process
        process.kill()


def keys(folder: Path) -> list[Path]:
    return sorted(folder.rglob("node.key"))


def test_the_key_of_a_killed_actor_goes_with_the_next_one(folder: Path, elsewhere: subprocess.Popen[str]) -> None:
    (left,) = keys(folder)
    assert stat.S_IMODE(left.stat().st_mode) == 0o600 and stat.S_IMODE(left.parent.stat().st_mode) == 0o700
    elsewhere.send_signal(signal.SIGKILL)
    elsewhere.wait()
    actor = WorkerActor()
    actor.request("w2")
    (own,) = keys(folder)
    assert own.parent != left.parent
    actor.stop()
    assert [*folder.iterdir()] == []


def test_the_key_of_a_living_actor_stays(folder: Path, elsewhere: subprocess.Popen[str]) -> None:
    (other,) = keys(folder)
    actor = WorkerActor()
    actor.request("w2")
    actor.request("w2")  # begun again: a new key, and the old one is gone
    assert len(keys(folder)) == 2 and other in keys(folder)
    actor.stop()
    assert keys(folder) == [other]


def test_what_only_looks_like_one_is_left_alone(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A link that leads elsewhere, a file, a folder that somebody called so."""
    target = tmp_path_factory.mktemp("target")
    (target / "kept").touch()
    (folder / "noodle-worker-link").symlink_to(target)
    (folder / "noodle-worker-file").touch()
    (folder / "noodle-worker-notes").mkdir()
    key_folder.remove_abandoned()
    assert (target / "kept").exists() and len([*folder.iterdir()]) == 3
