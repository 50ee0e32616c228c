"""The console with a cluster of its own: real processes, which must be gone however the console ends."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import psutil
import pytest

from tests.service.nursery import ON_EVERY_WORKER
from tests.tui.pty_console import PtyConsole

ARGS = ["--random-weights", "0", "--workers", "2", *ON_EVERY_WORKER, "--ascii"]


@pytest.fixture()
def console() -> Iterator[PtyConsole]:
    with PtyConsole(ARGS) as started:
        yield started


def processes(console: PtyConsole) -> list[psutil.Process]:
    """The coordinator and the workers, once the workers are on the screen."""
    console.wait_for("2/2")
    found = psutil.Process(console.pid).children(recursive=True)
    assert len(found) >= 3
    return found


def assert_gone(children: list[psutil.Process]) -> None:
    assert psutil.wait_procs(children, timeout=120)[1] == []


def test_the_first_screen_says_what_is_being_started(console: PtyConsole) -> None:
    console.wait_for("Starting a cluster on this machine")
    console.wait_for("RANDOM WEIGHTS")
    console.wait_for(lambda: any(word in "\n".join(console.screen.display) for word in ("starting", "measuring", "loading")))


def test_q_ends_the_processes(console: PtyConsole) -> None:
    children = processes(console)
    console.send("q")
    assert console.exit_code() == 0
    assert_gone(children)


def test_q_while_the_cluster_is_still_being_started(console: PtyConsole) -> None:
    console.wait_for(lambda: bool(psutil.Process(console.pid).children()) or "LIVE" in console.screen.display[0])
    children = psutil.Process(console.pid).children(recursive=True)
    console.send("q")
    assert console.exit_code() == 0
    assert_gone(children)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_signals_end_the_processes(console: PtyConsole, number: int) -> None:
    children = processes(console)
    os.kill(console.pid, number)
    assert console.exit_code() in (128 + number, -number)
    assert_gone(children)


def test_closing_the_terminal_ends_the_processes(console: PtyConsole) -> None:
    children = processes(console)
    console.hang_up()
    console.exit_code()
    assert_gone(children)


def test_a_coordinator_that_dies_is_a_state_and_r_starts_it_again(console: PtyConsole) -> None:
    children = processes(console)
    coordinator = next(child for child in children if "coordinator" in child.cmdline())
    coordinator.kill()
    console.wait_for("OFFLINE")
    console.wait_for("was killed by signal 9")
    assert "r = start it again" in console.text
    console.send("r")
    again = processes(console)
    console.wait_for(lambda: "was killed" not in "\n".join(console.screen.display))
    console.send("q")
    assert console.exit_code() == 0
    assert_gone([*children, *again])


def test_a_model_that_cannot_be_found_is_a_sentence() -> None:
    with PtyConsole(["--model", "/nowhere/at/all", "--workers", "1"]) as console:
        console.wait_for("'/nowhere/at/all' does not exist")
        assert "Traceback" not in console.text
        console.send("q")
        assert console.exit_code() == 0
