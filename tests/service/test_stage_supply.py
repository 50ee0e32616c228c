"""A stage's weights on their way: a later order takes the place of an earlier one, and damaged copies are fetched again, not for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from engine.data.errors import NoodleError, Stale
from engine.model.weights.stored_tensor import DamagedTensor, StoredTensor
from engine.service.trust.access import Access
from engine.service.worker.stage_service import MAX_ATTEMPTS, StageService
from engine.service.worker.weights.weight_fetch import FetchReport
from engine.service.worker.weights.weight_supply import Supplied, WeightSupply
from protos import noodle_pb2 as pb

DAMAGED = StoredTensor("t", Path("cache/t"), 0, 4, torch.float32, (1,), bytes(32))


class Runner:
    """Loads at once; the first `num_damaged` attempts find a damaged tensor."""

    def __init__(self, num_damaged: int = 0) -> None:
        self.loaded: list[int] = []
        self.model = None
        self.num_damaged = num_damaged
        self.sessions = SimpleNamespace(plan_version=0)

    def held_items(self, request: pb.LoadRequest) -> range:
        return range(0)

    def load(self, request: pb.LoadRequest, weights: object) -> pb.LoadReply:
        if self.num_damaged:
            self.num_damaged -= 1
            raise DamagedTensor(DAMAGED, "is damaged")
        self.loaded.append(request.plan_version)
        return pb.LoadReply(weight_bytes=1)

    def unload(self) -> None:
        self.loaded.clear()

    def call(self, function: Callable[[], Any]) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(function())
        except NoodleError as e:
            future.set_exception(e)
        return future


class Supply:
    """Weights arrive when the test says so."""

    def __init__(self) -> None:
        self.arrive, self.asked = asyncio.Event(), asyncio.Event()
        self.distrusted: list[bool] = []
        self.dropped: list[DamagedTensor] = []
        self.num_cancelled = 0

    async def weights(self, request: pb.LoadRequest, held: range, distrust_cache: bool) -> Supplied:
        self.distrusted.append(distrust_cache)
        self.asked.set()
        try:
            await self.arrive.wait()
        except asyncio.CancelledError:
            self.num_cancelled += 1
            raise
        return Supplied(cast(Any, object()), True, 0, FetchReport({"w1": 10}, 1.0))

    async def drop_damaged(self, error: DamagedTensor) -> None:
        self.dropped.append(error)


def made(runner: Runner) -> tuple[StageService, Supply, Any]:
    supply = Supply()
    service = StageService("w1", cast(WeightSupply, supply), Access())
    service.runner = cast(Any, runner)
    return service, supply, cast(Any, None)


def test_a_later_order_takes_the_place_of_one_whose_weights_are_on_their_way() -> None:
    async def run() -> None:
        runner = Runner()
        service, supply, context = made(runner)
        first = asyncio.create_task(service.Load(pb.LoadRequest(plan_version=1), context))
        await supply.asked.wait()
        second = asyncio.create_task(service.Load(pb.LoadRequest(plan_version=2), context))
        with pytest.raises(Stale, match="plan 1 was given up"):
            await first
        supply.arrive.set()
        assert (await second).fetched_bytes == 10 and runner.loaded == [2] and supply.num_cancelled == 1

    asyncio.run(run())


def test_an_order_that_comes_too_late_changes_nothing_until_the_coordinator_is_another() -> None:
    async def run() -> None:
        runner = Runner()
        service, supply, context = made(runner)
        newest = asyncio.create_task(service.Load(pb.LoadRequest(plan_version=2), context))
        await supply.asked.wait()
        for order in (service.Load, service.Prepare):
            with pytest.raises(Stale, match="plan 1 came too late"):
                await order(pb.LoadRequest(plan_version=1), context)
        supply.arrive.set()
        await newest
        assert runner.loaded == [2] and supply.num_cancelled == 0
        service.runner = None
        await service.forget()
        service.runner = cast(Any, runner)
        await service.Load(pb.LoadRequest(plan_version=1), context)
        assert runner.loaded == [2, 1]

    asyncio.run(run())


@pytest.mark.parametrize("plan_version", [0, 1])
def test_a_release_ends_what_is_on_its_way(plan_version: int) -> None:
    async def run() -> None:
        runner = Runner()
        service, supply, context = made(runner)
        loading = asyncio.create_task(service.Load(pb.LoadRequest(plan_version=1), context))
        await supply.asked.wait()
        await service.Unload(pb.UnloadRequest(plan_version=plan_version), context)
        with pytest.raises(Stale):
            await loading
        assert runner.loaded == [] and supply.num_cancelled == 1

    asyncio.run(run())


def test_a_caller_that_goes_away_ends_the_fetch_too() -> None:
    async def run() -> None:
        service, supply, context = made(Runner())
        loading = asyncio.create_task(service.Load(pb.LoadRequest(plan_version=1), context))
        await supply.asked.wait()
        loading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loading
        await asyncio.sleep(0)
        assert supply.num_cancelled == 1

    asyncio.run(run())


def test_damaged_copies_are_fetched_again_a_few_times() -> None:
    async def run() -> None:
        service, supply, context = made(Runner(num_damaged=1))
        supply.arrive.set()
        reply = await service.Load(pb.LoadRequest(plan_version=1), context)
        assert supply.distrusted == [False, True] and len(supply.dropped) == 1
        assert reply.fetched_bytes == 20 and reply.fetched_from[0].num_bytes == 20, "both attempts count"
        service, supply, context = made(Runner(num_damaged=MAX_ATTEMPTS))
        supply.arrive.set()
        with pytest.raises(DamagedTensor):
            await service.Load(pb.LoadRequest(plan_version=1), context)
        assert len(supply.distrusted) == MAX_ATTEMPTS

    asyncio.run(run())
