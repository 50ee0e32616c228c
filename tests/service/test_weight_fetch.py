"""Fetching over real gRPC from sources that break off, stand still, lie or attack: what is right arrives, nothing else is kept."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from engine.data.errors import NotFound
from engine.model.weights.manifest import TensorEntry
from engine.model.weights.weight_cache import WeightCache
from engine.service.meters import Meters
from engine.service.options import SecurityOptions
from engine.service.process import Server
from engine.service.trust.guard import Guard
from engine.service.weights import weight_service
from engine.service.weights.pace import Pace
from engine.service.weights.weight_library import WeightLibrary
from engine.service.weights.weight_service import CHUNK_BYTES, WeightService
from engine.service.worker.weights import weight_fetch
from engine.service.worker.weights.weight_fetch import FetchReport, WeightFetch, WeightSource
from engine.service.worker.weights.weight_supply import _Progress
from protos import noodle_pb2 as pb
from protos import noodle_pb2_grpc as rpc

LARGE, SMALL = os.urandom(3 * CHUNK_BYTES + 17), os.urandom(1000)
UNLIMITED = Pace(lambda: False)


def entry(data: bytes, name: str) -> TensorEntry:
    return TensorEntry(name, "U8", (len(data),), len(data), hashlib.sha256(data).digest())


WANTED = [entry(LARGE, "large"), entry(SMALL, "small"), entry(b"", "empty")]


def stocked(folder: Path) -> WeightCache:
    cache = WeightCache(folder)
    for wanted, data in zip(WANTED, (LARGE, SMALL, b""), strict=True):
        partial = cache.begin(wanted)
        partial.append(data)
        partial.finish()
    return cache


class Hostile(WeightService):
    """An honest source whose chunks pass through `twist`."""

    def __init__(self, cache: WeightCache, twist: Callable[[int, bytes], Awaitable[bytes]]) -> None:
        super().__init__(WeightLibrary(cache, lambda _: None), UNLIMITED)
        self._twist, self.offsets = twist, list[int]()

    async def Fetch(self, request: pb.FetchRequest, context: grpc.aio.ServicerContext) -> AsyncIterator[pb.WeightChunk]:
        self.offsets.append(request.offset_bytes)
        count = 0
        async for chunk in super().Fetch(request, context):
            yield pb.WeightChunk(data=await self._twist(count, chunk.data))
            count += 1


async def honest(count: int, data: bytes) -> bytes:
    return data


async def flips_a_bit(count: int, data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


async def breaks_off(count: int, data: bytes) -> bytes:
    if count == 1:
        raise RuntimeError("the machine died")
    return data


async def stands_still(count: int, data: bytes) -> bytes:
    if count == 1:
        await asyncio.sleep(3600)
    return data


async def sends_too_much(count: int, data: bytes) -> bytes:
    return data + b"x" if count == 3 else data


async def sends_giants(count: int, data: bytes) -> bytes:
    return bytes(CHUNK_BYTES + 1)


class Fetched:
    def __init__(self) -> None:
        self.troubles: list[str] = []
        self.report = FetchReport()


async def fetch(target: WeightCache, services: dict[str, WeightService], wanted: list[TensorEntry] = WANTED) -> Fetched:
    """Run a fetch from these sources; what it raises passes through."""
    fetched, servers, channels, sources = Fetched(), [], [], []

    async def note(text: str) -> None:
        fetched.troubles.append(text)

    try:
        for name, service in services.items():
            server = Server(Guard(SecurityOptions()))
            rpc.add_WeightServiceServicer_to_server(service, server.grpc)
            servers.append(server)
            channels.append(grpc.aio.insecure_channel(await server.start("127.0.0.1:0")))
            sources.append(WeightSource(name, rpc.WeightServiceStub(channels[-1]), ()))
        run = WeightFetch(target, "f", wanted, note, lambda _: None, UNLIMITED)
        await asyncio.wait_for(run.run(sources), 60)
        fetched.report = run.report
    finally:
        for channel in channels:
            await channel.close()
        for server in servers:
            await server.stop()
    return fetched


def check_whole(cache: WeightCache) -> None:
    assert all(cache.is_whole(wanted) for wanted in WANTED)
    assert len(list((cache.folder / "tensors").glob("??/*"))) == len(WANTED), "nothing but whole entries is left"


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_fetch, "STALL_S", 0.5)


def test_all_arrives_and_every_byte_is_counted_once(tmp_path: Path) -> None:
    source, target = stocked(tmp_path / "a"), WeightCache(tmp_path / "b")
    services = {name: WeightService(WeightLibrary(source, lambda _: None), UNLIMITED) for name in ("w1", "w2")}
    fetched = asyncio.run(fetch(target, services))
    check_whole(target)
    assert fetched.report.num_bytes == len(LARGE) + len(SMALL) and set(fetched.report.bytes_from) == {"w1", "w2"}
    assert fetched.troubles == []


@pytest.mark.parametrize(
    ("twist", "said"),
    [
        (flips_a_bit, "refused 'large' from bad: .*another content than its hash says"),
        (sends_too_much, "refused 'large' from bad: .*more than its"),
        (sends_giants, "refused 'large' from bad: bad sent a chunk of"),
        (breaks_off, "bad broke off while sending 'large'"),
        (stands_still, r"bad broke off while sending 'large': bad sent nothing for"),
    ],
)
def test_a_bad_source_is_told_of_and_the_others_do(tmp_path: Path, twist: Any, said: str) -> None:
    """The bad source comes first and so gets the large tensor; the good one has everything too."""
    bad = Hostile(stocked(tmp_path / "a"), twist)
    good = WeightService(WeightLibrary(stocked(tmp_path / "c"), lambda _: None), UNLIMITED)
    target = WeightCache(tmp_path / "b")
    fetched = asyncio.run(fetch(target, {"bad": bad, "good": good}))
    check_whole(target)
    assert any(re.search(said, text) for text in fetched.troubles), fetched.troubles
    assert fetched.report.bytes_from["good"] > 0


def test_what_one_source_began_another_goes_on_with(tmp_path: Path) -> None:
    """No byte that arrived is asked for again."""
    first = Hostile(stocked(tmp_path / "a"), breaks_off)
    second = Hostile(stocked(tmp_path / "c"), honest)
    target = WeightCache(tmp_path / "b")
    fetched = asyncio.run(fetch(target, {"first": first, "second": second}, WANTED[:1]))
    assert target.is_whole(WANTED[0])
    assert second.offsets[0] == CHUNK_BYTES or first.offsets == [0, CHUNK_BYTES]
    assert fetched.report.num_bytes == len(LARGE)


def test_bytes_of_two_sources_that_do_not_fit_are_fetched_anew(tmp_path: Path) -> None:
    """What an earlier attempt left is wrong: nobody can say whose fault it is, so the honest source is asked once more."""
    target = WeightCache(tmp_path / "b")
    partial = target.begin(WANTED[0])
    partial.append(bytes(CHUNK_BYTES))
    partial.close()
    fetched = asyncio.run(fetch(target, {"good": Hostile(stocked(tmp_path / "a"), honest)}, WANTED[:1]))
    assert target.is_whole(WANTED[0]) and "fetched anew" in fetched.troubles[0]


def test_if_nobody_has_the_right_bytes_all_reasons_are_said(tmp_path: Path) -> None:
    liar = Hostile(stocked(tmp_path / "a"), flips_a_bit)
    with pytest.raises(NotFound, match=r"2 of 3 tensors .* cannot be fetched: liar: .*another content"):
        asyncio.run(fetch(WeightCache(tmp_path / "b"), {"liar": liar}))
    with pytest.raises(NotFound, match="nobody holds them"):
        nothing = WeightService(WeightLibrary(WeightCache(tmp_path / "none"), lambda _: None), UNLIMITED)
        asyncio.run(fetch(WeightCache(tmp_path / "b2"), {"poor": nothing}))


def test_a_source_claims_no_more_than_was_asked(tmp_path: Path) -> None:
    class Boaster(WeightService):
        async def Find(self, request: pb.FindRequest, context: grpc.aio.ServicerContext) -> pb.FindReply:
            return pb.FindReply(found=[1, 0, 0, 2**31 - 1])

    boaster = Boaster(WeightLibrary(stocked(tmp_path / "a"), lambda _: None), UNLIMITED)
    target = WeightCache(tmp_path / "b")
    asyncio.run(fetch(target, {"w1": boaster}, WANTED[:1]))
    assert target.is_whole(WANTED[0])


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (pb.FetchRequest(tensor=pb.WantedTensor(name="large", sha256=b"../../../../etc/passwd", num_bytes=5)), "INVALID_ARGUMENT"),
        (pb.FetchRequest(tensor=pb.WantedTensor(name="../../etc/passwd", sha256=bytes(32), num_bytes=5)), "NOT_FOUND"),
        (pb.FetchRequest(tensor=pb.WantedTensor(name="small", sha256=WANTED[1].sha256, num_bytes=999)), "NOT_FOUND"),
        (pb.FetchRequest(tensor=pb.WantedTensor(name="s", sha256=WANTED[1].sha256, num_bytes=1000), offset_bytes=-1), "INVALID_ARGUMENT"),
        (pb.FetchRequest(tensor=pb.WantedTensor(name="s", sha256=WANTED[1].sha256, num_bytes=1000), offset_bytes=1001), "INVALID_ARGUMENT"),
    ],
)
def test_a_request_cannot_leave_what_is_served(tmp_path: Path, request_: pb.FetchRequest, code: str) -> None:
    async def run() -> str:
        server = Server(Guard(SecurityOptions()))
        rpc.add_WeightServiceServicer_to_server(WeightService(WeightLibrary(stocked(tmp_path), lambda _: None), UNLIMITED), server.grpc)
        try:
            async with grpc.aio.insecure_channel(await server.start("127.0.0.1:0")) as channel:
                try:
                    async for _ in rpc.WeightServiceStub(channel).Fetch(request_):
                        pass
                except grpc.aio.AioRpcError as e:
                    return str(e.code().name)
        finally:
            await server.stop()
        return "OK"

    assert asyncio.run(run()) == code


def test_a_few_transfers_run_at_once_and_those_that_are_given_up_free_their_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_service, "SIGN_OF_LIFE_S", 0.1)
    going = 0
    most = 0
    may_go_on = asyncio.Event()

    class Counting(WeightService):
        async def _chunks(self, extent: Any, offset_bytes: int) -> AsyncIterator[pb.WeightChunk]:
            nonlocal going, most
            going += 1
            most = max(most, going)
            try:
                async for chunk in super()._chunks(extent, offset_bytes):
                    yield chunk
                    await may_go_on.wait()
            finally:
                going -= 1

    async def run() -> None:
        server = Server(Guard(SecurityOptions()))
        service = Counting(WeightLibrary(stocked(tmp_path), lambda _: None), UNLIMITED)
        rpc.add_WeightServiceServicer_to_server(service, server.grpc)
        request = pb.FetchRequest(tensor=pb.WantedTensor(name="large", sha256=WANTED[0].sha256, num_bytes=len(LARGE)))
        async with grpc.aio.insecure_channel(await server.start("127.0.0.1:0")) as channel:
            stub = rpc.WeightServiceStub(channel)
            given_up = [stub.Fetch(request) for _ in range(weight_service.MAX_AT_ONCE)]
            for call in given_up:
                assert (await call.read()).data
            given_up.append(stub.Fetch(request))
            assert not (await given_up[-1].read()).data, "it waits for its turn and says so"
            for call in given_up:
                call.cancel()
            may_go_on.set()

            async def whole() -> bytes:
                return b"".join([chunk.data async for chunk in stub.Fetch(request)])

            assert await asyncio.wait_for(asyncio.gather(*(whole() for _ in range(9))), 60) == [LARGE] * 9
        await server.stop()

    asyncio.run(run())
    assert going == 0 and most == weight_service.MAX_AT_ONCE


def test_a_folder_is_served_by_the_model_s_names_alone(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    save_file({"a": torch.arange(6, dtype=torch.float32), "b": torch.ones(2)}, tmp_path / "model.safetensors")
    from engine.model.weights.tensor_files import read_folder

    fingerprint = read_folder(tmp_path).fingerprint
    library = WeightLibrary(WeightCache(tmp_path / "cache"), lambda asked: tmp_path if asked == fingerprint else None)
    extent = library.get(fingerprint, pb.WantedTensor(name="a", sha256=bytes(32), num_bytes=24))
    with extent.file.open("rb") as file:
        file.seek(extent.offset_bytes)
        assert torch.frombuffer(bytearray(file.read(extent.num_bytes)), dtype=torch.float32).tolist() == [0, 1, 2, 3, 4, 5]
    for wrong in (("other", "a", 24), (fingerprint, "c", 24), (fingerprint, "a", 23)):
        assert library.find(wrong[0], pb.WantedTensor(name=wrong[1], sha256=bytes(32), num_bytes=wrong[2])) is None


def test_progress_is_what_the_console_shows() -> None:
    meters = Meters()
    progress = _Progress(meters, 4_000_000)
    progress.add(1_000_000)
    assert (meters.detail, meters.progress) == ("fetching weights, 1.0 of 4.0 MB", 0.25)
    progress.add(9_000_000)
    assert meters.progress == 1.0 and meters.fetched_bytes == 10_000_000


def test_weights_are_paced_only_while_steps_run(monkeypatch: pytest.MonkeyPatch) -> None:
    rests_s: list[float] = []

    async def sleep(rest_s: float) -> None:
        rests_s.append(rest_s)

    monkeypatch.setattr("engine.service.weights.pace.asyncio.sleep", sleep)
    monkeypatch.setattr("engine.service.weights.pace.time.monotonic", lambda: 5.0)

    async def move(is_busy: bool) -> None:
        pace = Pace(lambda: is_busy, busy_bytes_per_s=1e6)
        await asyncio.gather(*(pace.moved(20_000) for _ in range(3)))

    asyncio.run(move(False))
    assert rests_s == []
    asyncio.run(move(True))
    assert rests_s == pytest.approx([0.02, 0.04, 0.06]), "transfers of a process share one rate"
