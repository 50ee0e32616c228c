"""Both programs with standard streams that are closed, full, or read by somebody who leaves: real processes, run by a shell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands.test_plan_sources import PROBLEM

ENGINE, CONSOLE = f"{sys.executable} -m engine", f"{sys.executable} -m noodle_tui"
PLAN = f"{ENGINE} plan --problem problem.json"


def sh(folder: Path, line: str) -> subprocess.CompletedProcess[str]:
    (folder / "problem.json").write_text(json.dumps(PROBLEM))
    environment = {**os.environ, "NOODLE_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(["bash", "-o", "pipefail", "-c", line], cwd=folder, env=environment, capture_output=True, text=True, timeout=150)


@pytest.mark.parametrize("line", [PLAN, f"{PLAN} --json", f"{ENGINE} --help", f"{ENGINE} report missing", f"{CONSOLE} --help"])
def test_a_reader_that_leaves_is_no_error_to_talk_about(tmp_path: Path, line: str) -> None:
    done = sh(tmp_path, f"({line}) 2>err | true; cat err >&2")
    assert done.stderr == "" or done.stderr.startswith("noodle-engine: missing does not exist"), done.stderr


@pytest.mark.parametrize("line", [PLAN, f"{PLAN} --json", f"{ENGINE} --help", f"{CONSOLE} --help"])
def test_a_full_disk_behind_standard_output_is_said(tmp_path: Path, line: str) -> None:
    done = sh(tmp_path, f"{line} >/dev/full")
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done
    assert "standard output cannot be used (No space left on device): free some space" in done.stderr


@pytest.mark.parametrize("streams", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(("line", "code"), [(PLAN, 0), (f"{ENGINE} generate - --connect 127.0.0.1:1", 1), (f"{CONSOLE} --headless", 2)])
def test_closed_streams_are_empty_and_swallow(tmp_path: Path, streams: str, line: str, code: int) -> None:
    done = sh(tmp_path, f"echo x | {{ {line} {streams}; }}" if "<&-" not in streams else f"{line} {streams}")
    assert "Traceback" not in done.stdout + done.stderr and "ignored" not in done.stderr, done
    assert done.returncode == code, done


def test_errors_behind_which_nobody_reads_change_no_exit_code(tmp_path: Path) -> None:
    assert sh(tmp_path, f"{ENGINE} report missing 2>/dev/full").returncode == 1
    assert sh(tmp_path, f"{ENGINE} nonsense 2>/dev/full").returncode == 2
