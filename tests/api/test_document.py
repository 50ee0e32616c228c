"""The OpenAPI document describes exactly what is accepted: schemathesis makes requests that it allows, and some that it does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.api.conftest import Served


def test_what_the_document_allows_is_accepted_and_nothing_else(served: Served, tmp_path: Path) -> None:
    program = [str(Path(sys.executable).parent / "schemathesis"), "run", f"{served.http}/openapi.json"]
    bounds = ["--max-examples", "10", "--phases", "coverage,fuzzing", "--seed", "1", "--request-timeout", "60", "--no-color"]
    done = subprocess.run(
        [*program, "--header", f"Authorization: Bearer {served.key}", *bounds], capture_output=True, text=True, timeout=170
    )
    assert done.returncode == 0, done.stdout[-4000:]
