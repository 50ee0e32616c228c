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
from pathlib import Path
from typing import Any

from tests.commands.faults.scenarios import Scenario, fill

SHIM = Path(__file__).with_name("shim.c")
START_TIMEOUT_S = 180.0
# What a user must never read: Python's own words for a program that broke.
FORBIDDEN = re.compile(
    r"Traceback|Exception ignored|Logging error|internal error|never retrieved|was never awaited|^  File \"|\b\w+Error: |\b\w*Exception: ",
    re.MULTILINE,
)
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
    """What came of a run: how it ended (ended, stopped, interrupted, hung), and what was printed."""

    code: int
    how: str
    spent_s: float
    out: str
    err: str


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
        }
        command = [sys.executable, "-m", "tests.commands.faults.server", str(shim)]
        self._server = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._answer()

    def close(self) -> None:
        if self._server.stdin is not None:
            self._server.stdin.close()
        self._server.wait(30)

    def operations(self, scenario: Scenario) -> list[Operation]:
        """What the command does to files when nothing fails; the run itself has to be in order."""
        with self._sandbox() as folder:
            log = folder.parent / f"{folder.name}.log"
            outcome = self._run(scenario, folder, log=str(log))
            complaint = judged(outcome, scenario)
            is_well = outcome.how != "ended" or outcome.code in scenario.codes
            assert complaint is None and is_well, f"{scenario}: {complaint or outcome}"
            rows = [line.split(" ", 2) for line in log.read_text(errors="replace").splitlines()]
            return [Operation(int(number), kind, os.path.relpath(path, folder)) for number, kind, path in rows]

    def fail(self, scenario: Scenario, fault: Fault) -> str | None:
        """What is wrong with how the command takes the fault; None if nothing is."""
        with self._sandbox() as folder:
            outcome = self._run(scenario, folder, fail_at=fault.operation.number, error=fault.error)
        complaint = judged(outcome, scenario, fault)
        return None if complaint is None else f"{scenario}: {fault}: {complaint}\n{outcome.out[-600:]}{outcome.err[-2500:]}"

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

    def _run(self, scenario: Scenario, folder: Path, fail_at: int = 0, error: int = 0, log: str = "") -> Outcome:
        out, err = (self._folder / f"{folder.name}.{name}" for name in ("out", "err"))
        out.touch()
        err.touch()
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
            "log": log,
        }
        if self._server.stdin is None:
            raise AssertionError("the pipe was asked for")
        print(json.dumps(order), file=self._server.stdin, flush=True)
        answer = self._answer()
        return Outcome(answer["code"], answer["how"], answer["spent_s"], out.read_text(errors="replace"), err.read_text(errors="replace"))

    def _answer(self) -> dict[str, Any]:
        if self._server.stdout is None:
            raise AssertionError("the pipe was asked for")
        line = self._server.stdout.readline()
        assert line, "the server that forks the commands is gone"
        answer: dict[str, Any] = json.loads(line)
        return answer


def faults(operations: Sequence[Operation], tried: set[tuple[str, str, int]], every: bool = False) -> list[Fault]:
    """What to let fail: the first and the last operation of each kind on each file, or every one.

    What stands in `tried`, by kind, file and error, is left out, and what is chosen is added to it: two ways to run a command share much.
    """
    ends: dict[tuple[str, str, int], list[Fault]] = {}
    for operation in operations:
        for error in ERRORS[operation.kind]:
            ends.setdefault((operation.kind, _generic(operation.path), error), []).append(Fault(operation, error))
    if every:
        return [fault for found in ends.values() for fault in found]
    new = {key: found for key, found in ends.items() if key not in tried}
    tried.update(new)
    return [fault for found in new.values() for fault in (found[:1] if len(found) == 1 else (found[0], found[-1]))]


def _generic(path: str) -> str:
    """A path without what is drawn by lot in it."""
    return re.sub(r"[0-9a-f]{8,}|tmp[a-z0-9_]{8}|noodle-[a-z0-9_]{8}|\d+", "*", path)


def judged(outcome: Outcome, scenario: Scenario, fault: Fault | None = None) -> str | None:
    """What a user would complain about."""
    printed = outcome.out + outcome.err
    if found := FORBIDDEN.search(printed):
        return f"prints {found[0]!r}"
    if outcome.how == "hung":
        return "does not end when it is told to"
    if outcome.code not in (ALLOWED_CODES if outcome.how == "ended" else ALLOWED_CODES | TOLD_CODES):
        return f"ends with code {outcome.code}"
    if fault is None or outcome.code in (0, 130) or outcome.how != "ended":
        return None
    words = [line for line in outcome.err.splitlines() if line.startswith(f"{scenario.program}: ")]
    if not words and '{"error": "' not in outcome.out:  # what one of our processes says to another
        return "ends without a sentence"
    names = _names(fault.operation.path)
    if outcome.code in scenario.codes or any(name in printed for name in names) or not fault.operation.path:
        return None  # it failed as it does without the fault, or says which file it is
    return f"does not name the file ({' or '.join(sorted(names))})"


def _names(path: str) -> set[str]:
    """What a message may call a file: by its name, by that of the file it is a draft or a journal of, or by its folder."""
    folder, name = os.path.split(path)
    draft = re.fullmatch(r"\.(.+)\.[0-9a-f]+\.partial", name)
    return {name, draft[1] if draft else name, re.sub(r"-(journal|wal|shm)$", "", name), os.path.basename(folder)} - {""}
