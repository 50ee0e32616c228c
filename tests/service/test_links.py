"""Links measured between real workers, and a prober against ends that refuse, vanish or never answer."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import grpc
import grpc.aio
import pytest

from engine.data.errors import Corrupt
from engine.data.measured_link import MeasuredLink
from engine.service import link_probe, wire
from engine.service.link_probe import MAX_FRAME_BYTES, MAX_MOVED_BYTES, LinkPeer, echo, measure_links
from engine.service.options import SecurityOptions
from engine.service.process import Server
from engine.service.trust.access import Access
from engine.service.trust.guard import Guard
from protos import noodle_pb2 as pb
from protos import noodle_pb2_grpc as rpc
from tests.service.running import Running, running


@pytest.fixture(scope="module")
def cluster() -> Iterator[Running]:
    with running("gpt2:tiny", 3) as started:
        yield started


def test_every_pair_of_workers_and_the_coordinator_has_a_link_in_both_directions(cluster: Running) -> None:
    links = cluster.wait(cluster.client.links())
    ids = ("coordinator", "w1", "w2", "w3")
    assert [(m.from_id, m.to_id) for m in links] == [(a, b) for a in ids for b in ids if a != b]
    for found in links:
        assert not found.failure and 0 < found.round_trip_low_s <= found.round_trip_s <= found.round_trip_high_s < 5
        assert 0 < found.bandwidth_low_bytes_per_s <= found.bandwidth_bytes_per_s <= found.bandwidth_high_bytes_per_s < 1e12
        assert 1 <= found.num_round_trips <= 20 and 1 <= found.num_transfers <= 3 and 0 < found.moved_bytes <= MAX_MOVED_BYTES
    there = {(m.from_id, m.to_id): m for m in links}
    assert all(there[b, a].round_trip_s == m.round_trip_s for (a, b), m in there.items()), "a round trip has no direction"


def test_status_shows_them(cluster: Running) -> None:
    command = [sys.executable, "-m", "engine", "status", "--connect", cluster.address]
    document = json.loads(subprocess.run([*command, "--json"], capture_output=True, text=True, check=True).stdout)
    assert len(document["links"]) == 12 and {"from_id", "to_id", "round_trip_s", "bandwidth_bytes_per_s"} <= document["links"][0].keys()
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert text.isascii() and "LINK" in text and "10%-90%" in text
    assert any(line.split()[:2] == ["w3", "w1"] for line in text.splitlines())


def test_the_plan_that_serves_was_made_with_them(cluster: Running) -> None:
    plan, links = cluster.wait(cluster.client.plan()), cluster.wait(cluster.client.links())
    fastest_s = min(link.round_trip_s for link in links) / 2
    assert plan.round_trip_s >= sum(plan.stage_s) + (len(plan.stages) + 1) * fastest_s  # from the coordinator and back to it


def test_plans_are_made_and_compared_for_the_running_cluster(cluster: Running) -> None:
    command = [sys.executable, "-m", "engine", "plan", "--connect", cluster.address]
    running = [(s.worker_id, s.start, s.stop) for s in cluster.status().stages]
    compared = json.loads(subprocess.run([*command, "--compare", "--json"], capture_output=True, text=True, check=True).stdout)
    current, *others = compared["plans"]
    assert [(s["node"], s["start"], s["stop"]) for s in current["plan"]["stages"]] == running and current["plan"]["plan_version"] == 1
    assert len(others) == 5 and all(row["moves"] is not None for row in others)
    assert all(row["plan"]["lower_bound"] <= row["plan"]["objective"] for row in others)  # not equal where noise likes another order
    hops = [stage["hop_s"] for stage in current["plan"]["stages"]]
    assert all(0 < hop_s < 1 for hop_s in hops[:-1]) and hops[-1] == 0, "links are part of the problem"
    plan = json.loads(
        subprocess.run([*command, "--strategy", "latency_optimized", "--json"], capture_output=True, text=True, check=True).stdout
    )
    assert plan["model"] == "gpt2:tiny" and plan["round_trip_s"] <= min(row["step_s"] for row in compared["plans"])
    text = subprocess.run([*command, "--compare"], capture_output=True, text=True, check=True).stdout
    assert text.isascii() and "current" in text and "!!" in text and "plan #1 current" in text


def test_the_plan_that_runs_is_exported(cluster: Running) -> None:
    command = [sys.executable, "-m", "engine", "plan", "--connect", cluster.address, "--running", "--export"]
    done = subprocess.run([*command, "vllm", "--json"], capture_output=True, text=True, check=True)
    document, running = json.loads(done.stdout), cluster.status().stages
    last = running[-1].stop - 2
    blocks = [(min(max(s.start - 1, 0), last), min(max(s.stop - 1, 0), last)) for s in running]
    assert [(b["start"], b["stop"]) for b in document["export"]["blocks"]] == blocks and document["plan_version"] == 1
    assert document["export"]["settings"]["VLLM_PP_LAYER_PARTITION"] == ",".join(str(stop - start) for start, stop in blocks)
    assert "vllm: the model is not known here" in done.stderr, "random weights have a name that nobody else can load"
    named = ["--model", "gpt2:tiny", "--random-weights", "0", *(f"--device={s.worker_id}=cpu" for s in running)]
    mapped = json.loads(subprocess.run([*command, "accelerate", *named], capture_output=True, text=True, check=True).stdout)
    assert set(mapped.values()) == {"cpu"} and {"transformer.wte", "transformer.h.0", "lm_head"} <= mapped.keys()


# --- the prober alone -------------------------------------------------------------------------------------------------
class EchoEnd(rpc.StageServiceServicer):
    """An end whose answers a test decides."""

    def __init__(self, behave: Any) -> None:
        self.behave = behave

    async def Echo(self, request_iterator: Any, context: Any) -> Any:
        async for frame in self.behave(context):
            yield frame


def probe(behave: Any) -> tuple[MeasuredLink, ...]:
    async def run() -> tuple[MeasuredLink, ...]:
        server = Server(Guard(SecurityOptions()))
        rpc.add_StageServiceServicer_to_server(EchoEnd(behave), server.grpc)
        address = await server.start("127.0.0.1:0")
        try:
            return await measure_links("me", [LinkPeer("you", address)], Access())
        finally:
            await server.stop()

    return asyncio.run(run())


async def _refuse(context: Any) -> Any:
    raise Corrupt("not today")
    yield


async def _silent(context: Any) -> Any:
    await asyncio.Event().wait()
    yield pb.EchoFrame()


async def _vanish(context: Any) -> Any:
    for _ in range(5):
        await context.read()
        yield pb.EchoFrame()


def test_an_honest_end_gives_two_directions() -> None:
    there, back = probe(echo)
    assert (there.from_id, there.to_id, back.from_id, back.to_id) == ("me", "you", "you", "me") and not there.failure
    assert there.latency_s == there.round_trip_s / 2 and there.num_transfers >= 1 <= back.num_transfers


@pytest.mark.parametrize(("behave", "words"), [(_refuse, "not today"), (_silent, "did not answer within"), (_vanish, "")])
def test_an_end_that_does_not_answer_is_a_failure_in_its_place(behave: Any, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_probe, "CONNECT_TIMEOUT_S", 0.3)
    (found,) = probe(behave)
    assert (found.from_id, found.to_id, found.round_trip_s) == ("me", "you", 0.0) and words in found.failure and found.failure


def test_nobody_there_does_not_stop_the_others() -> None:
    async def run() -> tuple[MeasuredLink, ...]:
        server = Server(Guard(SecurityOptions()))
        rpc.add_StageServiceServicer_to_server(EchoEnd(echo), server.grpc)
        good = await server.start("127.0.0.1:0")
        with socket.create_server(("127.0.0.1", 0)) as reserved:
            nobody = f"127.0.0.1:{reserved.getsockname()[1]}"
        try:
            return await measure_links("me", [LinkPeer("gone", nobody), LinkPeer("you", good)], Access())
        finally:
            await server.stop()

    found = asyncio.run(run())
    assert [(m.to_id, bool(m.failure)) for m in found] == [("gone", True), ("you", False), ("me", False)]
    assert "cannot reach gone at 127.0.0.1" in found[0].failure


def test_a_slow_link_keeps_to_the_limits() -> None:
    """An end that takes 20 ms for each frame and 1 s for each megabyte."""

    async def slow(context: Any) -> Any:
        while (frame := await context.read()) is not grpc.aio.EOF:
            await asyncio.sleep(0.02 + (len(frame.payload) + frame.reply_bytes) / 1e6)
            yield pb.EchoFrame(payload=bytes(frame.reply_bytes))

    there, back = probe(slow)
    assert not there.failure and there.num_round_trips < 20 and there.round_trip_s >= 0.02
    assert there.moved_bytes < 2**20 and there.num_transfers >= 1 and back.num_transfers >= 1


@pytest.mark.parametrize(
    "frame", [pb.EchoFrame(payload=bytes(MAX_FRAME_BYTES + 1)), pb.EchoFrame(reply_bytes=2**30), pb.EchoFrame(reply_bytes=-1)]
)
def test_the_echo_is_bounded(frame: pb.EchoFrame) -> None:
    async def run() -> grpc.StatusCode:
        server = Server(Guard(SecurityOptions()))
        rpc.add_StageServiceServicer_to_server(EchoEnd(echo), server.grpc)
        address = await server.start("127.0.0.1:0")
        try:
            async with grpc.aio.insecure_channel(address, options=wire.CHANNEL_OPTIONS) as channel:
                call = rpc.StageServiceStub(channel).Echo()
                await call.write(frame)
                with pytest.raises(grpc.aio.AioRpcError):
                    await call.read()
                code: grpc.StatusCode = await call.code()
                return code
        finally:
            await server.stop()

    assert asyncio.run(run()) is grpc.StatusCode.INVALID_ARGUMENT
