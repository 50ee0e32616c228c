"""A cluster in 8 bits: the tokens of one whole stage, alone and in company, through a kill and a live move. Real processes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import torch

from engine.commands.cluster.generate import transcribe
from engine.data.generation import GenerateRequest
from engine.data.plan import Stage
from engine.data.precision import Identity
from engine.data.status import Phase
from engine.model.running.stage import StageModel
from engine.service.client import Client
from tests.service.matrix import MODEL, NUM_ITEMS, PROMPTS, WORKERS, Matrix, ids, moved, until
from tests.service.nursery import Nursery
from tests.service.reference import folder_of

NUM_TOKENS = 40


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Matrix]:
    nursery = Nursery()
    nursery.folder = tmp_path
    cluster = Matrix(nursery, coordinator_arguments=("--dtype", "int8"))
    cluster.start()
    yield cluster
    for pid in list(cluster.pids.values()):
        nursery.kill(pid)
    nursery.close()


@cache
def expected(prompt: tuple[int, ...]) -> list[int]:
    """Greedy tokens of one whole stage that reads the prompt token by token."""
    stage = StageModel.load(folder_of(MODEL), 0, NUM_ITEMS, dtype="int8", kv_budget_bytes=2**24)
    stage.open("a", len(prompt) + NUM_TOKENS)
    for token in prompt:
        logits = stage.forward([("a", [token])], None)
    found = [int(logits[0].argmax())]
    while len(found) < NUM_TOKENS:
        found.append(int(stage.forward([("a", found[-1:])], None)[0].argmax()))
    return found


async def answers(client: Client) -> list[list[int]]:
    requests = [GenerateRequest(prompt_ids=p, max_new_tokens=NUM_TOKENS, ignore_eos=True) for p in PROMPTS]
    return [ids(t) for t in await asyncio.gather(*(transcribe(client, r) for r in requests))]


async def half_way(client: Client) -> None:
    await until(client, lambda s: len(s.sessions) > 4 and min(x.num_generated for x in s.sessions) > NUM_TOKENS // 4)


@pytest.mark.timeout(400)  # three times eight answers, and a worker that starts
def test_no_token_changes_in_company_through_a_kill_and_a_move(cluster: Matrix) -> None:
    torch.set_num_threads(1)
    wanted = [expected(prompt) for prompt in PROMPTS]

    async def work() -> None:
        async with Client(cluster.address) as client:
            status = await cluster.ready(client)
            assert status.identity is Identity.EXACT and status.model.precision.computed_dtype == "int8"
            assert await answers(client) == wanted
            killed = asyncio.create_task(answers(client))
            await half_way(client)
            cluster.nursery.kill(cluster.pids["w2"])
            assert await killed == wanted
            await asyncio.to_thread(cluster.start_worker, "w2")
            status = await cluster.ready(client)
            going = asyncio.create_task(answers(client))
            await half_way(client)
            names = [s.worker_id for s in status.stages]
            stages = [Stage(name, *ends) for name, ends in zip(names, ((0, 1), (1, 5), (5, NUM_ITEMS)), strict=True)]
            if stages == [Stage(s.worker_id, s.start, s.stop) for s in status.stages]:
                stages = [Stage(name, *ends) for name, ends in zip(names, ((0, 2), (2, 3), (3, NUM_ITEMS)), strict=True)]
            await client.apply(status.plan_version, "", stages)
            await moved(client, 1)
            assert await going == wanted
            status = await until(client, lambda s: s.phase is Phase.SERVING)

    asyncio.run(asyncio.wait_for(work(), 300))
    assert set(cluster.pids) == {"coordinator", *WORKERS}
