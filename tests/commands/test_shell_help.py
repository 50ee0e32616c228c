"""What a user gets who types a wrong word, asks for help, or presses Tab."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from engine import cli
from engine.commands.completion import SHELLS, completion_script
from engine.data.errors import InvalidInput


def said(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    code = cli.main(argv)
    return code, *capsys.readouterr()


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (("statsu",), "there is no command 'statsu': did you mean status?"),
        (("up", "--modle", "x"), "up does not take --modle x: did you mean --model?"),
        (("up", "--modle=x"), "up does not take --modle=x: did you mean --model?"),
        (("up", "gpt2"), "up does not take gpt2: did you mean --model gpt2?"),
        (("status", "gpt2"), "status does not take gpt2; see `noodle-engine status --help`"),
        (("coordinator", "--adapt", "atuo"), "--adapt cannot be 'atuo': did you mean auto?; it is one of off, suggest, auto"),
        (("qqqq",), "there is no command 'qqqq'; see `noodle-engine --help`"),
        (("completion", "fihs"), "did you mean fish?"),
        (("help", "statsu"), "did you mean status?"),
    ],
)
def test_a_wrong_word_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str], argv: tuple[str, ...], text: str) -> None:
    code, out, err = said(capsys, *argv)
    assert (code, out) == (2, "") and text in err and err.count("\n") == 1


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said(capsys, "--version")
    assert code == 0 and re.fullmatch(r"noodle-engine .*\(protocol \d+\)\n", out)


def test_help_is_in_groups_and_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said(capsys, "help")
    assert code == 0 and out == said(capsys, "--help")[1]
    for group, commands in cli.GROUPS.items():
        assert f"\n{group}:\n" in out and all(re.search(rf"^  {name} +\S", out, re.M) for name in commands)


def test_help_of_a_command_is_its_own_and_says_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said(capsys, "help", "worker")
    assert code == 0 and out == said(capsys, "worker", "--help")[1]
    assert "\nwhere a process listens, who may call it, and how it ends:\n" in out
    assert "(default 25)" in out and "%(" not in out


def test_every_value_that_stands_in_for_nothing_said_is_shown() -> None:
    """In the help of each option, whatever its text says."""
    for name, parser in cli.parsers()[1].items():
        for action in parser._actions:
            is_value = action.default not in (None, "", (), [], argparse.SUPPRESS) and not isinstance(action.default, bool)
            if action.option_strings and is_value and action.help != argparse.SUPPRESS:
                assert "default" in (action.help or ""), f"{name} {action.option_strings[0]}"


def completed(script: Path, *words: str) -> list[str]:
    """What bash offers for the last of `words`."""
    line = " ".join(f"'{word}'" for word in words)
    run = f"source {script}; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _noodle_engine; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    return subprocess.run(["bash", "-c", run], capture_output=True, text=True, check=True, cwd=script.parent).stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_commands_options_and_values(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    script = tmp_path / "completion"
    script.write_text(said(capsys, "completion", "bash")[1])
    assert completed(script, "noodle-engine", "sta") == ["status"]
    assert completed(script, "noodle-engine", "worker", "--drain") == ["--drain-seconds"]
    assert completed(script, "noodle-engine", "coordinator", "--adapt", "a") == ["auto"]
    assert completed(script, "noodle-engine", "cache", "") and "prune" in completed(script, "noodle-engine", "cache", "")
    assert completed(script, "noodle-engine", "report", "comp") == ["completion"], "a file"


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_names_every_command_and_parses_where_the_shell_is(shell: str, tmp_path: Path) -> None:
    text = completion_script(shell, "noodle-engine", cli.parsers()[1])
    assert all(re.search(rf"\b{name}\b", text) for name in cli.COMMANDS)
    if shutil.which(shell):
        (tmp_path / "script").write_text(text)
        subprocess.run([shell, "-n", str(tmp_path / "script")], check=True)


def test_an_unknown_shell_is_refused() -> None:
    with pytest.raises(InvalidInput, match="one of bash, zsh, fish"):
        cli._completion(["tcsh"])
