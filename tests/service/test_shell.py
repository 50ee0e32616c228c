"""The shell around the cluster where processes cannot be made to race: registrations, and the order of what it does."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from engine.control import commands as do
from engine.control import events as on
from engine.control.cluster import Cluster, ClusterConfig
from engine.control.sessions.past_sessions import PastSessions
from engine.data.errors import Exhausted, InvalidInput, Unavailable
from engine.data.generation import FinishReason, GenerateRequest, Used
from engine.data.plan import NodeSpec, Stage
from engine.data.sampling import GREEDY
from engine.data.status import SessionStatus, Severity
from engine.data.version import own_version
from engine.service.coordinator import peers, worker_peer
from engine.service.coordinator import shell as shell_module
from engine.service.coordinator.journal.journal import Journal, written
from engine.service.coordinator.metrics.tally import Tally
from engine.service.coordinator.outputs.session_output import SessionOutput
from engine.service.coordinator.shell import ClusterShell
from engine.service.coordinator.text.codec import TextCodec
from engine.service.coordinator.text.prompts import Prepared
from engine.service.options import SecurityOptions
from engine.service.process import Server
from engine.service.trust.access import Access
from engine.service.trust.guard import Guard
from engine.service.worker.stage_service import StageService
from engine.service.worker.weights.weight_supply import WeightSupply
from protos import noodle_pb2 as pb
from protos import noodle_pb2_grpc as rpc
from tests.control.harness import card, spec

USED = Used(GREEDY)


def test_a_worker_that_registers_again_stays_connected(tmp_path: Path) -> None:
    """The loss of its former self is carried out after the new one is connected, and must not cut it off."""

    async def work() -> None:
        shell = ClusterShell(Cluster(ClusterConfig(), 0.0), "c", Journal(tmp_path / "journal.sqlite3"), Access())
        async with serving("w1") as first, serving("w1") as second:
            for address in (first, second):
                await shell.admit(replace(spec("w1"), address=address), ready=True, version=own_version())
                shell.cluster.members.get("w1").stage = Stage("w1", 0, 5)  # type: ignore[union-attr]
                await asyncio.sleep(0)
            assert "w1" in shell.peers and shell.peers["w1"].address == second
            assert any("registered again" in e.text for e in shell.events)
            await shell.close()

    asyncio.run(work())


@contextlib.asynccontextmanager
async def serving(worker_id: str) -> AsyncIterator[str]:
    """A worker's server that has not imported torch yet."""
    server = Server(Guard(SecurityOptions()))
    rpc.add_StageServiceServicer_to_server(StageService(worker_id, cast(WeightSupply, None), Access()), server.grpc)
    try:
        yield await server.start("127.0.0.1:0")
    finally:
        await server.stop()


def at(worker_id: str, address: str) -> NodeSpec:
    return replace(spec(worker_id), address=address)


def test_a_worker_is_not_taken_at_an_address_where_it_is_not(tmp_path: Path) -> None:
    """Nobody listens there, or somebody else; it is said once, however often it asks."""

    async def work() -> None:
        shell = ClusterShell(Cluster(ClusterConfig(), 0.0), "c", Journal(tmp_path / "journal.sqlite3"), Access())
        with pytest.raises(Unavailable, match=r"worker w1 at 127\.0\.0\.1:1: .*--advertise"):
            await shell.admit(at("w1", "127.0.0.1:1"), ready=False, version=own_version())
        async with serving("w2") as address:
            for _ in range(2):
                with pytest.raises(Unavailable, match=r"worker w2 answers at .*, not w1.*--advertise"):
                    await shell.admit(at("w1", address), ready=False, version=own_version())
            assert not shell.peers
            await shell.admit(at("w2", address), ready=False, version=own_version())
            await asyncio.sleep(0)
            assert [e.text.split(":")[0] for e in shell.events][:2] == ["cannot join", "cannot join"]
            assert "joined" in [*shell.events][2].text and len([*shell.events]) == 3
            await shell.close()

    asyncio.run(work())


@contextlib.asynccontextmanager
async def slow(worker_id: str, num_silent: int) -> AsyncIterator[tuple[str, list[int]]]:
    """A worker whose machine is so busy that it does not get to answer `num_silent` greetings; and how many there were."""
    asked = [0]

    class Slow(rpc.StageServiceServicer):
        async def GetStageStatus(self, request: pb.GetStageStatusRequest, context: object) -> pb.StageServiceStatus:
            asked[0] += 1
            if asked[0] <= num_silent:
                await asyncio.Event().wait()
            return pb.StageServiceStatus(worker_id=worker_id)

    server = Server(Guard(SecurityOptions()))
    rpc.add_StageServiceServicer_to_server(Slow(), server.grpc)
    try:
        yield await server.start("127.0.0.1:0"), asked
    finally:
        await server.stop()


