"""SIGTERM lets a worker hand over what it holds while sessions go on; real processes under load, answers compared."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest

from engine.commands.cluster.generate import transcribe
from engine.data.generation import GenerateRequest
from engine.data.status import NodeState
from engine.options.declared import words
from engine.service import local
from tests.service.running import Running, running

TINY = "llama:tiny"
PROMPTS = ((1, 2, 3), (7, 8), (5,) * 20, (9, 4, 2, 6))


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is busy with other tests may take long to start a process."""
    monkeypatch.setattr(local, "START_TIMEOUT_S", 120.0)


def requests(cluster: Running, num_tokens: int) -> list[GenerateRequest]:
    return [cluster.request(prompt, num_tokens, ignore_eos=True, temperature=0.8, seed=3) for prompt in PROMPTS]


def under_load(cluster: Running, num_tokens: int) -> list[Any]:
    """Answers in the making, each with some tokens already."""
    answers = [cluster.spawn(transcribe(cluster.client, request)) for request in requests(cluster, num_tokens)]
    cluster.until(lambda status: sum(s.num_generated > 3 for s in status.sessions) == len(PROMPTS), "tokens of all sessions")
    return answers


def tokens(answers: list[Any]) -> list[list[int]]:
    return [answer.result(120).document()["token_ids"] for answer in answers]


def exit_code(cluster: Running, pid: int) -> int:
    """Of a process of the cluster, once it has ended."""

    async def ended() -> int:
        return int(await next(c.process for c in cluster.cluster._children if c.process.pid == pid).wait())

    return cluster.wait(ended())


def restart(cluster: Running, worker_id: str) -> None:
    """As a service manager would."""
    options = cluster.cluster.worker_options(int(worker_id[1:]) - 1)
    cluster.wait(cluster.cluster._spawn(worker_id, ["worker", *words(options)]))


@pytest.mark.timeout(600)
def test_a_worker_that_is_told_to_end_hands_over_and_costs_nobody_a_pause() -> None:
    with running(TINY, 3) as cluster:
        expected = [cluster.generate(request).document()["token_ids"] for request in requests(cluster, 300)]
        answers, pid = under_load(cluster, 300), cluster.cluster.pids()["w2"]
        os.kill(pid, signal.SIGTERM)
        assert exit_code(cluster, pid) == 0
        assert tokens(answers) == expected
        cluster.until(lambda status: [s.worker_id for s in status.stages] == ["w1", "w3"], "a plan without it")
        said = "\n".join(cluster.events())
        assert "leaving: its items move to the other nodes" in said and "left, and held nothing any more" in said
        assert "interrupted" not in said and "lost" not in said and "sent again" not in said


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_worker_is_restarted_one_after_the_other_and_no_token_is_lost() -> None:
    """Under sessions that never end, since new ones follow those that do."""
    with running(TINY, 3) as cluster:
        expected = [cluster.generate(request).document()["token_ids"] for request in requests(cluster, 300)]
        is_over = asyncio.Event()

        async def asks(request: GenerateRequest) -> list[list[int]]:
            found = []
            while not is_over.is_set():
                found.append((await transcribe(cluster.client, request)).document()["token_ids"])
            return found

        load = [cluster.spawn(asks(request)) for request in requests(cluster, 300)]
        for worker_id in ("w1", "w2", "w3"):
            cluster.until(lambda status: sum(s.num_generated > 3 for s in status.sessions) >= 2, "sessions that run")
            pid = cluster.cluster.pids()[worker_id]
            os.kill(pid, signal.SIGTERM)
            assert exit_code(cluster, pid) == 0
            restart(cluster, worker_id)
            cluster.until(lambda status: len({s.worker_id for s in status.stages}) == 3, f"a plan with {worker_id} again")
        cluster._loop.call_soon_threadsafe(is_over.set)
        for asked, right in zip(load, expected, strict=True):
            answers = asked.result(120)
            assert answers and all(answer == right for answer in answers)
        said = "\n".join(cluster.events())
        assert said.count("left, and held nothing any more") == 3 and "interrupted" not in said and "lost" not in said


@pytest.mark.timeout(600)
def test_a_second_signal_ends_it_at_once() -> None:
    """The other worker is so slow that no step comes back and no move is carried out meanwhile."""
    with running(TINY, 2) as cluster:
        answers, pid = under_load(cluster, 2000), cluster.cluster.pids()["w2"]
        cluster.wait(cluster.client.set_slowdown("w1", 1000.0))
        os.kill(pid, signal.SIGTERM)
        cluster.until(lambda status: any(n.state is NodeState.DRAINING for n in status.nodes), "w2 to leave")
        os.kill(pid, signal.SIGTERM)
        assert exit_code(cluster, pid) == -signal.SIGTERM
        for answer in answers:
            answer.cancel()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("drain_s", [25, 0])
def test_where_nothing_can_be_handed_over_it_ends_at_once(drain_s: int) -> None:
    with running(TINY, 1, drain_s=drain_s) as cluster:
        pid = cluster.cluster.pids()["w1"]
        os.kill(pid, signal.SIGTERM)
        assert exit_code(cluster, pid) == -signal.SIGTERM
        cluster.until(lambda status: status.nodes[0].state is NodeState.LOST, "the loss")
        assert "left" not in "\n".join(cluster.events())
