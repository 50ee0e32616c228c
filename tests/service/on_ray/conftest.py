"""One Ray cluster for the tests of a file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.on_ray.machines import Machines


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="noodle-") as name:
        folder = Path(name) / "run"
        patch.setenv("NOODLE_RUN_DIR", str(folder))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")  # else a machine that runs other tests keeps a new coordinator waiting for a minute
        found = Machines(folder)
        yield found
        found.cluster.shutdown()
