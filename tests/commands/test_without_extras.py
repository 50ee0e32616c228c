"""An install without extras: workers and coordinators run, and whatever needs more says what to install."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

MISSING = ("textual", "rich", "prompt_toolkit", "plotly", "starlette", "uvicorn", "sse_starlette", "llguidance")
HIDE = f"""
import importlib.machinery
find = importlib.machinery.PathFinder.find_spec
def find_others(name, path=None, target=None):
    return None if name.partition(".")[0] in {MISSING!r} else find(name, path, target)
importlib.machinery.PathFinder.find_spec = staticmethod(find_others)
"""
NOBODY = "127.0.0.1:1"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of processes that do not find what extras bring."""
    folder = tmp_path_factory.mktemp("without")
    (folder / "sitecustomize.py").write_text(HIDE)
    return {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}


def run(environment: dict[str, str], *words: str, module: str = "engine") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *words], env=environment, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL
    )


@pytest.mark.timeout(600)
def test_a_cluster_serves(environment: dict[str, str]) -> None:
    up = subprocess.Popen(
        [sys.executable, "-m", "engine", "up", "--model", "llama:tiny", "--random-weights", "0", "--workers", "1", "--json"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert up.stdout is not None
        address = json.loads(up.stdout.readline())["address"]
        done = run(environment, "generate", "--prompt-ids", "1,2,3", "--max-new-tokens", "4", "--connect", address, "--json")
        assert done.returncode == 0 and len(json.loads(done.stdout)["token_ids"]) == 4
    finally:
        up.terminate()
        up.wait(60)


@pytest.mark.parametrize(
    ("module", "words", "extra"),
    [
        ("noodle_tui", (), "console"),
        ("engine", ("chat", "--connect", NOBODY), "console"),
        ("engine", ("serve", "--connect", NOBODY), "api"),
    ],
)
def test_what_needs_more_says_what_to_install(environment: dict[str, str], module: str, words: tuple[str, ...], extra: str) -> None:
    done = run(environment, *words, module=module)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert f"pip install 'noodlecore[{extra}]'" in done.stderr and "which is not installed" in done.stderr