def test_a_worker_that_is_slow_at_its_start_is_waited_for_and_nobody_is_alarmed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_peer, "GREETING_TIMEOUT_S", 0.3)

    async def work() -> None:
        shell = ClusterShell(Cluster(ClusterConfig(), 0.0), "c", Journal(tmp_path / "journal.sqlite3"), Access())
        async with slow("w1", 3) as (address, asked):
            await shell.admit(at("w1", address), ready=False, version=own_version())
            await asyncio.sleep(0)
            assert asked[0] >= 4 and [e.text.split(" ")[0] for e in shell.events] == ["joined"]
        monkeypatch.setattr(peers, "PATIENCE_S", 0.5)
        async with slow("w2", 10**9) as (address, asked):
            with pytest.raises(Unavailable, match=r"worker w2 at .* does not answer: .*--listen or --advertise"):
                await shell.admit(at("w2", address), ready=False, version=own_version())
            assert asked[0] >= 2 and [*shell.events][-1].text.startswith("cannot join: worker w2")
        await shell.close()

    asyncio.run(work())


def test_warnings_are_acknowledged_up_to_an_event_and_the_next_coordinator_knows(tmp_path: Path) -> None:
    async def work() -> None:
        shell = ClusterShell(Cluster(ClusterConfig(), 0.0), "c", Journal(tmp_path / "journal.sqlite3"), Access())
        for severity in (Severity.WARN, Severity.INFO, Severity.ERROR, Severity.OK, Severity.WARN):
            shell.record(do.Record(severity, "node", "w1", "something"))
        assert shell.status().alarms.num_unacknowledged == 3
        with pytest.raises(InvalidInput, match="there is no event 6 yet: the newest is 5"):
            shell.events.acknowledge(6)
        assert shell.events.acknowledge(3) == 2 and shell.status().alarms.num_unacknowledged == 1
        assert shell.events.acknowledge(2) == 0 and shell.status().alarms.acknowledged_sequence == 3  # what was seen stays seen
        assert shell.events.acknowledge(0) == 1 and shell.status().alarms.num_unacknowledged == 0
        shell.record(do.Record(Severity.ERROR, "node", "w1", "again"))
        await shell.close()
        again = ClusterShell(Cluster(ClusterConfig(), 0.0), "c", Journal(tmp_path / "journal.sqlite3"), Access())
        assert (again.status().alarms.acknowledged_sequence, again.status().alarms.num_unacknowledged) == (5, 1)
        await again.close()

    asyncio.run(work())


