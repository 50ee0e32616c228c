"""Runs commands with one failing file operation, and judges what their user would have read."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

from tests.commands.faults.scenarios import Scenario, fill

SHIM, CHILD = Path(__file__).with_name("shim.c"), Path(__file__).with_name("child.py")
START_TIMEOUT_S = 180.0
# What a user must never read: Python's own words for a program that broke.
FORBIDDEN = re.compile(
    r"Traceback|Exception ignored|Logging error|internal error|never retrieved|was never awaited|^  File \"|\b\w+Error: |\b\w*Exception: ",
    re.MULTILINE,
)
OTHER_SENTENCES = re.compile(r'^{"error": "|^ERROR  ', re.MULTILINE)  # what one of our processes says to another, a finding of the doctor
ALLOWED_CODES = {0, 1, 2, 130}
TOLD_CODES = {130, 143, -2, -15}  # of a process that was interrupted or stopped
READING = (errno.EACCES, errno.EIO)
ERRORS: Mapping[str, tuple[int, ...]] = {
    "open": (errno.EACCES, errno.ENOENT, errno.EISDIR, errno.EMFILE, errno.EIO),
    "open-to-write": (errno.EACCES, errno.EROFS, errno.EISDIR, errno.EMFILE),
    "create": (errno.EACCES, errno.ENOSPC, errno.EROFS, errno.EMFILE, errno.EISDIR),
    "stat": (errno.EACCES, errno.ENOENT, errno.EIO),
    "list": (errno.EACCES, errno.EIO, errno.EMFILE),
    "mkdir": (errno.EACCES, errno.ENOSPC, errno.EROFS),
    "rename": (errno.EACCES, errno.ENOSPC, errno.EROFS),
    "unlink": (errno.EACCES, errno.EROFS),
    "read": (errno.EIO, errno.EISDIR),
    "write": (errno.ENOSPC, errno.EIO),
    "sync": (errno.EIO, errno.ENOSPC),
    "lock": (errno.EIO, errno.ENOLCK),
}
STAYS = (errno.ENOSPC, errno.EROFS)  # a full disk does not empty itself between two writes


@dataclass(frozen=True, slots=True)
class Operation:
    """One file operation of a command, as it was counted in a run without faults."""

    number: int
    kind: str
    path: str


@dataclass(frozen=True, slots=True)
class Fault:
    """The operation that fails, and how."""

    operation: Operation
    error: int

    def __str__(self) -> str:
        return (
            f"{self.operation.kind} of {self.operation.path} (operation {self.operation.number}) fails with {errno.errorcode[self.error]}"
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run: how it ended (ended, stopped, interrupted, hung), what was printed, and which operations failed, or ran."""

    code: int
    how: str
    num_left: int  # processes that the command started and that outlived it
    out: str
    err: str
    operations: tuple[Operation, ...]


class Harness:
    """One fork server and a folder in which every run has a new folder of its own."""

    def __init__(self, folder: Path, template: Path) -> None:
        self._folder, self._template, self._number = folder, template, 0
        shim = folder / "shim.so"
        subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", str(shim), str(SHIM), "-ldl"], check=True)
        environment = dict(os.environ) | {
            "LD_PRELOAD": str(shim),
            "HF_HUB_OFFLINE": "1",
            "GRPC_VERBOSITY": "NONE",
            "HF_HOME": str(folder / "hub"),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "NOODLE_TRACEBACK": "",
            "NOODLE_FORKS": str(folder / "forks"),
        }
        self._python = folder / "python"
        self._python.write_text(f"#!{sys.executable} -SE\n{CHILD.read_text()}")
        self._python.chmod(0o700)
        command = [sys.executable, "-m", "tests.commands.faults.server", str(shim), environment["NOODLE_FORKS"]]
        self._server = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._answer()

    def close(self) -> None:
        if self._server.stdin is not None:
            self._server.stdin.close()
        self._server.wait(30)

    def operations(self, scenario: Scenario) -> list[Operation]:
        """What the command does to files when nothing fails; the run itself has to be in order."""
        outcome = self.run(scenario)
        complaint = judged(outcome, scenario)
        is_well = outcome.how != "ended" or outcome.code in scenario.codes
        assert complaint is None and is_well, f"{scenario}: {complaint or outcome}"
        return list(outcome.operations)

    def fail(self, scenario: Scenario, fault: Fault) -> str | None:
        """What is wrong with how the command takes the fault; None if nothing is."""
        with self._sandbox() as folder:
            outcome = self._run(scenario, folder, fail_at=fault.operation.number, error=fault.error)
        complaint = judged(outcome, scenario, outcome.operations)
        if complaint is None:
            return None
        met = " and ".join(sorted({f"{o.kind} of {o.path}" for o in outcome.operations})) or "nothing"
        return f"{scenario}: {fault}: {complaint} (it met {met})\n{outcome.out[-600:]}{outcome.err[-2500:]}"

    def run(self, scenario: Scenario) -> Outcome:
        """The command without a fault of ours."""
        with self._sandbox() as folder:
            return self._run(scenario, folder)

    @contextlib.contextmanager
    def _sandbox(self) -> Iterator[Path]:
        self._number += 1
        folder = self._folder / f"run-{self._number}"
        shutil.copytree(self._template, folder)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _run(self, scenario: Scenario, folder: Path, fail_at: int = 0, error: int = 0) -> Outcome:
        out, err, log = (self._folder / f"{folder.name}.{name}" for name in ("out", "err", "log"))
        for path in (out, err, log):
            path.touch()
        order = {
            "program": scenario.program,
            "argv": [fill(word, folder) for word in scenario.argv],
            "folder": str(folder),
            "environment": {"HOME": str(folder / "home"), "NOODLE_CACHE": str(folder / "cache"), "TMPDIR": str(folder / "tmp")},
            "streams": [(fill(scenario.stdin, folder), os.O_RDONLY), (str(out), os.O_WRONLY), (str(err), os.O_WRONLY)],
            "until": scenario.until,
            "limit_s": scenario.limit_s,
            "fail_at": fail_at,
            "errno": error,
            "sticky": error in STAYS,
            "log": str(log),
            "python": str(self._python),
            "settings": scenario.settings,
        }
        if self._server.stdin is None:
            raise AssertionError("the pipe was asked for")
        print(json.dumps(order), file=self._server.stdin, flush=True)
        answer = self._answer()
        rows = [line.split(" ", 2) for line in log.read_text(errors="replace").splitlines()]
        operations = tuple(Operation(int(number), kind, os.path.relpath(path, folder)) for number, kind, path in rows)
        printed = out.read_text(errors="replace"), err.read_text(errors="replace")
        return Outcome(answer["code"], answer["how"], answer["left"], *printed, operations)

    def _answer(self) -> dict[str, Any]:
        if self._server.stdout is None:
            raise AssertionError("the pipe was asked for")
        line = self._server.stdout.readline()
        assert line, "the server that forks the commands is gone"
        answer: dict[str, Any] = json.loads(line)
        return answer


