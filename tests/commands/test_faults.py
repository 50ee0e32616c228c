"""No traceback reaches a user: file operations that fail, states of a folder that cannot be used, text that is no UTF-8.

A sample of `python -m tests.commands.faults --all`, which tries everything: about 500 runs that compute for about a minute.
"""

from __future__ import annotations

import argparse
import errno
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine import cli
from engine.service.coordinator.journal.journal import Journal
from tests.commands.faults.harness import Fault, Harness, Sample, judged, turns
from tests.commands.faults.scenarios import ANY_PORT, NOBODY, SCENARIOS, Scenario, commands, make_template, required, scenarios

COMMANDS = scenarios()
TURNS = turns()


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harness]:
    folder = tmp_path_factory.mktemp("faults")
    template = make_template(folder / "template")
    for kind, make in WRONG_FILES.items():
        make(template / f"wrong-{kind}")
    found = Harness(folder, template)
    yield found
    found.close()


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.timeout(600)
def test_a_file_operation_that_fails_is_one_sentence(harness: Harness, command: str) -> None:
    complaints: list[str | None] = []
    sample = Sample(TURNS)
    for scenario in COMMANDS[command]:
        complaints += [harness.fail(scenario, fault) for fault in sample.of(harness.operations(scenario), scenario.most_faults)]
    assert not [c for c in complaints if c], "\n".join(c for c in complaints if c)


def test_the_harness_sees_what_commands_do(harness: Harness) -> None:
    """A fault that no code can take shows that operations are counted, and that the one that was chosen fails."""
    scenario = Scenario(("report", "profile.json", "--format", "csv"))
    kinds = {(operation.kind, operation.path) for operation in harness.operations(scenario)}
    assert {("open", "profile.json"), ("read", "profile.json")} <= kinds and "rename" in {kind for kind, _ in kinds}
    reading = next(operation for operation in harness.operations(scenario) if operation.kind == "read")
    assert harness.fail(scenario, Fault(reading, errno.EIO)) is None
    silent = Scenario(("report", "profile.json", "--format", "csv"), codes=frozenset({7}), program="noodle-nothing")
    assert judged(harness.run(scenario), silent, [reading]) is None  # it ended well


def test_what_a_command_starts_is_under_the_harness_too(harness: Harness) -> None:
    """`up` itself touches no file: its coordinator and its worker do, and what they meet is told by `up`."""
    (scenario,) = COMMANDS["up"]
    operations = harness.operations(scenario)
    folders = {operation.path.partition("/")[0] for operation in operations}
    assert {"state", "run", "model"} <= folders
    journal = next(o for o in operations if o.kind == "create" and o.path == "state/journal.sqlite3")
    assert harness.fail(scenario, Fault(journal, errno.EROFS)) is None
    layer = next(o for o in reversed(operations) if o.kind == "read" and o.path.endswith(".safetensors"))  # by the worker
    assert harness.fail(scenario, Fault(layer, errno.EIO)) is None


# --- what a user types ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("command", [*commands(), "console"])
def test_an_argument_that_is_no_utf8_is_refused(harness: Harness, command: str) -> None:
    program, first = ("noodle-console", []) if command == "console" else ("noodle-engine", [command])
    for argv in ([*first, "caf\udce9"], [*first, "--connect", "caf\udce9:1"]):
        outcome = harness.run(Scenario(tuple(argv), program))
        assert outcome.code == 2 and "is not UTF-8 text: byte 0xe9" in outcome.err and judged(outcome, Scenario((), program)) is None


def test_a_prompt_that_is_no_utf8_is_refused(harness: Harness, tmp_path: Path) -> None:
    prompt = tmp_path / "latin1"
    prompt.write_bytes(b"caf\xe9 au lait\n")
    outcome = harness.run(Scenario(("generate", "-", "--connect", NOBODY), stdin=str(prompt)))
    assert outcome.code == 2 and "standard input, a prompt, is not UTF-8 text (byte 3 is 0xe9)" in outcome.err, outcome


