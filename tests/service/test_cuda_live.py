"""Layers and their KV move between the CPU and a GPU while tokens come, and a GPU's worker dies. Skipped without a CUDA GPU."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from engine.service.client import Client
from tests.service.matrix import NUM_TOKENS, Matrix, moves_under_load, run_cases
from tests.service.nursery import Nursery

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Matrix]:
    nursery = Nursery()
    nursery.folder = tmp_path
    cluster = Matrix(nursery, devices={"w2": "cuda:0", "w3": "cuda:0"})
    cluster.start()
    yield cluster
    nursery.close()


def test_moves_between_cpu_and_gpu_under_load_lose_no_token(cluster: Matrix) -> None:
    async def work() -> None:
        async with Client(cluster.address) as client:
            await cluster.ready(client)
            reports = await moves_under_load(client, 8)
            status = await client.status()
        assert [r for r in reports if r.outcome != "done"] == []
        assert status.ended.num_failed == 0 and {n.device for n in status.nodes} == {"cpu", "cuda:0"}

    asyncio.run(work())


def test_an_answer_survives_the_death_of_a_gpus_worker(cluster: Matrix) -> None:
    cases = asyncio.run(run_cases(cluster, range(1, NUM_TOKENS, 21), ("w1", "w2", "w3")))
    assert [c for c in cases if not c.is_identical] == []
