"""The watch stream sends of the sessions that ended what is new, and whoever reads it has the whole list all the same."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import ClassVar, cast

import grpc.aio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.control.cluster import Cluster, ClusterConfig
from engine.control.sessions.past_sessions import MAX_FINISHED, PastSessions
from engine.data.status import SessionStatus
from engine.data.watch_frame import WatchFrame, completed, shortened
from engine.service.client import Client
from engine.service.coordinator.control_service import ControlService
from engine.service.coordinator.journal.journal import Journal
from engine.service.coordinator.manifest_service import ManifestSource
from engine.service.coordinator.shell import ClusterShell
from engine.service.options import SecurityOptions
from engine.service.process import Server
from engine.service.trust.access import Access
from engine.service.trust.guard import Guard
from protos import noodle_pb2 as pb
from protos import noodle_pb2_grpc as rpc
from tests.tui import frames


def ended(number: int) -> SessionStatus:
    return SessionStatus(f"s-{number:08x}", "done", 40, 128, 128, 0.1234, 17.25, 6.125, 0.0625, finish_reason="length")


def of(finished: tuple[SessionStatus, ...]) -> WatchFrame:
    return frames.frame(frames.status(latest=finished))


@given(st.lists(st.integers(0, 70), min_size=1, max_size=8))
def test_any_history_comes_whole_and_nothing_is_sent_twice(ends_per_frame: list[int]) -> None:
    past, sent, known, number = PastSessions(), (), (), 0
    for num_ends in ends_per_frame:
        for _ in range(num_ends):
            number += 1
            past = past.followed_by(ended(number))
        short = shortened(of(past.latest), sent)
        assert len(short.status.ended.latest) == (min(num_ends, MAX_FINISHED) if sent else len(past.latest))
        whole = completed(short, known)
        assert whole == of(past.latest)
        sent, known = past.latest, whole.status.ended.latest


@given(*[st.lists(st.integers(0, 9), max_size=6, unique=True)] * 2)
def test_lists_that_do_not_follow_each_other_come_whole_too(before: list[int], after: list[int]) -> None:
    known, wanted = tuple(map(ended, before)), tuple(map(ended, after))
    assert completed(shortened(of(wanted), known), known) == of(wanted)


class Noting(ControlService):
    """Keeps what its watchers ask for."""

    asked: ClassVar[list[bool]] = []

    async def Watch(self, request: pb.WatchRequest, context: grpc.aio.ServicerContext) -> AsyncIterator[pb.WatchFrame]:
        self.asked.append(request.keeps_finished)
        async for frame in super().Watch(request, context):
            yield frame


@contextlib.asynccontextmanager
async def coordinator(folder: Path) -> AsyncIterator[tuple[ClusterShell, str]]:
    shell = ClusterShell(Cluster(ClusterConfig(), 0.0), "c", Journal(folder / "journal.sqlite3"), Access())
    server = Server(Guard(SecurityOptions()))
    rpc.add_ControlServicer_to_server(Noting(shell, cast(ManifestSource, None)), server.grpc)
    try:
        yield shell, await server.start("127.0.0.1:0")
    finally:
        await server.stop()
        await shell.close()


@pytest.mark.parametrize("keeps", [True, False])
def test_a_reader_that_does_not_keep_the_list_gets_all_of_it_in_every_frame(tmp_path: Path, keeps: bool) -> None:
    async def work() -> None:
        async with coordinator(tmp_path) as (shell, address), Client(address) as client:
            for number in range(60):
                shell.cluster.serving.past = shell.cluster.serving.past.followed_by(ended(number))
            stream = client._stub.Watch(pb.WatchRequest(keeps_finished=keeps))
            first = await stream.read()
            shell.cluster.serving.past = shell.cluster.serving.past.followed_by(ended(60))
            second, third = await stream.read(), await stream.read()
            stream.cancel()
        counts = [(len(f.status.ended.latest), f.num_finished_kept) for f in (first, second, third)]
        assert counts == ([(50, 0), (1, 49), (0, 50)] if keeps else [(50, 0)] * 3)

    asyncio.run(work())


def test_the_client_puts_the_list_together(tmp_path: Path) -> None:
    async def work() -> None:
        async with coordinator(tmp_path) as (shell, address), Client(address) as client:
            shell.cluster.serving.past = PastSessions((ended(2), ended(1)))
            async with contextlib.aclosing(client.watch(min_interval_s=0.1)) as watched:
                assert (await anext(watched)).status.ended.latest == (ended(2), ended(1))
                shell.cluster.serving.past = shell.cluster.serving.past.followed_by(ended(3))
                for _ in range(2):
                    frame = await anext(watched)
                    assert frame.status.ended.latest == (ended(3), ended(2), ended(1)) and frame.num_finished_kept == 0
            assert Noting.asked[-1]

    asyncio.run(work())
