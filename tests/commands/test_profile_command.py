"""`noodle-engine profile`: files, exit codes, output for people and scripts, comparison of two profiles."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine import cli
from engine.commands.machine import profile as command
from engine.commands.progress import progress_bar, progress_lines
from engine.profile.profile import Profile
from tests.planning.test_profile import HOSTILE, profile


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Profile:
    """A finished profile instead of half a minute of measuring."""
    document = profile()
    monkeypatch.setattr(command, "take_profile", lambda *_, **__: document)
    return document


def test_a_real_model_is_profiled_and_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("engine.model.profiling.profiler.QUICK_BUDGET_S", 1.0)
    out = tmp_path / "out"
    arguments = ["profile", "gpt2:tiny", "--random-weights", "0", "--quick", "--threads", "1", "--cache-dir", str(tmp_path), "--json"]
    assert cli.main([*arguments, "--out", str(out)]) == 0
    captured = capsys.readouterr()
    printed = json.loads(captured.out)
    assert "\r" not in captured.err, "no progress bar where nobody looks"
    written = json.loads((out / "profile.json").read_text())
    assert [len(written["layers"]), len(written["items"])] == [16, 6]
    assert {"overhead", "coverage", "environment", "cost_model"} <= set(written)
    assert {name: printed[name] for name in written} == written
    assert set(printed["bottlenecks"]) == {"prefill", "decode"}
    assert sorted(path.name for path in out.iterdir()) == ["dashboard.html", "profile.csv", "profile.json", "profile.jsonl"]
    assert printed["files"]["profile.json"] == str(out / "profile.json")


def test_the_summary_names_the_bottleneck_and_its_share(made: Profile, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["profile", "gpt2", "--random-weights", "0", "--out", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "decode ctx 128: the bottleneck is lm_head (head) with 40.0 % of the step; memory-bound: because" in text
    assert "hooks cost 1.0 +- 0.2 % (layer depth); items cover 100.0 %" in text
    assert "\x1b" not in text and "\u2028" not in text, "names are data"
    assert max(len(line) for line in text.splitlines()) < 300
    assert Profile.from_json((tmp_path / "profile.json").read_text()).layers[2].name == HOSTILE


def test_without_out_the_folder_is_named_after_the_model(made: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["profile", "gpt2", "--random-weights", "0"]) == 0
    assert (tmp_path / "profile-gpt2" / "profile.json").is_file()


@pytest.mark.parametrize(
    ("label", "name"), [("org/my-model", "my-model"), ("../..", "model"), ("/a b\x1b[m/", "a-b-m"), ("", "model"), ("x" * 300, "x" * 64)]
)
def test_a_label_never_leaves_the_folder(label: str, name: str) -> None:
    assert command._file_name(label) == name


def test_files_appear_whole_or_not_at_all(made: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "profile.json").write_text("the earlier one")

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    assert cli.main(["profile", "gpt2", "--random-weights", "0", "--out", str(tmp_path)]) == 1
    assert (tmp_path / "profile.json").read_text() == "the earlier one"
    assert [path.name for path in tmp_path.iterdir()] == ["profile.json"]


def test_a_folder_that_cannot_be_is_an_error_not_a_traceback(made: Profile, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert cli.main(["profile", "gpt2", "--random-weights", "0", "--out", str(tmp_path / "file" / "x")]) == 2
    assert "a part of this path is a file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--depth", "all"], "--depth"),
        (["gpt2", "--random-weights", "-1"], "--random-weights"),
        (["gpt2:tiny"], "random weights only"),
        (["gpt2", "--random-weights", "0", "--device", "cuda:77"], "cuda:77"),
        (["nonesuch", "--random-weights", "0"], "nonesuch"),
        (["gpt2", "--compare", "a", "b"], "no model"),
        (["--compare", "a"], "--compare"),
    ],
)
def test_bad_usage_is_exit_code_2(arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["profile", *arguments, "--cache-dir", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_two_profiles_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads(profile().to_json())
    for step in document["steps"]:
        step["plain_p50_s"] = 0.04
    (tmp_path / "a.json").write_text(profile().to_json())
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "profile.json").write_text(json.dumps(document))
    pair = [str(tmp_path / "a.json"), str(tmp_path / "b")]
    assert cli.main(["profile", "--compare", *pair, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {row["ratio"] for row in found["steps"]} == {2.0} and {row["ratio"] for row in found["layers"]} == {1.0}
    assert cli.main(["profile", "--compare", *pair]) == 0
    text = capsys.readouterr().out
    assert "decode ctx 16 x4" in text and "2.00" in text and "\x1b" not in text


@pytest.mark.parametrize(("content", "code"), [(None, 1), ("{}", 1), ('{"schema_version": 9}', 2), ("\udcff", 2)])
def test_what_is_no_profile_cannot_be_compared(content: str | None, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.json"
    if content is not None:
        file.write_text(content, errors="surrogateescape")
    assert cli.main(["profile", "--compare", str(file), str(file)]) == code
    assert str(file) in capsys.readouterr().err or code == 2


def test_the_progress_bar_is_one_ascii_line_drawn_over_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    show = progress_bar()
    for done, text in ((0.0, "first\x1b[2J, which is long"), (0.0, "first\x1b[2J, which is long"), (-1.0, "unknown"), (0.5, "half")):
        show(done, text)
    lines = stream.getvalue().split("\r")[1:]
    assert len(lines) == 3, "the same picture is not drawn twice"
    assert stream.getvalue().isascii() and "\x1b" not in stream.getvalue() and "\n" not in stream.getvalue()
    assert " 50 %  half" in lines[-1] and len(lines[1]) >= len(lines[0]), "a shorter line covers the longer one"


def test_into_a_file_progress_is_a_line_for_every_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    show = progress_lines("profile")
    for done, text in (
        (-1.0, "reading"),
        (0.05, "a"),
        (0.1, "warm-up\n: x"),
        (0.19, "b"),
        (-1.0, "c"),
        (0.42, "d"),
        (1.0, "done"),
        (0.0, "next"),
        (0.11, "e"),
    ):
        show(done, text)
    assert capsys.readouterr().err.splitlines() == [
        "profile: 10 %, warm-up : x",
        "profile: 40 %, d",
        "profile: 100 %, done",
        "profile: 10 %, e",
    ]


def test_a_profile_that_is_stopped_leaves_what_it_has(tmp_path: Path) -> None:
    """A real process, ended as an operator does it, when its stderr says that more than half of the measuring is done."""
    named = ["gpt2:tiny", "--random-weights", "0", "--threads", "1", "--cache-dir", str(tmp_path / "cache"), "--out", str(tmp_path / "out")]
    command = [sys.executable, "-m", "engine", "profile", *named, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None and process.stdout is not None
        told = []
        for line in process.stderr:
            told.append(line)
            if (said := re.match(r"profile: (\d+) %, round", line)) and int(said[1]) >= 60:
                process.send_signal(signal.SIGTERM)
                break
        printed = json.loads(process.stdout.read())
        told += process.stderr.readlines()
    assert process.returncode == 130, told
    assert told[-1] == "stopped: the profile holds what was measured until then\n"
    kept = Profile.from_json((tmp_path / "out" / "profile.json").read_text())
    assert printed["overhead"] == kept.honesty.overhead and set(kept.phases) == {"prefill", "decode"} and kept.cost_model is not None
