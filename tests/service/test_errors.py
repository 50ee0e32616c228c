"""Errors keep their meaning and their sentence on the way through a real gRPC server; nothing leaves as UNKNOWN."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest

from engine.data.errors import (
    Bug,
    Cancelled,
    Corrupt,
    Exhausted,
    Gap,
    InvalidInput,
    NoodleError,
    NotFound,
    Refused,
    Stale,
    Unauthorized,
    Unavailable,
)
from engine.service.client import Client
from engine.service.errors import from_number, status_number
from engine.service.options import SecurityOptions
from engine.service.process import Server
from engine.service.trust.guard import Guard
from protos import noodle_pb2 as pb
from protos import noodle_pb2_grpc as rpc

ERRORS = [
    InvalidInput, NotFound, Refused, Stale, Gap, Exhausted,
    Unavailable, Corrupt, Cancelled, Unauthorized,
]  # fmt: skip


class Failing(rpc.ControlServicer):
    def __init__(self, error: Exception) -> None:
        self.error = error

    async def GetStatus(self, request: pb.GetStatusRequest, context: grpc.aio.ServicerContext) -> pb.ClusterStatus:
        raise self.error

    async def Watch(self, request: pb.WatchRequest, context: grpc.aio.ServicerContext) -> AsyncIterator[pb.WatchFrame]:
        yield pb.WatchFrame(status=pb.ClusterStatus(phase="serving"))
        raise self.error


def failing_calls(error: Exception) -> tuple[BaseException, BaseException]:
    """What a client sees of `error` raised in a unary and in a streaming method."""

    async def run() -> tuple[BaseException, BaseException]:
        server = Server(Guard(SecurityOptions()))
        rpc.add_ControlServicer_to_server(Failing(error), server.grpc)
        address = await server.start("127.0.0.1:0")
        async with Client(address) as client:
            with pytest.raises(NoodleError) as unary:
                await client.status()
            with pytest.raises(NoodleError) as streaming:
                async for _ in client.watch():
                    pass
        await server.stop()
        return unary.value, streaming.value

    return asyncio.run(run())


@pytest.mark.parametrize("cls", ERRORS)
def test_our_errors_arrive_as_themselves(cls: type[NoodleError]) -> None:
    for seen in failing_calls(cls("value 7 is over the limit 3: choose less")):
        assert type(seen) is cls
        assert str(seen) == "value 7 is over the limit 3: choose less"


def test_a_bug_arrives_as_an_incident_id_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    for seen in failing_calls(KeyError("a secret")):
        assert type(seen) is Bug
        assert "incident" in str(seen) and "secret" not in str(seen)
        incident_id = str(seen).split("incident ")[1].split(":")[0]
        assert any(incident_id in record.getMessage() for record in caplog.records)


def test_what_grpc_cannot_send_to_a_caller_that_is_gone_is_no_incident(caplog: pytest.LogCaptureFixture) -> None:
    for seen in failing_calls(grpc.aio.InternalError('Failed "execute_batch"')):
        assert type(seen) is Unavailable  # to one that is still there
    assert not caplog.records


def test_a_reason_that_quotes_what_the_caller_sent_is_cut_to_what_a_header_holds() -> None:
    for seen in failing_calls(NotFound("\U0001f35c" * 10**6)):
        assert type(seen) is NotFound and str(seen).endswith("[...]")


@pytest.mark.parametrize("cls", [*ERRORS, Bug])
def test_errors_inside_messages_keep_their_class(cls: type[NoodleError]) -> None:
    assert type(from_number(status_number(cls("x")), "x")) is cls


def test_nobody_listening_is_said_with_the_address() -> None:
    async def run() -> None:
        async with Client("127.0.0.1:1") as client:
            await client.status()

    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1: .*refused.*; is it running"):
        asyncio.run(run())


@pytest.mark.parametrize("address", ["localhost", "127.0.0.1:0", "127.0.0.1:99999", ":1", "127.0.0.1:x", ""])
def test_an_address_is_checked_before_it_is_used(address: str) -> None:
    with pytest.raises(InvalidInput, match="HOST:PORT"):
        asyncio.run(Client(address).close())