def every_fault(operations: Sequence[Operation]) -> list[Fault]:
    """Each operation with each error that it can have."""
    return [Fault(operation, error) for operation in operations for error in ERRORS[operation.kind]]


def one_fault_each(operations: Sequence[Operation], turns: dict[str, Iterator[int]]) -> list[Fault]:
    """Each operation with one of its errors, which take turns."""
    return [Fault(operation, next(turns[operation.kind])) for operation in operations]


class Sample:
    """Chooses a few faults of each command line: of each kind of operation the first and the last that no line of this command has had.

    A kind on one path is had once in a command, whatever its error. The errors of a kind take turns, over all commands.
    """

    def __init__(self, turns: dict[str, Iterator[int]]) -> None:
        self._turns, self._had = turns, set[tuple[str, str]]()

    def of(self, operations: Sequence[Operation], most: int) -> list[Fault]:
        """At most `most`."""
        new: dict[str, list[Operation]] = {}
        for operation in operations:
            key = operation.kind, _generic(operation.path)
            if key not in self._had:
                self._had.add(key)
                new.setdefault(operation.kind, []).append(operation)
        chosen = [operation for found in new.values() for operation in (found[:1] if len(found) == 1 else (found[0], found[-1]))]
        few = chosen[:: 1 + (len(chosen) - 1) // most] if chosen else []
        return [Fault(operation, next(self._turns[operation.kind])) for operation in few]


def turns() -> dict[str, Iterator[int]]:
    return {kind: cycle(errors) for kind, errors in ERRORS.items()}


def _generic(path: str) -> str:
    """A path without what is drawn by lot in it."""
    return re.sub(r"[0-9a-f]{8,}|tmp[a-z0-9_]{8}|noodle-[a-z0-9_]{8}|\d+", "*", path)


def judged(outcome: Outcome, scenario: Scenario, failed: Sequence[Operation] = ()) -> str | None:
    """What a user would complain about, after these operations failed."""
    printed = outcome.out + outcome.err
    if found := FORBIDDEN.search(printed):
        return f"prints {found[0]!r}"
    if outcome.how == "hung":
        return "does not end when it is told to"
    if outcome.num_left:
        return f"leaves {outcome.num_left} processes behind"
    if outcome.code not in (ALLOWED_CODES if outcome.how == "ended" else ALLOWED_CODES | TOLD_CODES):
        return f"ends with code {outcome.code}"
    if not failed or outcome.code in (0, 130) or outcome.how != "ended":
        return None
    words = [line for line in outcome.err.splitlines() if line.startswith(f"{scenario.program}: ")]
    if not words and not OTHER_SENTENCES.search(outcome.out):
        return "ends without a sentence"
    names = {name for operation in failed for name in _names(operation.path)}
    if outcome.code in scenario.codes or any(name in printed for name in names):
        return None  # it failed as it does without the fault, or says which file it is
    return f"does not name the file ({' or '.join(sorted(names))})"


def _names(path: str) -> set[str]:
    """What a message may call a file: by its name, by that of the file it is a draft or a journal of, or by its folder."""
    folder, name = os.path.split(path)
    draft = re.fullmatch(r"\.(.+)\.[0-9a-f]+\.partial", name)
    return {name, draft[1] if draft else name, re.sub(r"-(journal|wal|shm)$", "", name), os.path.basename(folder)} - {""}
