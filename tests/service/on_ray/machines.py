"""A real Ray cluster of several nodes inside this machine, and `up --on ray` on it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import psutil

from engine.data.status import ClusterStatus, NodeState
from engine.service.client import Client

MODEL = "gpt2:tiny"
DEADLINE_S = 240.0
QUICK_CHECKS = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 1000, "health_check_timeout_ms": 3000}


class Machines:
    """A Ray cluster: a head without room for workers, and nodes that have room for two each."""

    def __init__(self, folder: Path) -> None:
        from ray.cluster_utils import Cluster

        self.folder = folder
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "_system_config": QUICK_CHECKS})
        self.nodes = [self.add() for _ in range(3)]
        self.address = str(self.cluster.address)

    def add(self) -> Any:
        return self.cluster.add_node(num_cpus=2)

    def kill(self, node: Any) -> None:
        """As a machine that loses its power."""
        self.cluster.remove_node(node, allow_graceful=False)
        self.nodes = [other for other in self.nodes if other is not node]

    def node_of(self, pid: int) -> Any:
        """The node that a process of ours runs on."""
        above = {parent.pid for parent in psutil.Process(pid).parents()}
        return next(node for node in self.nodes if raylet(node) in above)

    def processes(self) -> list[psutil.Process]:
        """Coordinators and workers that run on it, whoever started them."""
        return [found for found in psutil.process_iter() if self._is_ours(found)]

    def _is_ours(self, found: psutil.Process) -> bool:
        with contextlib.suppress(psutil.Error):
            words = found.cmdline()
            is_server = words[1:3] == ["-m", "engine"] and words[3] in ("coordinator", "worker")
            return is_server and found.environ().get("NOODLE_RUN_DIR") == str(self.folder)
        return False


def raylet(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)


def noodle(*words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "engine", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


class Up:
    """The command, until it is interrupted."""

    def __init__(self, machines: Machines, *words: str) -> None:
        self.machines = machines
        model = ("--model", MODEL, "--random-weights", "0", "--threads", "1", "--strategy", "balanced")  # a stage on every worker
        self.process = noodle("up", "--on", "ray", "--address", machines.address, *model, "--json", *words)
        assert self.process.stdout is not None and self.process.stderr is not None
        timer = threading.Timer(DEADLINE_S, self.process.terminate)
        timer.start()
        line = self.process.stdout.readline()
        timer.cancel()
        assert line, self.process.communicate(timeout=120)[1]
        self.announced = json.loads(line)
        self.address = str(self.announced["address"])

    def run(self, work: Callable[[Client], Coroutine[Any, Any, Any]]) -> Any:
        """With a client that is let in by what `up` left, as every command is."""

        async def connected() -> Any:
            async with Client(self.address) as client:
                return await asyncio.wait_for(work(client), DEADLINE_S)

        return asyncio.run(connected())

    def worker_pids(self) -> dict[str, int]:
        status: ClusterStatus = self.run(lambda client: client.status())
        return {node.worker_id: node.pid for node in status.nodes if node.state is not NodeState.LOST}

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=120)
        until(lambda: not self.machines.processes(), "no process to be left")
        assert not self.machines.folder.exists() or [*self.machines.folder.iterdir()] == []


@contextlib.contextmanager
def up(machines: Machines, *words: str) -> Iterator[Up]:
    started = Up(machines, *words)
    try:
        yield started
    finally:
        started.close()


def until(condition: Callable[[], bool], what: str) -> None:
    started_s = time.monotonic()
    while not condition():
        assert time.monotonic() - started_s < DEADLINE_S, f"waited for {what}"
        time.sleep(0.1)


async def seen(client: Client, condition: Callable[[ClusterStatus], bool], what: str) -> ClusterStatus:
    """The first status of which it is true."""
    last: ClusterStatus | None = None
    try:
        async with asyncio.timeout(DEADLINE_S), contextlib.aclosing(statuses(client)) as found:
            async for last in found:
                if condition(last):
                    return last
    except TimeoutError:
        pass
    raise AssertionError(f"waited for {what}; last {last}")


async def statuses(client: Client) -> AsyncIterator[ClusterStatus]:
    """From one coordinator after the other."""
    while True:
        with contextlib.suppress(Exception):
            async with contextlib.aclosing(client.watch(min_interval_s=0.1)) as frames:
                async for frame in frames:
                    yield frame.status
        await asyncio.sleep(0.2)
