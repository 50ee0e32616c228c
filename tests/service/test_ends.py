"""SIGTERM ends every server at once, whatever it is doing, but a worker that can hand over a stage; what refuses a worker ends it before
the long part of its start.

The processes here stand still with the interpreter lock held for two minutes. They must be gone in a small part of that.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.service.holding import HOLD_S, Holding
from tests.service.nursery import ON_EVERY_WORKER, Nursery

MODEL = "llama:tiny"
SOON_S = HOLD_S / 12  # a second is promised; the machine of a test may be busy


@pytest.fixture(scope="module")
def address(nursery: Nursery) -> str:
    """Of a coordinator that waits for its only worker."""
    arguments = ["--model", MODEL, "--random-weights", "0", "--workers", "1", "--listen", "127.0.0.1:0"]
    return str(nursery.start("coordinator", *arguments)[1]["address"])


def announced(process: subprocess.Popen[str]) -> dict[str, object]:
    assert process.stdout is not None
    return dict(json.loads(process.stdout.readline()))


def terminated(process: subprocess.Popen[str]) -> int:
    """Its exit code as a shell tells it."""
    process.terminate()
    try:
        code = process.wait(SOON_S)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return 128 - code if code < 0 else code


@pytest.mark.parametrize("at", ["import:torch", "open:.safetensors"])
def test_a_worker_that_holds_the_interpreter_lock_ends_at_once(address: str, tmp_path: Path, at: str) -> None:
    """While it imports torch, and while it reads the weights of its stage."""
    holding = Holding(tmp_path, at)
    worker = holding.start("worker", "--join", address, "--id", "w1", "--threads", "1", "--memory", "1G")
    announced(worker)
    holding.wait()
    assert terminated(worker) == 128 + signal.SIGTERM


def test_a_worker_that_waits_for_its_coordinator_ends_at_once(tmp_path: Path) -> None:
    """One that nobody listens for, one whose coordinator accepts the connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent_port = silent.getsockname()[1]
        with socket.create_server(("127.0.0.1", 0)) as nobody:
            ports = nobody.getsockname()[1], silent_port
        holding = Holding(tmp_path, "import:torch")
        for port in ports:
            worker = holding.start("worker", "--join", f"127.0.0.1:{port}", "--id", "w1")
            announced(worker)
            assert terminated(worker) == 128 + signal.SIGTERM


def test_a_coordinator_that_prepares_its_model_ends_at_once_and_its_helper_too(tmp_path: Path) -> None:
    holding = Holding(tmp_path, "import:torch")
    arguments = ["--model", MODEL, "--random-weights", "1", "--cache-dir", str(tmp_path), "--listen", "127.0.0.1:0"]
    coordinator = holding.start("coordinator", *arguments)
    announced(coordinator)
    holding.wait()
    (helper,) = psutil.Process(coordinator.pid).children()
    assert terminated(coordinator) in (0, 128 + signal.SIGTERM)
    assert not psutil.wait_procs([helper], timeout=SOON_S)[1]


def test_up_ends_at_once_while_its_workers_start(tmp_path: Path) -> None:
    holding = Holding(tmp_path, "import:torch")
    up = holding.start("up", "--model", MODEL, "--random-weights", "0", "--workers", "2", *ON_EVERY_WORKER, "--json")
    holding.wait()
    children = psutil.Process(up.pid).children(recursive=True)
    assert terminated(up) == 128 + signal.SIGTERM
    assert len(children) >= 3 and not psutil.wait_procs(children, timeout=SOON_S)[1]


def test_up_ends_at_once_before_its_coordinator_has_said_where_it_listens(tmp_path: Path) -> None:
    holding = Holding(tmp_path, "import:engine.service.coordinator.journal.journal")
    up = holding.start("up", "--model", MODEL, "--random-weights", "0", "--workers", "2", *ON_EVERY_WORKER, "--json")
    holding.wait()
    children = psutil.Process(up.pid).children(recursive=True)
    assert terminated(up) == 128 + signal.SIGTERM
    assert len(children) == 1 and not psutil.wait_procs(children, timeout=SOON_S)[1]
