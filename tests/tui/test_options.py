"""The command line and the terminal checks: sentences and exit code 2, never a traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from engine.service.local_options import local_options
from engine.service.trust.options import AccessOptions
from noodle_tui.cluster.backoff import delay_s
from noodle_tui.options import Options, parse
from noodle_tui.terminal.streams import wants_ascii


def test_defaults_start_an_embedded_cluster() -> None:
    assert parse([]) == Options(cluster=local_options())


@pytest.mark.parametrize("argv", [["--connect", "h:1"], ["--replay=f", "--ascii"]])
def test_who_starts_no_cluster_does_not_wait_for_its_options(argv: list[str]) -> None:
    program = f"import sys, noodle_tui.app, noodle_tui.options as o; o.parse({argv}); print('engine.service.local_options' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "False\n"


def test_everything() -> None:
    argv = "--model m --workers 2 --random-weights 7 --ascii --theme mono --hz 2 --max-new-tokens 9 --temperature 0.5 --seed 3"
    assert parse(argv.split()) == Options(
        None,
        local_options(model="m", num_workers=2, random_weights=7),
        ascii=True,
        theme="mono",
        hz=2.0,
        max_new_tokens=9,
        temperature=0.5,
        seed=3,
    )


def test_what_is_shown_to_the_coordinator_does_not_start_a_cluster() -> None:
    argv = "--connect h:1 --tls --tls-ca ca.pem --tls-cert c.pem --tls-key c.key --token-file t"
    access = AccessOptions(token=None, tls=True, tls_ca=Path("ca.pem"), tls_cert=Path("c.pem"), tls_key=Path("c.key"), token_file=Path("t"))
    assert parse(argv.split()) == Options("h:1", access=access)


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--connect", "nowhere"], "HOST:PORT"),
        (["--connect", "h:99999"], "HOST:PORT"),
        (["--connect", "h:1", "--workers", "2"], "one or the other"),
        (["--workers", "0"], "at least 1"),
        (["--workers", "65"], "1 to 64"),
        (["--connect", "h:1", "--threads", "2"], "--threads starts a cluster of its own"),
        (["--replay", "f", "--dtype", "bfloat16"], "--replay shows a recording"),
        (["--workers", "many"], "whole number"),
        (["--random-weights", "-1"], "at least 0"),
        (["--hz", "60"], "0.2 to 4"),
        (["--hz", "nan"], "0.2 to 4"),
        (["--theme", "pink"], "noodle-dark, ansi, cvd-dark, cvd-light, mono, noodle-light"),
        (["--max-new-tokens", "0"], "max_new_tokens"),
        (["--temperature", "-1"], "temperature"),
        (["surprise"], "the console does not take surprise: did you mean --model surprise?"),
        (["--modle", "x"], "did you mean --model?"),
        (["--adapt", "atuo"], "--adapt cannot be 'atuo': did you mean auto?"),
    ],
)
def test_bad_usage_exits_2_and_says_why(argv: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(argv)
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1 and said.startswith("noodle-console: ")


def test_without_a_terminal_it_refuses_and_names_the_tool_for_scripts() -> None:
    run = subprocess.run([sys.executable, "-m", "noodle_tui"], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120)
    assert (run.returncode, run.stdout) == (2, "")
    assert "noodle-engine" in run.stderr


def test_help_needs_no_terminal() -> None:
    run = subprocess.run([sys.executable, "-m", "noodle_tui", "--help"], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0 and "--connect" in run.stdout


@pytest.mark.parametrize(
    ("environ", "encoding", "platform", "expected"),
    [
        ({"TERM": "xterm-256color"}, "utf-8", "posix", False),
        ({"TERM": "xterm-256color"}, "UTF8", "posix", False),
        ({"TERM": "xterm-256color"}, "cp1252", "posix", True),
        ({"TERM": "xterm-256color"}, None, "posix", True),
        ({"TERM": "linux"}, "utf-8", "posix", True),
        ({"TERM": "dumb"}, "utf-8", "posix", True),
        ({"NOODLE_ASCII": "1"}, "utf-8", "posix", True),
        ({"NOODLE_ASCII": "0", "TERM": "xterm"}, "utf-8", "posix", False),
        ({}, "utf-8", "nt", True),
        ({"WT_SESSION": "x"}, "utf-8", "nt", False),
    ],
)
def test_when_ascii_is_chosen(environ: dict[str, str], encoding: str | None, platform: str, expected: bool) -> None:
    assert wants_ascii(environ, encoding, platform) is expected


def test_backoff_grows_to_15_seconds_and_never_synchronises() -> None:
    assert [round(delay_s(n, 0.5), 9) for n in range(8)] == [1, 1, 2, 4, 8, 15, 15, 15]
    assert delay_s(3, 0.0) < delay_s(3, 0.99) <= 4 * 1.1


def test_importing_the_console_imports_neither_the_engine_nor_grpc() -> None:
    heavy = "('grpc', 'torch', 'transformers', 'protos', 'google')"
    # The nouns, the options and the diagnosis are loaded: they need the standard library alone.
    rooms = (
        "m.startswith('engine.') and not m.startswith(('engine.data', 'engine.options', 'engine.diagnosis')) and not m.endswith('options')"
    )
    code = f"import sys, noodle_tui.app; print([m for m in sys.modules if m.split('.')[0] in {heavy} or {rooms}])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    rest = ["engine.folders", "engine.files", "engine.printable", "engine.program", "engine.service", "engine.service.trust"]
    assert run.stdout.strip() == str(rest), run.stderr
