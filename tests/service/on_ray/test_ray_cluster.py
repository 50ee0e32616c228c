"""`up --on ray` on a real Ray cluster of several nodes inside this machine: answers compared while nodes, actors and processes are lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from engine.commands.cluster.generate import Transcript, transcribe
from engine.data.generation import GenerateRequest
from engine.data.status import ClusterStatus, NodeState
from engine.service.client import Client
from tests.service.reference import reference

pytest.importorskip("ray", reason="Ray is not installed: pip install 'noodlecore[ray]'")

MODEL = "gpt2:tiny"
PROMPT = (1, 2, 3)
NUM_TOKENS = 400
DEADLINE_S = 240.0
QUICK_CHECKS = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 1000, "health_check_timeout_ms": 3000}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


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


def request(num_tokens: int = NUM_TOKENS) -> GenerateRequest:
    return GenerateRequest(prompt_ids=PROMPT, max_new_tokens=num_tokens, ignore_eos=True)


def ids(answer: Transcript) -> list[int]:
    return list(answer.document()["token_ids"])


async def with_an_answer_in_the_making(client: Client, event: Callable[[], None]) -> list[int]:
    """The tokens of an answer in whose middle something happens."""
    answer = asyncio.create_task(transcribe(client, request()))
    await seen(client, lambda status: any(s.num_generated > 3 for s in status.sessions), "the first tokens")
    await asyncio.to_thread(event)
    assert not answer.done()
    return ids(await answer)


def serves(status: ClusterStatus, num_workers: int) -> bool:
    return len({stage.worker_id for stage in status.stages}) == num_workers


def test_a_fixed_number_of_workers_outlives_processes_actors_and_nodes(machines: Machines) -> None:
    expected = reference(MODEL, PROMPT, NUM_TOKENS)
    with up(machines, "--workers", "3") as cluster:
        assert len({raylet(machines.node_of(pid)) for pid in cluster.worker_pids().values()}) == 3
        assert ids(cluster.run(lambda client: transcribe(client, request()))) == expected

        before = cluster.worker_pids()
        for how in (lambda: os.kill(before["w1"], signal.SIGKILL), lambda: machines.kill(machines.node_of(cluster.worker_pids()["w2"]))):
            former = cluster.worker_pids()
            assert cluster.run(lambda client, how=how: with_an_answer_in_the_making(client, how)) == expected
            cluster.run(lambda client: seen(client, lambda status: serves(status, 3), "three workers again"))
            assert sorted(cluster.worker_pids()) == ["w1", "w2", "w3"] and cluster.worker_pids() != former

        for how in (lambda: coordinator(machines).kill(), lambda: coordinator(machines).parent().kill()):
            former = coordinator(machines).pid
            assert cluster.run(lambda client, how=how: with_an_answer_in_the_making(client, how)) == expected
            cluster.run(lambda client: seen(client, lambda status: serves(status, 3), "three workers of the new coordinator"))
            assert coordinator(machines).pid != former


def coordinator(machines: Machines) -> psutil.Process:
    """Its process; the one above it is the keeper's actor."""
    return next(process for process in machines.processes() if process.cmdline()[3] == "coordinator")


def test_workers_follow_the_nodes_and_down_leaves_nothing(machines: Machines) -> None:
    expected = reference(MODEL, PROMPT, NUM_TOKENS)
    cluster = Up(machines, "--workers", "auto", "--adapt", "auto", "--detach", "--name", "second")
    try:
        assert cluster.process.wait(60) == 0
        num_nodes = len(machines.nodes)
        assert sorted(cluster.worker_pids()) == [f"w{i + 1}" for i in range(num_nodes)]
        added = machines.add()
        machines.nodes.append(added)
        cluster.run(lambda client: seen(client, lambda status: serves(status, num_nodes + 1), "layers on the new node"))
        newest = next(name for name, pid in cluster.worker_pids().items() if machines.node_of(pid) is added)
        assert cluster.run(lambda client: with_an_answer_in_the_making(client, lambda: machines.kill(added))) == expected
        lost = cluster.run(lambda client: seen(client, lambda status: serves(status, num_nodes), "a plan without the node"))
        assert [node.worker_id for node in lost.nodes if node.state is NodeState.LOST] == [newest]
        assert refused(machines, "up") == (2, "a cluster called second runs on this Ray already")
    finally:
        down = noodle("down", "--on", "ray", "--address", machines.address, "--name", "second")
        said, errors = down.communicate(timeout=120)
    assert (down.returncode, said) == (0, "second on Ray is down\n"), errors
    cluster.close()
    assert refused(machines, "down") == (1, "no cluster called second runs on this Ray")


def refused(machines: Machines, command: str) -> tuple[int, str]:
    """The exit code, and the sentence up to its remedy."""
    done = noodle(command, "--on", "ray", "--address", machines.address, "--name", "second")
    said = done.communicate(timeout=120)[1]
    assert said.count("\n") == 1 and "Traceback" not in said, said
    return done.returncode, said.removeprefix("noodle-engine: ").partition(":")[0]


def test_a_worker_that_cannot_start_and_a_shortage_are_told(machines: Machines) -> None:
    done = noodle("up", "--on", "ray", "--address", machines.address, "--model", MODEL, "--random-weights", "0", "--device", "cuda:99")
    said = done.communicate(timeout=120)[1]
    assert done.returncode == 1 and "cuda:99" in said and "ended with code 2" in said and "Traceback" not in said
    until(lambda: not machines.processes(), "no process to be left")

    large = noodle("up", "--on", "ray", "--address", machines.address, "--model", MODEL, "--random-weights", "0", "--resources", "CPU=64")
    assert large.stderr is not None
    timer = threading.Timer(DEADLINE_S, large.terminate)
    timer.start()
    assert any("room for 0 of 3 workers that take CPU=64 each" in line for line in large.stderr)
    timer.cancel()
    large.terminate()
    large.communicate(timeout=120)
    until(lambda: not machines.processes(), "no process to be left")


def test_where_there_is_no_ray_one_sentence_says_so() -> None:
    done = noodle("up", "--on", "ray", "--address", "127.0.0.1:1")
    said = done.communicate(timeout=120)[1]
    assert done.returncode == 1 and "there is no Ray cluster: nobody answers at 127.0.0.1:1" in said and said.count("\n") == 1
