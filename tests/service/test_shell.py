"""The shell around the cluster where processes cannot be made to race: registrations, and the order of what it does."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from engine.control import commands as do
from engine.control import events as on
from engine.control.cluster import Cluster, ClusterConfig
from engine.data import Exhausted, FinishReason, GenerateRequest
from engine.service.journal import Journal
from engine.service.shell import ClusterShell
from engine.service.text import TextCodec
from engine.service.worker_peer import PeerOptions
from tests.control.harness import spec


def test_a_worker_that_registers_again_stays_connected(tmp_path: Path) -> None:
    """The loss of its former self is carried out after the new one is connected, and must not cut it off."""

    async def work() -> None:
        shell = ClusterShell(Cluster(ClusterConfig(), 0.0), "c", Journal(tmp_path / "journal.sqlite3"), PeerOptions())
        for generation, pid in ((1, 1), (2, 2)):
            worker = spec("w1", pid=pid)
            shell.connect_peer("w1", worker.address)
            shell.feed(on.WorkerRegistered(worker, generation, ready=True))
            await asyncio.sleep(0)
        assert "w1" in shell._peers and shell._peers["w1"].address == spec("w1", pid=2).address
        assert any("registered again" in e.text for e in shell.events)
        await shell.close()

    asyncio.run(work())


def test_a_session_whose_last_token_could_not_be_journalled_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by drill seed 541: the cluster has finished the session by then, and the client must not be told that all is well."""

    async def work() -> None:
        journal = Journal(tmp_path / "journal.sqlite3")
        shell = ClusterShell(Cluster(ClusterConfig(), 0.0), "c", journal, PeerOptions())
        shell.codec = TextCodec(tmp_path)
        request = GenerateRequest(prompt_ids=(1, 2), max_new_tokens=1)
        journal.open_session("s-1", (1, 2), request)
        output = shell._new_output("s-1", (1, 2), request)
        output.take(0, 65)

        def full(*_: object) -> None:
            raise Exhausted("the journal cannot be written")

        monkeypatch.setattr(journal, "append_token", full)
        shell._backlog.extend((do.EmitToken("s-1", 0, 65, (), 0.0), do.FinishSession("s-1", FinishReason.LENGTH)))
        shell._drain()
        with pytest.raises(Exhausted, match="cannot be written"):
            async for chunk in output.stream(0):
                raise AssertionError(f"nothing was journalled, yet it gave {chunk}")
        kept = journal.session("s-1")
        assert kept is not None and kept.finish_reason is FinishReason.ERROR and isinstance(kept.error, Exhausted)
        await shell.close()

    asyncio.run(work())
