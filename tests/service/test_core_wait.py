"""A process tells how long its threads waited for a core: on one core with another process that computes, about half of the time."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from engine.service import sensors
from engine.service.sensors import CoreWait

BUSY = "while True: pass"
READER = """
import time
from engine.service.sensors import CoreWait
wait, waited = CoreWait(), 0.0
while True:
    until_s = time.monotonic() + 0.5
    while time.monotonic() < until_s:
        pass
    print(wait.read(), flush=True)
"""


@pytest.mark.skipif(CoreWait().read() is None or not hasattr(os, "sched_setaffinity"), reason="this system does not tell it")
def test_a_thread_that_shares_its_core_waits_for_it() -> None:
    def on_one_core() -> None:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

    with subprocess.Popen([sys.executable, "-c", READER], stdout=subprocess.PIPE, text=True, preexec_fn=on_one_core) as reader:
        rivals = [subprocess.Popen([sys.executable, "-c", BUSY], preexec_fn=on_one_core) for _ in range(2)]
        try:
            assert reader.stdout is not None
            assert next(float(said) for said in reader.stdout if float(said) > 0.3) < 1.1, "one thread waits at most all the time"
        finally:
            for process in (reader, *rivals):
                process.kill()
                process.wait()


def test_a_thread_that_a_look_missed_is_not_counted_from_its_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter([{"1": 5.0, "2": 100.0}, {"1": 5.0}, {"1": 5.0, "2": 100.0, "3": 50.0}])
    monkeypatch.setattr(sensors, "_waited_s", lambda: next(looks))
    wait = CoreWait()
    assert [wait.read(), wait.read()] == [0.0, 0.0]
