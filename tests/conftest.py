"""What every test shares: property tests judge answers, never the time that a busy machine took to make up an example."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.service.nursery import ready_children

if not Path("/dev/nvidia0").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # kernels run without a GPU then; it is read when triton is first imported

settings.register_profile("steady", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")

os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="noodle-state-")  # what the user of this machine keeps is no part of a test
atexit.register(shutil.rmtree, os.environ["XDG_STATE_HOME"], ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def _ready_children() -> Iterator[None]:
    """Clusters of the tests start in two seconds instead of twenty: one process has imported torch, and theirs are forked from it."""
    with ready_children():
        yield
