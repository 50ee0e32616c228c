"""The guide "Running over several machines, safely" works as it stands: three hosts, certificates, console, and one that is revoked."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.service.guide import HOSTS, commands
from tests.service.hosts import why_not

REASON = why_not()


def test_the_guide_has_a_command_for_every_machine() -> None:
    assert {host for host, _ in commands()} == set(HOSTS) and len(commands()) == 11


@pytest.fixture(scope="module")
def seen() -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-m", "tests.service.guide"], capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.skipif(bool(REASON), reason=REASON)
def test_its_commands_bring_a_cluster_up_and_shut_a_stolen_laptop_out(seen: dict[str, Any]) -> None:
    assert seen["served"] == ["10.77.0.1:7070", "0.0.0.0:7071"]
    assert "gpu-a" in seen["status"] and seen["answer"].strip()
    assert "LIVE" in seen["console"] and "gpu-a" in seen["console"]
    assert (seen["after_code"], seen["after"].strip()) == (2, "noodle-engine: the certificate of ann was revoked")