WRONG_FILES: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: None,
    "folder": lambda path: path.mkdir(),
    "empty": lambda path: path.write_bytes(b""),
    "not UTF-8": lambda path: path.write_bytes(b"caf\xe9\n"),
    "zeros": lambda path: path.write_bytes(bytes(64)),
    "deep": lambda path: path.write_text("[" * 100_000),
    "object": lambda path: path.write_text('{"a": [1, null, {"b": NaN}]}'),
}


BESIDE = {
    "coordinator --tls-key": "--tls-cert ca.pem",
    "coordinator --tls-cert": "--tls-key ca.pem",
    "profile --out": "model --quick",
    "simulate --plan": "--item-ms 1,1,1,1,1,1",
    "simulate --trace": "--item-ms 1,1,1,1,1,1",
    "simulate --gantt": "--item-ms 1,1,1,1,1,1",
    "plan --hardware": "--profile profile.json",
    "plan --profile": "--hardware good.json",
    "plan --write-problem": "--problem problem.json",
    "plan --current": "--problem problem.json",
    "serve --keys": "--http 0",
    "serve --http-cert": "--http 0 --http-key ca.pem",
    "serve --http-key": "--http 0 --http-cert ca.pem",
    "generate --json-schema": "prompt",
}


def _path_options() -> dict[str, tuple[str, ...]]:
    """Of each option that takes a path one command line, up to the path, that comes so far as to use it."""
    found: dict[str, tuple[str, ...]] = {}
    for name, parser in sorted(commands().items(), key=lambda found: found[0] in ("up", "down")):  # they use the commands before them
        for action in parser._actions:
            if action.type is Path and action.option_strings:
                listen = ("--listen", ANY_PORT) if any("--listen" in a.option_strings for a in parser._actions) else ()
                beside = BESIDE.get(f"{name} {action.option_strings[-1]}", "").split()
                found.setdefault(action.dest, (name, *required(parser), *listen, *beside, action.option_strings[-1]))
    return found


@pytest.mark.parametrize("kind", WRONG_FILES)
@pytest.mark.timeout(600)
def test_a_path_to_the_wrong_thing_is_one_sentence(harness: Harness, kind: str) -> None:
    wrong = f"wrong-{kind}"
    for option, argv in _path_options().items():
        words = (*argv, wrong) if argv[-1] != "--compare" else (*argv, wrong, wrong)
        scenario = Scenario(
            words, until='"address"|cannot reach', limit_s=40.0 if argv[-1] == "--out" else 2.0
        )  # it is used once the model is loaded
        outcome = harness.run(scenario)
        used = [operation for operation in outcome.operations if wrong in operation.path]
        assert judged(outcome, scenario, used) is None, f"{scenario}: {judged(outcome, scenario, used)} {outcome}"
        assert used or option == "cache_dir", f"{scenario}: the path was never used {outcome}"


# --- states of a state directory ----------------------------------------------------------------------------------------
def _journal(folder: Path, *statements: str) -> None:
    """A good journal, then changed."""
    journal = Journal(folder / "journal.sqlite3")
    journal.close()
    database = sqlite3.connect(folder / "journal.sqlite3")
    for statement in statements:
        database.execute(statement)
    database.commit()
    database.close()


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder / "journal.sqlite3"


def _damage(folder: Path) -> int:
    _journal(folder)
    path = folder / "journal.sqlite3"
    content = bytearray(path.read_bytes())
    content[100:] = b"\xa5" * (len(content) - 100)
    return path.write_bytes(content)


