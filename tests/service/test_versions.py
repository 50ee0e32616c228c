"""Programs of different versions say so before they misunderstand each other. Real processes, one of which speaks another protocol."""

from __future__ import annotations

import asyncio

import pytest

from engine.commands.cluster.generate import transcribe
from engine.data.errors import InvalidInput, NotFound, Refused
from engine.data.version import PROTOCOL_VERSION, Version, check_protocol
from engine.service.client import Client
from engine.service.incoming import check_version
from protos import noodle_pb2 as pb
from tests.service import other_protocol
from tests.service.matrix import MODEL, ids
from tests.service.nursery import Nursery
from tests.service.reference import reference
from tests.service.test_live import ask, events, until

COORDINATOR = ("--model", MODEL, "--random-weights", "0", "--workers", "1", "--listen", "127.0.0.1:0")


@pytest.mark.parametrize(("by", "who"), [(-1, "worker old"), (1, "the coordinator")])
def test_a_worker_of_another_protocol_is_refused_by_name_and_ends(nursery: Nursery, by: int, who: str) -> None:
    address = str(nursery.start("coordinator", *COORDINATOR)[1]["address"])
    its = ["--join", address, "--threads", "1", "--memory", "500M", "--kv-memory", "50M"]
    changed = {other_protocol.VARIABLE: str(PROTOCOL_VERSION + by)}
    pid, _ = nursery.start("worker", *its, "--id", "old", env=changed, prepare=other_protocol.__name__)
    said = nursery.log_of(pid, "pip install", 60.0)
    assert said.count("\n") == 1 and "Traceback" not in said
    assert f"(protocol {PROTOCOL_VERSION + by}), the coordinator is" in said and f"(protocol {PROTOCOL_VERSION})" in said
    assert f"they cannot work together; bring {who} up to date" in said

    async def work() -> None:
        async with Client(address) as client:
            assert any("cannot join: worker old is" in event.text for event in await events(client))
            nursery.start("worker", *its, "--id", "w1")
            await until(client, lambda status: bool(status.stages))
            answer = await transcribe(client, ask((1, 2, 3), 4))
            assert ids(answer) == reference(MODEL, (1, 2, 3), 4)

    asyncio.run(work())


def test_a_coordinator_that_drains_one_node_at_a_time_is_asked_for_no_more(nursery: Nursery) -> None:
    """It would read no name at all in a request for several, so that even then it drains nobody."""
    older = {other_protocol.VARIABLE: f"{PROTOCOL_VERSION}.0"}
    address = str(nursery.start("coordinator", *COORDINATOR, env=older, prepare=other_protocol.__name__)[1]["address"])

    async def work() -> None:
        async with Client(address) as client:
            for late in (client.plan(without=("w1", "w2")), client.drain(("w1", "w2")), client.undrain(("w1", "w2"))):
                with pytest.raises(
                    Refused, match=r"the coordinator is .* drains one node at a time: name one, or bring the coordinator up"
                ):
                    await late
            with pytest.raises(NotFound, match="worker w1 is not in the cluster"):
                await client.drain(("w1",))
            for nobody in ("", ()):
                with pytest.raises(NotFound, match="worker  is not in the cluster"):
                    await client.drain(nobody)

    asyncio.run(work())


def test_only_a_worker_of_this_protocol_may_join() -> None:
    check_protocol("w1", Version("0.0.1", PROTOCOL_VERSION))
    with pytest.raises(InvalidInput, match="package_version has 5000 characters"):
        check_version(pb.VersionReply(package_version="9" * 5000))
    with pytest.raises(Refused, match=r"worker w1 is 0\.0\.1"):
        check_protocol("w1", Version("0.0.1", PROTOCOL_VERSION + 1))
    with pytest.raises(Refused, match=r"worker w1 is of a version that it cannot tell, .* bring worker w1 up to date"):
        check_protocol("w1", Version("", 0))
