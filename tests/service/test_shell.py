"""The shell around the cluster where processes cannot be made to race: registrations, and the order of what it does."""

from __future__ import annotations

import asyncio
from pathlib import Path

from engine.control import events as on
from engine.control.cluster import Cluster, ClusterConfig
from engine.service.journal import Journal
from engine.service.shell import ClusterShell
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
