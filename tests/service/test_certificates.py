"""A cluster whose machines know each other by certificates: real processes, a live move, and one that is revoked."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from engine.cli import main
from engine.commands.cluster.generate import transcribe
from engine.data.plan import Stage
from engine.data.status import ClusterStatus, Phase
from engine.service.client import Client
from engine.service.trust.access import Access, access_of_client
from engine.service.trust.options import AccessOptions
from protos import noodle_pb2 as pb
from protos import noodle_pb2_grpc as rpc
from tests.service.matrix import MODEL, NUM_ITEMS, PROMPT, ids
from tests.service.nursery import Nursery
from tests.service.reference import reference
from tests.service.test_live import ask, events, moved, until


@dataclass
class Cluster:
    """A coordinator, w1 and w2, and the folder of the authority that knows them all."""

    folder: Path
    nursery: Nursery
    address: str = ""
    pids: dict[str, int] = field(default_factory=dict)

    def tls(self, name: str) -> list[str]:
        return ["--tls-cert", f"{self.folder / name}.pem", "--tls-key", f"{self.folder / name}.key", "--tls-ca", f"{self.folder}/ca.pem"]

    def access(self, name: str) -> Access:
        paths = {"tls_cert": self.folder / f"{name}.pem", "tls_key": self.folder / f"{name}.key", "tls_ca": self.folder / "ca.pem"}
        return access_of_client(AccessOptions(token=None, token_file=None, tls=False, **paths), self.address)

    def start_worker(self, name: str, *more: str, certificate: str = "") -> int:
        argv = ("worker", "--join", self.address, "--threads", "1", "--memory", "500M", "--kv-memory", "50M")
        return self.nursery.start(*argv, *more, *self.tls(certificate or name))[0]

    def run(self, work: Callable[[Client], Coroutine[Any, Any, Any]], name: str = "ann") -> Any:
        async def connected() -> Any:
            async with Client(self.address, self.access(name)) as client:
                return await asyncio.wait_for(work(client), 120)

        return asyncio.run(connected())


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("pki")
    certs = ("certs", "--dir", str(folder))
    assert main([*certs, "init"]) == 0
    for name, role, hosts in (
        ("c1", "coordinator", ["--host", "127.0.0.1"]),
        ("w1", "worker", []),
        ("w2", "worker", []),
        ("ann", "operator", []),
    ):
        assert main([*certs, "node", name, "--role", role, *hosts]) == 0
    found = Cluster(folder, Nursery())
    argv = ["--model", MODEL, "--random-weights", "0", "--workers", "2", "--strategy", "balanced", "--listen", "127.0.0.1:0"]
    found.pids["c1"], announced = found.nursery.start("coordinator", *argv, *found.tls("c1"))
    found.address = str(announced["address"])
    for name in ("w1", "w2"):
        found.pids[name] = found.start_worker(name)
    found.run(lambda client: until(client, lambda s: s.phase is Phase.SERVING))
    yield found
    found.nursery.close()


def addresses(status: ClusterStatus) -> dict[str, str]:
    return {n.worker_id: n.address for n in status.nodes}


def test_nodes_have_the_names_in_their_certificates(cluster: Cluster) -> None:
    async def work(client: Client) -> None:
        status = await client.status()
        assert {n.worker_id for n in status.nodes} == {"w1", "w2"}

    cluster.run(work)


def test_layers_move_with_keys_and_values_and_no_token_changes(cluster: Cluster) -> None:
    async def work(client: Client) -> None:
        answer = asyncio.create_task(transcribe(client, ask(PROMPT, 300)))
        status = await until(client, lambda s: bool(s.sessions) and s.sessions[0].num_generated > 5)
        cut = next(c for c in (2, 4) if status.stages[0].stop != c)
        await client.apply(status.plan_version, "", [Stage("w1", 0, cut), Stage("w2", cut, NUM_ITEMS)])
        (report,) = await moved(client, 1)
        assert report.outcome == "done" and report.kv_bytes > 0
        assert ids(await answer) == reference(MODEL, PROMPT, 300)

    cluster.run(work)


@pytest.mark.parametrize(
    ("name", "method", "request_", "words"),
    [
        ("w1", "ExportKv", pb.ExportKvRequest(session_id="s-1"), "no change of plan lets w1 read keys and values of w2"),
        ("w1", "Unload", pb.UnloadRequest(), "needs the role coordinator, this certificate has the role worker"),
        ("w1", "GrantKv", pb.GrantKvRequest(to_worker_id="w1"), "needs the role coordinator, this certificate has the role worker"),
        ("ann", "SetSlowdown", pb.SetSlowdownRequest(factor=2), "needs the role coordinator, this certificate has the role operator"),
    ],
)
def test_one_machine_of_the_cluster_cannot_command_or_read_another(
    cluster: Cluster, name: str, method: str, request_: Any, words: str
) -> None:
    """As if w1 had been stolen: after a move, so what was granted once is granted for that move alone."""

    async def work(client: Client) -> str:
        address = addresses(await client.status())["w2"]
        async with Access(None, cluster.access(name).trusted, by_name=True).channel(address, "w2") as channel:
            call = getattr(rpc.StageServiceStub(channel), method)(request_)
            return f"{await call.code()} {await call.details()}"

    told = cluster.run(work)
    assert "PERMISSION_DENIED" in told and words in told


def test_a_certificate_is_good_for_its_own_name_alone(cluster: Cluster) -> None:
    pid = cluster.start_worker("w1", "--id", "w3")
    assert "the certificate is that of w1, which cannot speak as w3" in cluster.nursery.log_of(pid, "cannot speak as", 60)


def test_a_machine_that_is_found_at_anothers_address_is_not_taken_for_it(cluster: Cluster) -> None:
    async def work(client: Client) -> str:
        address = addresses(await client.status())["w2"]
        async with Access(None, cluster.access("ann").trusted, by_name=True).channel(address, "w1") as channel:
            try:
                await rpc.StageServiceStub(channel).GetStageStatus(pb.GetStageStatusRequest(), timeout=20)
            except grpc.aio.AioRpcError as e:
                return str(e.code())
        return "answered"

    assert "UNAVAILABLE" in cluster.run(work)


def test_a_revoked_machine_is_cut_and_the_session_goes_on_without_it(cluster: Cluster) -> None:
    async def work(client: Client) -> None:
        answer = asyncio.create_task(transcribe(client, ask(PROMPT, 300)))
        await until(client, lambda s: bool(s.sessions) and s.sessions[0].num_generated > 5)
        assert main(["certs", "--dir", str(cluster.folder), "revoke", "w2"]) == 0
        os.kill(cluster.pids["c1"], signal.SIGHUP)
        status = await until(client, lambda s: {st.worker_id for st in s.stages} == {"w1"})
        lost = next(n for n in status.nodes if n.worker_id == "w2")
        assert (lost.state, lost.detail) == ("lost", "its certificate was revoked")
        assert "lost: its certificate was revoked" in [e.text for e in await events(client) if e.subject == "w2"]
        assert ids(await answer) == reference(MODEL, PROMPT, 300)

    cluster.run(work)
    assert "the certificate of w2 was revoked" in cluster.nursery.log_of(cluster.pids["w2"], "revoked", 60)
