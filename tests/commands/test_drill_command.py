"""`noodle-engine drill`: the same sums whoever runs the seeds, and exit code 1 with the seed when one fails."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from engine import cli
from engine.control.sessions.session import Session


def document(capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, object]:
    assert cli.main(["drill", *options, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found.pop("spent_s") > 0
    return dict(found)


def test_processes_share_the_seeds_and_the_sums_are_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    alone = document(capsys, "--seeds", "60", "--first", "7")
    assert alone == document(capsys, "--seeds", "60", "--first", "7", "--jobs", "2")
    assert alone["failures"] == [] and alone["seeds"] == 60 and 640 < alone["num_sessions"] <= 660, (
        "a session whose coordinator stays away is not begun"
    )


def test_a_seed_that_fails_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(Session, "rewind", lambda self: None)
    assert cli.main(["drill", "--seeds", "30"]) == 1
    out, err = capsys.readouterr()
    assert "10 failed" in out and err.count("seed ") == 10 and "seed 0 at" in err


def test_a_drill_that_is_stopped_leaves_what_it_has() -> None:
    command = [sys.executable, "-m", "engine", "drill", "--seeds", "500", "--jobs", "2", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None and process.stdout is not None
        first = process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        found, told = json.loads(process.stdout.read()), process.stderr.readlines()
    assert first == "drill: 10 %, 50 of 500 histories, 0 failed\n" and process.returncode == 130
    assert told[-1] == f"stopped: the figures are of the first {found['seeds']} of 500 seeds\n"
    assert found["stopped"] and 50 <= found["seeds"] < 500 and found["num_sessions"] > 5 * found["seeds"] and found["failures"] == []
