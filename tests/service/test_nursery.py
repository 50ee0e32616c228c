"""A forked process is what a new one would be: its parent, streams, folder, environment, signals and exit code."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.service.nursery import READ_BY_IMPORTS

ENGINE = (sys.executable, "-m", "engine")
COORDINATOR = (*ENGINE, "coordinator", "--model", "gpt2:tiny", "--random-weights", "0", "--listen", "127.0.0.1:0")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")


@contextlib.contextmanager
def started(command: Sequence[str], **changes: Any) -> Iterator[subprocess.Popen[str]]:
    """It ends with the block, however that ends."""
    with subprocess.Popen(command, **{"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True} | changes) as process:
        try:
            yield process
        finally:
            process.kill()


def is_forked(pid: int) -> bool:
    return "tests.service.ready_process" in psutil.Process(pid).cmdline()


def test_a_server_is_a_child_of_this_process_and_ends_as_it_would(tmp_path: Path) -> None:
    environment = {**os.environ, "NOODLE_RUN_DIR": str(tmp_path / "run")}
    with started(COORDINATOR, cwd=tmp_path, env=environment, start_new_session=True, stdin=subprocess.PIPE) as process:
        assert process.stdout is not None and json.loads(process.stdout.readline())["pid"] == process.pid
        found = psutil.Process(process.pid)
        assert is_forked(process.pid) and found.ppid() == os.getpid() and found.cwd() == str(tmp_path)
        assert os.getsid(process.pid) == process.pid and os.getsid(0) != process.pid
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    with started(COORDINATOR) as process:
        assert process.stdout is not None and process.stdout.readline() and is_forked(process.pid)
        process.kill()
        assert process.wait(60) == -signal.SIGKILL


def test_the_workers_of_up_are_its_children() -> None:
    command = [*ENGINE, "up", "--model", "gpt2:tiny", "--random-weights", "0", "--workers", "1", "--json"]
    with started(command) as process:
        assert process.stdout is not None
        pids = json.loads(process.stdout.readline())["pids"]
        parents = {psutil.Process(pid).ppid() for pid in pids.values() if is_forked(pid)}
        process.terminate()
        process.wait(60)
    assert len(pids) == 2 and parents == {process.pid}


@pytest.mark.parametrize(("words", "code"), [((), 2), (("status", "--connect", "here"), 2), (("status", "--help"), 0)])
def test_what_is_printed_and_the_exit_code_are_those_of_a_process_that_is_not_forked(words: tuple[str, ...], code: int) -> None:
    assert "PYTHONPATH".startswith(READ_BY_IMPORTS)  # so one with another value is not forked
    plain = {**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])}
    runs = [subprocess.run([*ENGINE, *words], capture_output=True, text=True, env=env, timeout=120, check=False) for env in (None, plain)]
    assert len({(done.returncode, done.stdout, done.stderr) for done in runs}) == 1 and runs[0].returncode == code
