"""Real workers that share memory, whose steps are there only after their message, as on GPUs: killed, stopped, moved."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.commands.cluster.generate import transcribe
from engine.data.generation import GenerateRequest
from engine.data.sampling import SamplingRequest
from engine.service.client import Client
from tests.service.matrix import FEW, NUM_TOKENS, PROMPT, Matrix, expected, ids, moves_under_load, run_cases
from tests.service.nursery import Nursery

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no memory without a name")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Matrix]:
    nursery = Nursery()
    nursery.folder = Path(tmp_path_factory.mktemp("handover"))
    cluster = Matrix(nursery, prepare="tests.service.late_handover")
    cluster.start()
    yield cluster
    nursery.close()


def test_an_answer_survives_the_death_of_either_side(cluster: Matrix) -> None:
    cases = asyncio.run(run_cases(cluster, range(3, NUM_TOKENS, 29), ("w1", "w2", "w3")))
    assert [c for c in cases if not c.is_identical] == []


def test_steps_went_through_the_memory(cluster: Matrix) -> None:
    async def stages() -> list[str]:
        async with Client(cluster.address) as client:
            return [stage.worker_id for stage in (await cluster.ready(client)).stages]

    async def answer() -> list[int]:
        async with Client(cluster.address) as client:
            await cluster.ready(client)
            request = GenerateRequest(
                prompt_ids=PROMPT, max_new_tokens=NUM_TOKENS, sampling=SamplingRequest(logit_bias=FEW), ignore_eos=True
            )
            return ids(await transcribe(client, request))

    assert asyncio.run(answer()) == expected()
    for worker in asyncio.run(stages())[:-1]:
        assert "gave a step late" in cluster.nursery.log_of(cluster.pids[worker], "gave a step late", 30)


def test_layers_move_under_load(cluster: Matrix) -> None:
    async def work() -> None:
        async with Client(cluster.address) as client:
            await cluster.ready(client)
            reports = await moves_under_load(client, 4)
            assert [r for r in reports if r.outcome != "done"] == []
            assert (await client.status()).ended.num_failed == 0

    asyncio.run(work())


def test_a_worker_that_stands_still_while_its_numbers_are_waited_for_holds_up_nobody(cluster: Matrix) -> None:
    async def work() -> None:
        async with Client(cluster.address) as client:
            stopped = (await cluster.ready(client)).stages[0].worker_id

            def show(chunk: object) -> None:
                if getattr(chunk, "index", -1) == 20:
                    os.kill(cluster.pids[stopped], signal.SIGSTOP)

            request = GenerateRequest(
                prompt_ids=PROMPT, max_new_tokens=NUM_TOKENS, sampling=SamplingRequest(logit_bias=FEW), ignore_eos=True
            )
            transcript = await asyncio.wait_for(transcribe(client, request, show), 120)
            assert ids(transcript) == expected()

    asyncio.run(work())