_SESSION = "INSERT INTO sessions VALUES ('s-1', {wall}, '{ids}', '{request}', NULL, NULL, '{used}')"
_REQUEST = '{"prompt": "x", "prompt_ids": [], "max_new_tokens": 4, "sampling": {}, "stop": [], "ignore_eos": false}'
STATES: dict[str, Callable[[Path], object]] = {
    "a file in place of the folder": lambda folder: folder.write_text(""),
    "a folder in place of the journal": lambda folder: (folder / "journal.sqlite3").mkdir(parents=True),
    "a folder in place of the lock": lambda folder: (folder / "journal.lock").mkdir(parents=True),
    "text": lambda folder: _made(folder).write_text("hello, I am no database\n" * 50),
    "damaged pages": lambda folder: _damage(folder),
    "another program's": lambda folder: sqlite3.connect(_made(folder)).execute("CREATE TABLE t (a)"),
    "another version's": lambda folder: _journal(folder, "PRAGMA user_version = 1"),
    "a table without a column": lambda folder: _journal(folder, "ALTER TABLE plans RENAME COLUMN plan TO plans"),
    "an incarnation that is no number": lambda folder: _journal(folder, "UPDATE facts SET value = 'x' WHERE name = 'incarnation'"),
    "a mode that is none": lambda folder: _journal(
        folder, "INSERT INTO facts VALUES ('adaptation_mode', 'x')", "INSERT INTO facts VALUES ('adaptation_wanted', 'off')"
    ),
    "drained nodes that are numbers": lambda folder: _journal(folder, "INSERT INTO facts VALUES ('drained', '[1]')"),
    "an acknowledgement that is no number": lambda folder: _journal(folder, "INSERT INTO facts VALUES ('acknowledged', 'x')"),
    "a plan that is no JSON": lambda folder: _journal(folder, "INSERT INTO plans VALUES (1, 1.0, '{')"),
    "a plan of other fields": lambda folder: _journal(folder, "INSERT INTO plans VALUES (1, 1.0, '{\"stages\": 3}')"),
    "an event of no severity": lambda folder: _journal(folder, "INSERT INTO events VALUES (1, 1.0, 'x', 'a', 'b', 'c', 'd')"),
    "an ending that is a list": lambda folder: _journal(folder, "INSERT INTO endings VALUES (1, 's-1', 'done', '[]')"),
    "a link to nowhere": lambda folder: folder.symlink_to("/nowhere/at/all"),
}


# Where several checks would refuse a state, the one that says what it is comes first.
SAID = {
    "a folder in place of the journal": "this is a folder, name a file",
    "text": "is damaged, or no journal",
    "damaged pages": "is damaged",
    "another program's": "is the database of another program",
    "another version's": "was written by another version (1, not 3)",
    "a mode that is none": "is damaged",
    "an event of no severity": "is damaged",
}


@pytest.mark.parametrize("state", STATES)
def test_a_state_directory_that_cannot_be_used_is_one_sentence(harness: Harness, tmp_path: Path, state: str) -> None:
    folder = tmp_path / "kept"
    STATES[state](folder)
    scenario = Scenario(("coordinator", "--model", "model", "--listen", ANY_PORT, "--state-dir", str(folder)), until='"address"')
    outcome = harness.run(scenario)
    assert (outcome.how, judged(outcome, scenario)) == ("ended", None), outcome
    assert outcome.code in (1, 2) and str(folder) in outcome.err and outcome.err.count("\n") == 1, outcome
    assert SAID.get(state, "") in outcome.err, outcome
    assert outcome.err.startswith("noodle-engine: ") and ("choose another" in outcome.err or "name a" in outcome.err), outcome.err


def test_a_good_state_directory_is_taken(harness: Harness, tmp_path: Path) -> None:
    _journal(tmp_path / "kept", _SESSION.format(wall=1.0, ids="[1]", request=_REQUEST, used='{"sampling": {}}'))
    argv = ("coordinator", "--model", "model", "--listen", ANY_PORT, "--state-dir", str(tmp_path / "kept"))
    outcome = harness.run(Scenario(argv, until='"address"'))
    assert (outcome.how, outcome.code) == ("stopped", 0), outcome


def test_every_command_has_a_way_to_be_run() -> None:
    """Of those that only connect a command line is derived; one that works with files of its own says how."""
    assert set(COMMANDS) == {*cli.COMMANDS, "console"} and set(SCENARIOS) <= set(cli.COMMANDS)
    only_connect = {name for name, parser in commands().items() if any("--connect" in a.option_strings for a in parser._actions)}
    assert set(cli.COMMANDS) - set(SCENARIOS) <= only_connect
    for name, parser in commands().items():
        assert isinstance(parser, argparse.ArgumentParser) and required(parser) is not None, name
