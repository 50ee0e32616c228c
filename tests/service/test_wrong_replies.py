"""What comes back from a server is checked as what goes to one: a reply with a number that its field cannot have is refused by name,
by everybody who reads one. Which fields there are is read from the descriptors, and so is which replies hold numbers."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.message import Message

from engine.control import commands as do
from engine.control.moves import Transfer
from engine.data.errors import InvalidInput
from engine.data.generation import GenerateRequest
from engine.data.model import Item, ModelCard, ModelRef
from engine.data.plan import NodeSpec, Stage
from engine.model.weights.manifest import TensorEntry
from engine.model.weights.weight_cache import WeightCache
from engine.service.client import Client
from engine.service.coordinator.worker_peer import WorkerPeer
from engine.service.meters import Meters
from engine.service.trust.access import Access
from engine.service.weights.pace import Pace
from engine.service.worker.stage_service import Preparation, StageService
from engine.service.worker.weights.weight_fetch import WeightFetch, WeightSource
from engine.service.worker.weights.weight_supply import WeightSupply
from engine.service.worker.worker import Worker, WorkerOptions
from protos import noodle_pb2 as pb
from protos import noodle_pb2_grpc as rpc
from tests.service.wrong_messages import wrong_numbers

METHODS = {f"{service.name}.{m.name}": m for service in pb.DESCRIPTOR.services_by_name.values() for m in service.methods}
STAGE, SPEC = Stage("w1", 0, 1), NodeSpec("w1", "127.0.0.1:1", "h", 1, "cpu", "", 1, 1, 1)
Reading = Callable[[str], Awaitable[Any]]


def by_client(ask: Callable[[Client], Any]) -> Reading:
    async def read(address: str) -> None:
        async with Client(address) as client:
            await _to_the_end(ask(client))

    return read


def by_coordinator(ask: Callable[[WorkerPeer], Any]) -> Reading:
    async def read(address: str) -> None:
        peer = WorkerPeer("w1", address, Access(), lambda frame, text: None)
        try:
            await _to_the_end(ask(peer))
        finally:
            await peer.close()

    return read


async def _to_the_end(answer: Any) -> None:
    if isinstance(answer, AsyncIterator):
        async for _ in answer:
            pass
    else:
        await answer


async def by_new_worker(address: str) -> None:
    worker = Worker(WorkerOptions(worker_id="w1", join=address), "127.0.0.1:1", _stage_service(address), Meters(), Access())
    async with Access().channel(address) as channel:
        await worker._connect(rpc.ControlStub(channel), "starting")


async def by_worker_without_the_folder(address: str) -> None:
    async with Access().channel(address) as channel:
        await _supply(address)._ask_manifest(channel, "f")


async def by_new_owner(address: str) -> None:
    """Keys and values of a session, from the worker that held them."""

    class Prepared:
        missing_layers = (0,)

    async with Access().channel(address) as channel:
        part, preparation = pb.KvRange(session_id="s", stop_token=1), Preparation(1)
        await _stage_service(address)._copy(rpc.StageServiceStub(channel), part, preparation, Prepared())  # type: ignore[arg-type]


async def by_fetching_worker(address: str) -> None:
    """A source that answers wrongly holds nothing, and why is told with what could not be fetched."""

    async def trouble(text: str) -> None: ...

    entry = TensorEntry("t", "U8", (1,), 1, b"0" * 32)
    fetch = WeightFetch(WeightCache(Path("/nowhere"), None), "f", [entry], trouble, lambda num_bytes: None, Pace(lambda: False))
    async with Access().channel(address) as channel:
        assert await fetch._find(WeightSource("w2", rpc.WeightServiceStub(channel), None, 0.0)) == frozenset()
    raise InvalidInput(fetch._last_failure["w2"])


async def by_nobody(address: str) -> None:
    """No program of ours reads a number of it."""


def _stage_service(address: str) -> StageService:
    return StageService("w1", _supply(address), Access())


def _supply(address: str) -> WeightSupply:
    return WeightSupply("w1", address, WeightCache(Path("/nowhere")), Meters(), Access())


CARD = ModelCard(ModelRef("m", 0), "/nowhere", "f", "A", (Item("a", 1, 1, 1),), 8, 8, 8, (), None, 1)
LOAD, PREPARE = do.LoadStage("w1", 1, 1, STAGE, None), do.PrepareStage("w1", 1, 1, STAGE, None)
COPY = do.CopyKv(Transfer("w2", "w1", 0, 1), 1, 1, 1, ())
READERS: Mapping[str, Reading] = {
    "Control.Register": by_new_worker,
    "Control.Watch": by_client(lambda c: c.watch()),
    "Control.Generate": by_client(lambda c: c.generate(GenerateRequest(prompt="x"))),
    "Control.GetStatus": by_client(lambda c: c.status()),
    "Control.PlanNow": by_client(lambda c: c.plan()),
    "Control.GetLinks": by_client(lambda c: c.links()),
    "Control.GetVersion": by_client(lambda c: c.version()),
    "Control.ListPlans": by_client(lambda c: c.plans()),
    "Control.EstimateMove": by_client(lambda c: c.estimate_move(())),
    "Control.Apply": by_client(lambda c: c.apply(1)),
    "Control.Drain": by_client(lambda c: c.drain("w1")),
    "Control.Undrain": by_client(lambda c: c.undrain("w1")),
    "Control.GetText": by_client(lambda c: c.text("s")),
    "Control.Acknowledge": by_client(lambda c: c.acknowledge()),
    "Control.Profile": by_client(lambda c: c.profile("w1")),
    "Control.ListMoves": by_client(lambda c: c.moves()),
    "Control.SetAdaptation": by_client(lambda c: c.set_adaptation("off")),
    "Control.GetAdaptation": by_client(lambda c: c.adaptation()),
    "Control.GetManifest": by_worker_without_the_folder,
    "StageService.Measure": by_coordinator(lambda p: p.measure(CARD)),
    "StageService.Profile": by_coordinator(lambda p: p.profile(CARD, SPEC, True)),
    "StageService.Load": by_coordinator(lambda p: p.load(LOAD, CARD, None, ())),
    "StageService.Prepare": by_coordinator(lambda p: p.prepare(PREPARE, CARD, None, ())),
    "StageService.CopyKv": by_coordinator(lambda p: p.copy_kv(COPY, p)),
    "StageService.GetStageStatus": by_coordinator(lambda p: p.greet()),
    "StageService.MeasureLinks": by_coordinator(lambda p: p.measure_links(())),
    "StageService.ExportKv": by_new_owner,
    "StageService.Echo": by_nobody,
    "WeightService.Find": by_fetching_worker,
    "LineService.GetLines": by_client(lambda c: c.lines()),
}


class Anything(grpc.GenericRpcHandler):
    """Answers each method with the same bytes."""

    content = b""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        service, name = details.method.removeprefix("/noodle.v1.").split("/")
        method = METHODS[f"{service}.{name}"]

        async def one(request: Any, context: grpc.aio.ServicerContext) -> bytes:
            return self.content

        async def many(request: Any, context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
            yield self.content

        kind = f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"
        made: grpc.RpcMethodHandler = getattr(grpc, f"{kind}_rpc_method_handler")(many if method.server_streaming else one)
        return made


def test_every_reply_with_numbers_has_its_reader() -> None:
    assert set(READERS) == {name for name, method in METHODS.items() if next(wrong_numbers(method.output_type), None)}


@pytest.mark.parametrize("name", [name for name, read in READERS.items() if read is not by_nobody])
def test_a_number_that_a_field_cannot_have_is_refused_by_whoever_reads_it(name: str) -> None:
    asyncio.run(_refused(name, wrong_numbers(METHODS[name].output_type)))


@pytest.mark.parametrize(
    ("name", "reply", "words"),
    [
        ("Control.Register", pb.RegisterReply(generation=1), "heartbeat_period_s 0.0 is not allowed"),
        ("StageService.Profile", pb.ProfileMessage(progress=1.5), "progress 1.5 is not allowed"),
        ("StageService.Profile", pb.ProfileMessage(profile_json="{}", slowdown=0.5), "slowdown 0.5 is not allowed"),
    ],
)
def test_what_means_something_only_within_limits_is_refused_beyond_them(name: str, reply: Message, words: str) -> None:
    asyncio.run(_refused(name, [(reply, words)]))


async def _refused(name: str, replies: Iterable[tuple[Message, str]]) -> None:
    server, answers = grpc.aio.server(), Anything()
    server.add_generic_rpc_handlers((answers,))
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        for reply, words in replies:
            answers.content = reply.SerializeToString()
            with pytest.raises(InvalidInput, match=re.escape(words)):
                await READERS[name](address)
    finally:
        await server.stop(None)
