"""`drain`, `undrain`, `forget` and `acknowledge` as an operator types them, over a loss and a restart of the coordinator."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from engine.data.status import ClusterStatus, NodeState, Phase
from engine.service.client import Client
from tests.service.matrix import MODEL
from tests.service.nursery import Nursery
from tests.service.test_live import until


@dataclass
class Operated:
    """Workers w1, w2 and so on, and a coordinator with a journal."""

    nursery: Nursery
    state: Path
    num_workers: int = 2
    address: str = "127.0.0.1:0"
    pids: dict[str, int] = field(default_factory=dict)

    def start_coordinator(self) -> None:
        arguments = [
            "--model",
            MODEL,
            "--random-weights",
            "0",
            "--workers",
            str(self.num_workers),
            "--strategy",
            "balanced",
            "--state-dir",
            str(self.state),
            "--listen",
            self.address,
        ]
        self.pids["coordinator"], said = self.nursery.start("coordinator", *arguments)
        self.address = str(said["address"])

    def start_worker(self, worker_id: str) -> None:
        arguments = ["--join", self.address, "--id", worker_id, "--threads", "1", "--memory", "500M", "--kv-memory", "50M"]
        self.pids[worker_id] = self.nursery.start("worker", *arguments)[0]

    def until(self, condition: Callable[[ClusterStatus], bool]) -> ClusterStatus:
        async def work() -> ClusterStatus:
            async with Client(self.address) as client:
                return await asyncio.wait_for(until(client, condition), 120)

        return asyncio.run(work())

    def ask(self, *arguments: str, code: int = 0) -> str:
        """What a command writes: to stdout if all is well, else to stderr."""
        command = [sys.executable, "-m", "engine", *arguments, "--connect", self.address]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == code and "Traceback" not in done.stderr, done.stderr
        return done.stderr if code else done.stdout


@pytest.fixture
def cluster(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Operated]:
    operated = Operated(Nursery(), tmp_path / "state", getattr(request, "param", 2))
    operated.start_coordinator()
    for number in range(operated.num_workers):
        operated.start_worker(f"w{number + 1}")
    operated.until(lambda s: s.phase is Phase.SERVING)
    yield operated
    operated.nursery.close()


def serves_on(*names: str) -> Callable[[ClusterStatus], bool]:
    return lambda s: s.phase is Phase.SERVING and [stage.worker_id for stage in s.stages] == list(names)


def test_a_drain_can_be_taken_back_and_outlives_a_crash_and_a_lost_node_can_be_forgotten(cluster: Operated) -> None:
    plan = json.loads(cluster.ask("drain", "w2", "--json"))
    assert [s["node_id"] for s in plan["stages"]] == ["w1"]
    cluster.until(serves_on("w1"))
    assert "w2 is drained already: `noodle-engine undrain w2`" in cluster.ask("drain", "w2", code=2)

    cluster.nursery.kill(cluster.pids["coordinator"])
    cluster.start_coordinator()
    status = cluster.until(lambda s: serves_on("w1")(s) and len(s.nodes) == 2)
    assert [n.is_drained for n in status.nodes] == [False, True]

    cluster.ask("undrain", "w2", "--json")  # the new coordinator may still be measuring w2, so the plan with it comes when it comes
    cluster.until(lambda s: len(s.stages) == 2)
    assert "w1 is not drained" in cluster.ask("undrain", "w1", code=2)

    cluster.nursery.kill(cluster.pids["w2"])
    cluster.until(lambda s: serves_on("w1")(s) and s.nodes[-1].state is NodeState.LOST)
    assert "w1 is alive (ok): stop its worker first" in cluster.ask("forget", "w1", code=2)
    assert "no node is called w9" in cluster.ask("forget", "w9", code=1)
    assert json.loads(cluster.ask("forget", "w2", "--json")) == {"forgotten": "w2"}
    status = cluster.until(lambda s: len(s.nodes) == 1)
    assert status.num_workers_expected == 1

    warned = "that nobody has acknowledged: noodle-engine events, then noodle-engine acknowledge"
    assert warned in cluster.ask("status")
    assert json.loads(cluster.ask("acknowledge", "--json"))["num_warnings"] > 0
    assert warned not in cluster.ask("status")
    assert "there is no event 99999 yet" in cluster.ask("acknowledge", "99999", code=2)


@pytest.mark.parametrize("cluster", [3], indirect=True)
def test_several_nodes_are_drained_with_one_plan_and_taken_in_again_with_one(cluster: Operated) -> None:
    before = cluster.until(lambda s: len(s.stages) == 3)
    assert "worker w9 is not in the cluster" in cluster.ask("drain", "w1", "w9", code=1)
    seen = str(before.plan_version)
    plan = json.loads(cluster.ask("drain", "w3", "w1", "w3", "--for-plan", seen, "--json"))
    assert [s["node_id"] for s in plan["stages"]] == ["w2"]
    status = cluster.until(serves_on("w2"))
    assert status.plan_version == before.plan_version + 1, "there was no plan between"
    assert [n.is_drained for n in status.nodes] == [True, False, True]
    cluster.ask("undrain", "w1", "w3", "--json")
    status = cluster.until(lambda s: len(s.stages) == 3)
    assert status.plan_version == before.plan_version + 2 and not any(n.is_drained for n in status.nodes)
