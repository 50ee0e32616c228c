"""The address a worker gives, and ways to connect that do not wait for what a network lost."""

from __future__ import annotations

import asyncio
import socket
import time

import grpc
import pytest

from engine.data.errors import InvalidInput, Unavailable
from engine.service.links import connect
from engine.service.options import SecurityOptions
from engine.service.process import Server
from engine.service.trust.access import Access
from engine.service.trust.guard import Guard
from engine.service.worker.advertise import advertised_address, check_advertise


@pytest.mark.parametrize(
    ("bound", "wanted", "join", "address"),
    [
        ("10.0.0.7:5000", None, "10.0.0.1:7070", "10.0.0.7:5000"),
        ("0.0.0.0:5000", None, "127.0.0.1:7070", "127.0.0.1:5000"),
        ("[::]:5000", None, "127.0.0.1:7070", "127.0.0.1:5000"),
        ("0.0.0.0:5000", None, "unix:/tmp/s", "127.0.0.1:5000"),
        ("0.0.0.0:5000", "gpu-box", "10.0.0.1:7070", "gpu-box:5000"),
        ("0.0.0.0:5000", "gpu-box:80", "10.0.0.1:7070", "gpu-box:80"),
        ("127.0.0.1:5000", "[fd00::7]", "10.0.0.1:7070", "[fd00::7]:5000"),
        ("127.0.0.1:5000", "[fd00::7]:80", "10.0.0.1:7070", "[fd00::7]:80"),
        ("unix:/tmp/w", None, "unix:/tmp/s", "unix:/tmp/w"),
    ],
)
def test_the_address_that_is_given(bound: str, wanted: str | None, join: str, address: str) -> None:
    assert advertised_address(bound, wanted, join) == address


def test_no_way_to_the_coordinator_is_said() -> None:
    with pytest.raises(Unavailable, match=r"no way from here to the coordinator at no-such-host\.invalid:1 .*--advertise"):
        advertised_address("0.0.0.0:5000", None, "no-such-host.invalid:1")


@pytest.mark.parametrize("text", ["", "0.0.0.0", "0.0.0.0:80", "[::]:80", "::1", "a b", "h:0", "h:65536", "h:x", ":80", "a/b", "[::1]x"])
def test_what_nobody_could_connect_to_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="--advertise"):
        check_advertise(text)


@pytest.mark.parametrize("text", ["10.0.0.7", "10.0.0.7:80", "gpu-box", "gpu-box.lan:80", "[::1]", "[::1]:80"])
def test_what_others_may_connect_to_is_taken(text: str) -> None:
    assert check_advertise(text) == text


def test_connecting_to_a_server_gives_a_ready_channel_and_to_nobody_one_that_says_so() -> None:
    async def work() -> None:
        server = Server(Guard(SecurityOptions()))
        address = await server.start("127.0.0.1:0")
        channel = await connect(Access(), address, 10.0)
        assert channel.get_state() is grpc.ChannelConnectivity.READY
        await channel.close()
        await server.stop()
        began_s = time.monotonic()
        closed = await connect(Access(), address, 60.0)
        assert time.monotonic() - began_s < 30.0, "a refusal needs no waiting"
        with pytest.raises(grpc.aio.AioRpcError, match="refused"):
            await closed.unary_unary("/x/y")(b"")
        await closed.close()

    asyncio.run(work())


def test_an_attempt_that_nobody_answers_does_not_hold_up_the_next_one() -> None:
    """The first connection is taken by a listener that says nothing, as one whose packets are lost; the second is answered."""

    async def work() -> None:
        server = Server(Guard(SecurityOptions()))
        real_host, real_port = (await server.start("127.0.0.1:0")).split(":")
        attempts, writers = 0, []

        async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(65536):
                writer.write(data)

        async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal attempts
            attempts += 1
            writers.append(writer)
            if attempts > 1:
                up_reader, up_writer = await asyncio.open_connection(real_host, int(real_port))
                writers.append(up_writer)
                await asyncio.gather(pump(reader, up_writer), pump(up_reader, writer))

        listener = await asyncio.start_server(take, "127.0.0.1", 0, family=socket.AF_INET)
        host, port = listener.sockets[0].getsockname()
        channel = await connect(Access(), f"{host}:{port}", 60.0)
        assert channel.get_state() is grpc.ChannelConnectivity.READY and attempts >= 2
        await channel.close()
        for writer in writers:
            writer.close()
        listener.close()
        await server.stop()

    asyncio.run(work())
