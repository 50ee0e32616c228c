"""`up --on ray` on a real Ray cluster of several nodes inside this machine: answers compared while nodes, actors and processes are lost."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable

import psutil
import pytest

from engine.commands.cluster.generate import Transcript, transcribe
from engine.data.generation import GenerateRequest
from engine.data.status import ClusterStatus, NodeState
from engine.service.client import Client
from tests.service.on_ray.machines import DEADLINE_S, MODEL, Machines, Up, noodle, raylet, seen, until, up
from tests.service.reference import reference

pytest.importorskip("ray", reason="Ray is not installed: pip install 'noodlecore[ray]'")

PROMPT = (1, 2, 3)
NUM_TOKENS = 400

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


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
