"""`cache`: what is kept is listed, what nobody used for long is removed, and what is in use is not."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from engine import cli

DAY_S = 86400.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A cache with something old and something new of each kind, and a cluster's token."""
    for name, days in (("old", 40.0), ("month", 20.0), ("now", 0.0)):
        at_s = time.time() - days * DAY_S
        (model := tmp_path / "random" / f"{name}.tiny").mkdir(parents=True)
        (model / "model.safetensors").write_bytes(bytes(1000))
        (tmp_path / "weights").mkdir(exist_ok=True)
        tensor = tmp_path / "weights" / name
        tensor.write_bytes(bytes(500))
        for path in (model / "model.safetensors", model, tensor):
            os.utime(path, (at_s, at_s))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "127.0.0.1_1.token").write_text("secret")
    os.utime(tmp_path / "run" / "127.0.0.1_1.token", (0, 0))
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], folder: Path, *words: str) -> dict[str, object]:
    assert cli.main(["cache", *words, "--json", "--cache-dir", str(folder)]) == 0
    return dict(json.loads(capsys.readouterr().out))


def test_what_is_kept_is_listed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = run(capsys, folder)
    assert [e["name"] for e in found["entries"]] == ["month.tiny", "now.tiny", "old.tiny", "month", "now", "old"]  # type: ignore[attr-defined]
    assert int(str(found["num_bytes"])) >= 3 * 1500
    assert cli.main(["cache", "--cache-dir", str(folder)]) == 0
    shown = capsys.readouterr()
    assert "40 days ago" in shown.out and "cache prune" in shown.err


@pytest.mark.parametrize(
    ("words", "left"), [((), ["month", "now"]), (("--older-than-days", "10"), ["now"]), (("--older-than-days", "0"), ["now"])]
)
def test_what_nobody_used_is_removed(folder: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], left: list[str]) -> None:
    """What was used a moment ago stays, even if everything is asked for."""
    run(capsys, folder, "prune", *words)
    assert sorted(path.name for path in (folder / "weights").iterdir()) == left
    assert sorted(path.name for path in (folder / "random").iterdir()) == [f"{name}.tiny" for name in left]
    assert (folder / "run" / "127.0.0.1_1.token").read_text() == "secret"


def test_an_empty_cache_is_no_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, tmp_path / "nothing")["num_bytes"] == 0 == run(capsys, tmp_path / "nothing", "prune")["num_bytes"]