def test_a_session_whose_last_token_could_not_be_journalled_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by drill seed 541: the cluster has finished the session by then, and the client must not be told that all is well."""

    async def work() -> None:
        journal = Journal(tmp_path / "journal.sqlite3")
        shell = ClusterShell(Cluster(ClusterConfig(), 0.0), "c", journal, Access())
        shell.outputs.speak(TextCodec(tmp_path))
        request = GenerateRequest(prompt_ids=(1, 2), max_new_tokens=1)
        journal.open_session(written("s-1", (1, 2), request, USED))
        output = shell.outputs._new("s-1", Prepared((1, 2), USED), request)

        def full(*_: object) -> None:
            raise Exhausted("the journal cannot be written")

        monkeypatch.setattr(journal, "append_token", full)
        done = SessionStatus("s-1", "done", 2, 1, 1, 0.1, 0.0, 0.1, finish_reason="length")
        shell._backlog.extend((do.EmitToken("s-1", 0, 65, (), 0.0), do.FinishSession("s-1", FinishReason.LENGTH, None, done)))
        shell._drain()
        with pytest.raises(Exhausted, match="cannot be written"):
            async for chunk in output.stream(0):
                raise AssertionError(f"nothing was journalled, yet it gave {chunk}")
        kept = journal.session("s-1")
        assert kept is not None and kept.finish_reason is FinishReason.ERROR and isinstance(kept.error, Exhausted)
        assert journal.past_sessions() == PastSessions((replace(done, state="failed", finish_reason="error", why=str(kept.error)),), 0, 1)
        await shell.close()

    asyncio.run(work())


@pytest.mark.parametrize("is_full", [False, True])
def test_tokens_of_a_step_are_journalled_at_once_and_one_that_cannot_be_fails_alone(
    is_full: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        journal = Journal(tmp_path / "journal.sqlite3")
        shell = ClusterShell(Cluster(ClusterConfig(), 0.0), "c", journal, Access())
        shell.outputs.speak(TextCodec(tmp_path))
        request = GenerateRequest(prompt_ids=(1, 2), max_new_tokens=4)
        names = ("s-1", "s-2", "s-3")
        for name in names:
            journal.open_session(written(name, (1, 2), request, USED))
        outputs = {name: shell.outputs._new(name, Prepared((1, 2), USED), request) for name in names}
        if is_full:  # the row of s-2 has no room; the other tables take no more pages
            append, wide = journal.append_token, tuple(range(50_000))
            journal._db.execute(f"PRAGMA max_page_count = {journal._db.execute('PRAGMA page_count').fetchone()[0] + 1}")

            def widened(session_id: str, *row: Any) -> None:
                if session_id == "s-2":
                    journal.open_session(written("wide", wide, request, USED))
                append(session_id, *row)

            monkeypatch.setattr(journal, "append_token", widened)
        statements: list[str] = []
        journal._db.set_trace_callback(statements.append)
        shell._backlog.extend(do.EmitToken(name, 0, 65, (), 0.0) for name in names)
        shell._drain()
        journal._db.set_trace_callback(None)
        assert statements.count("COMMIT") == (not is_full) and statements.count("ROLLBACK") <= is_full
        good = [name for name in names if not is_full or name != "s-2"]
        assert [name for name in names if journal.tokens(name)] == good
        assert [name for name, output in outputs.items() if output._chunks] == good
        assert [name for name, output in outputs.items() if output.fault is None] == good
        await shell.close()

    asyncio.run(work())


def test_sessions_for_which_the_disk_has_no_room_have_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that cannot be written down when it comes, and one whose next token cannot: clients are told, and operators can count."""

    async def work() -> None:
        journal = Journal(tmp_path / "journal.sqlite3")
        shell = ClusterShell(Cluster(ClusterConfig(), time.monotonic()), "c", journal, Access())
        shell.outputs.speak(TextCodec(tmp_path))
        shell.feed(on.ModelReady(card()))
        shell.count_in(tally := Tally(shell.cluster))
        request = GenerateRequest(prompt_ids=(1, 2), max_new_tokens=4)

        def begin(session_id: str) -> SessionOutput:
            event, session = on.SessionSubmitted(session_id, (1, 2), request), written(session_id, (1, 2), request, USED)
            return shell.outputs.open(event, Prepared((1, 2), USED), session)

        running = begin("s-1")
        journal._db.execute(f"PRAGMA max_page_count = {journal._db.execute('PRAGMA page_count').fetchone()[0]}")
        wide = tuple(range(50_000))  # there may be room left within a page
        with pytest.raises(Exhausted, match="cannot be written"):
            shell.outputs.open(on.SessionSubmitted("s-2", (1, 2), request), Prepared((1, 2), USED), written("s-2", wide, request, USED))
        monkeypatch.setattr(journal, "append_token", lambda *_: journal.open_session(written("s-3", wide, request, USED)))
        shell._backlog.append(do.EmitToken("s-1", 0, 65, (), 0.0))
        shell._drain()
        shell._drain()
        with pytest.raises(Exhausted, match="cannot be written"):
            async for chunk in running.stream(0):
                raise AssertionError(f"nothing was journalled, yet it gave {chunk}")
        status = shell.status()
        assert [(s.session_id, s.state, s.finish_reason) for s in status.ended.latest] == [
            ("s-1", "failed", "error"),
            ("s-2", "failed", "error"),
        ]
        assert (status.ended.num_failed, status.ended.num_done, status.sessions) == (2, 0, ())
        assert all("cannot be written" in s.why for s in status.ended.latest)
        assert tally.registry.get_sample_value("noodle_request_failures_total", {"cause": "exhausted"}) == 2
        with pytest.raises(InvalidInput):  # what is refused never was a session
            shell.outputs.open(on.SessionSubmitted("s-4", (1,) * 100, request), Prepared((1, 2), USED), written("s-4", (1,), request, USED))
        assert shell.status().ended.num_failed == 2
        assert tally.registry.get_sample_value("noodle_requests_refused_total", {"cause": "invalid_input"}) == 1
        await shell.close()

    asyncio.run(work())


def test_of_workers_that_cannot_join_only_the_newest_names_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell_module, "MAX_TURNED_AWAY", 3)

    async def work() -> None:
        shell = ClusterShell(Cluster(ClusterConfig(), 0.0), "c", Journal(tmp_path / "journal.sqlite3"), Access())
        async with serving("w0") as address:
            for name in ("w1", "w2", "w3", "w3", "w4", "w5", "w5", "w1"):
                with pytest.raises(Unavailable, match=f"answers at .*, not {name}"):
                    await shell.admit(at(name, address), ready=False, version=own_version())
        assert [e.subject for e in shell.events] == ["w1", "w2", "w3", "w4", "w5", "w1"] and len(shell._turned_away) == 3
        await shell.close()

    asyncio.run(work())


def test_sessions_that_are_taken_over_keep_their_age_and_one_that_cannot_go_on_ends(tmp_path: Path) -> None:
    async def work() -> None:
        journal = Journal(tmp_path / "journal.sqlite3")
        for session_id, prompt_ids in (("s-1", (1, 2)), ("s-long", (1,) * 100)):
            journal.open_session(written(session_id, prompt_ids, GenerateRequest(prompt_ids=prompt_ids), USED))
        journal._db.execute("UPDATE sessions SET wall_s = wall_s - 5000")
        shell = ClusterShell(Cluster(ClusterConfig(), time.monotonic()), "c", journal, Access())
        shell.outputs.speak(TextCodec(tmp_path))
        shell.feed(on.ModelReady(card()))
        shell.outputs.restore()
        await asyncio.sleep(0)  # what the cluster wants done is done in the loop's next round
        status = shell.status()
        assert [(s.session_id, s.age_s >= 5000) for s in (*status.sessions, *status.ended.latest)] == [("s-1", True), ("s-long", True)]
        assert "shorten the prompt" in status.ended.latest[0].why and journal.past_sessions().latest == status.ended.latest
        assert journal.unfinished() == ["s-1"]
        await shell.close()

    asyncio.run(work())
