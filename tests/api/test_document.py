"""The OpenAPI document describes exactly what is accepted: schemathesis makes requests that it allows, and some that it does not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.conftest import Served, started


@pytest.fixture
def brief(folder: Path) -> Iterator[Served]:
    """Answers of four tokens where a request names no limit: what is judged is which requests are accepted, and there are hundreds."""
    process, found = started(folder, "--max-tokens", "4")
    yield found
    process.terminate()
    process.wait(60)


@pytest.mark.timeout(600)  # 1,500 requests, on a machine that may have other work
def test_what_the_document_allows_is_accepted_and_nothing_else(brief: Served) -> None:
    program = [str(Path(sys.executable).parent / "schemathesis"), "run", f"{brief.http}/openapi.json"]
    bounds = ["--max-examples", "10", "--phases", "coverage,fuzzing", "--seed", "1", "--request-timeout", "60", "--no-color"]
    done = subprocess.run(
        [*program, "--header", f"Authorization: Bearer {brief.key}", *bounds], capture_output=True, text=True, timeout=570
    )
    assert done.returncode == 0, done.stdout[-4000:]
