"""`noodle-engine report`: runs and profiles, every format, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine import cli
from tests.report.profiles import make_profile
from tests.report.runs import write_run


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    write_run(tmp_path / "run" / "metrics.jsonl", 30)
    return tmp_path / "run"


@pytest.fixture
def profile_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "profile"
    folder.mkdir()
    (folder / "profile.json").write_text(make_profile(12).to_json())
    return folder


def test_a_run_becomes_a_page_beside_its_log(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", str(run_dir)]) == 0
    said = capsys.readouterr()
    assert "w1     decode" in said.out and str(run_dir / "report.html") in said.err
    assert b"noodle-ab12" in (run_dir / "report.html").read_bytes()


def test_a_run_as_json_is_one_document(run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "page.html"
    assert cli.main(["report", str(run_dir / "metrics.jsonl"), "--json", "--out", str(out)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["path"] == str(out) and out.is_file()
    assert {s["worker_id"] for s in found["stages"]} == {"w1", "w2"} and [p["plan_version"] for p in found["plans"]] == [1, 2]


@pytest.mark.parametrize(
    ("kind", "name", "start"),
    [
        ("html", "dashboard.html", b"<!doctype html>"),
        ("csv", "profile.csv", b"kind,index,name,"),
        ("json", "profile.export.json", b"{"),
        ("jsonl", "profile.jsonl", b'{"schema":1,'),
        ("prometheus", "profile.prom", b"# HELP noodle_profile_info"),
    ],
)
def test_a_profile_in_every_format(profile_dir: Path, kind: str, name: str, start: bytes) -> None:
    assert cli.main(["report", str(profile_dir), "--format", kind]) == 0
    assert (profile_dir / name).read_bytes().startswith(start)
    assert sorted(p.name for p in profile_dir.iterdir()) == sorted({"profile.json", name})


def test_the_profile_is_not_overwritten_by_its_report(profile_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (profile_dir / "profile.json").read_bytes()
    assert cli.main(["report", str(profile_dir), "--format", "csv", "--out", str(profile_dir / "profile.json")]) == 2
    assert "--out" in capsys.readouterr().err and (profile_dir / "profile.json").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["missing"], 1, "does not exist"),
        (["."], 1, "no metrics log"),
        (["broken.json"], 1, "not a profile"),
        (["binary.json"], 2, "binary.json, a profile, is not UTF-8 text"),
    ],
)
def test_what_cannot_be_shown_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.json").write_text("{")
    Path("binary.json").write_bytes(b"\xff\xfe")
    assert cli.main(["report", *arguments]) == code
    assert said in capsys.readouterr().err


def test_a_run_has_no_spreadsheet(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", str(run_dir), "--format", "csv"]) == 2
    assert "--json" in capsys.readouterr().err


def test_a_page_that_cannot_be_written_says_so(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run_dir / "file").write_text("")
    assert cli.main(["report", str(run_dir), "--out", str(run_dir / "file" / "x.html")]) == 2
    assert "file/x.html cannot be used" in capsys.readouterr().err
