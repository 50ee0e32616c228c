"""Two processes with one name, or one address, or one session id: the first keeps it, the second is told. Real processes."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from engine.commands.cluster.generate import transcribe
from engine.data.errors import Refused, check_name
from engine.data.status import ClusterStatus, NodeStatus, Phase
from engine.service.client import Client
from engine.service.worker.options import default_id
from protos import noodle_pb2 as pb
from tests.service.holding import Holding
from tests.service.matrix import MODEL, PROMPT, ids
from tests.service.nursery import Nursery
from tests.service.reference import reference
from tests.service.test_live import ask, events, until

TAKEN = "the name node1 is taken by a worker that is alive on host"


@dataclass
class Pair:
    """A coordinator and the worker node1."""

    nursery: Nursery
    address: str = ""
    pid: int = 0

    def start_node1(self) -> int:
        arguments = ["--join", self.address, "--id", "node1", "--threads", "1", "--memory", "500M", "--kv-memory", "50M"]
        return self.nursery.start("worker", *arguments)[0]

    def run(self, work: Callable[[Client], Coroutine[Any, Any, Any]]) -> Any:
        async def connected() -> Any:
            async with Client(self.address) as client:
                return await asyncio.wait_for(work(client), 120)

        return asyncio.run(connected())


@pytest.fixture
def pair(nursery: Nursery) -> Iterator[Pair]:
    pair = Pair(nursery)
    arguments = ["--model", MODEL, "--random-weights", "0", "--workers", "1", "--listen", "127.0.0.1:0"]
    pair.address = str(nursery.start("coordinator", *arguments)[1]["address"])
    pair.pid = pair.start_node1()
    pair.run(lambda client: until(client, serves(pair.pid)))
    yield pair
    for pid in [*nursery.pids]:
        nursery.kill(pid)


def node1(status: ClusterStatus) -> NodeStatus:
    return next(n for n in status.nodes if n.worker_id == "node1")


def serves(pid: int) -> Callable[[ClusterStatus], bool]:
    return lambda status: status.phase is Phase.SERVING and node1(status).pid == pid


def test_a_second_worker_of_a_name_is_refused_before_it_imports_torch(pair: Pair, tmp_path: Path) -> None:
    holding = Holding(tmp_path, "import:torch")
    for _ in range(2):
        twin = holding.start("worker", "--join", pair.address, "--id", "node1", "--memory", "500M")
        assert twin.wait(60) == 2 and twin.stderr is not None
        said = twin.stderr.read()
        assert TAKEN in said and "with another --id" in said and "Traceback" not in said and said.isascii()
        assert not holding.mark.exists()

    async def work(client: Client) -> None:
        status, told = await client.status(), await events(client)
        assert node1(status).pid == pair.pid and status.plan_version == 1
        assert [e.text.startswith(f"cannot join: {TAKEN}") for e in told if "cannot join" in e.text] == [True]  # said once
        assert ids(await transcribe(client, ask(PROMPT, 8))) == reference(MODEL, PROMPT, 8)

    pair.run(work)


def test_a_worker_that_was_killed_is_replaced_at_once(pair: Pair) -> None:
    os.kill(pair.pid, signal.SIGKILL)
    successor = pair.start_node1()

    async def work(client: Client) -> list[str]:
        await until(client, serves(successor))
        return [e.text for e in await events(client) if e.subject == "node1" and e.text.startswith("lost")]

    assert pair.run(work) == ["lost: its connection broke"], "its lease was not waited for"


def test_a_worker_that_stands_still_loses_its_name_with_its_lease_and_goes_when_it_wakes(pair: Pair) -> None:
    os.kill(pair.pid, signal.SIGSTOP)
    successor = pair.start_node1()
    pair.run(lambda client: until(client, serves(successor)))
    os.kill(pair.pid, signal.SIGCONT)
    assert TAKEN in pair.nursery.log_of(pair.pid, TAKEN, 60)
    assert node1(pair.run(lambda client: client.status())).pid == successor


def test_default_names_are_readable_and_differ_where_hosts_and_pids_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.node", lambda: "box_ü.local")
    monkeypatch.setattr("os.getpid", lambda: 1)
    names = {default_id() for _ in range(50)}
    assert len(names) == 50
    for name in names:
        assert check_name("worker id", name).startswith("box--.local-") and name[12:].isalpha() and len(name) == 20


def test_the_id_of_a_session_does_not_give_out_another_ones_answer(pair: Pair) -> None:
    async def work(client: Client) -> None:
        first = pb.GenerateRequest(prompt_ids=PROMPT, max_new_tokens=8, ignore_eos=True, session_id="mine", sampling=pb.Sampling(top_p=1.0))
        first.sampling.repetition_penalty = 1.0
        tokens = [
            [c.token_id async for c in client._stream(client._stub.Generate(first, metadata=client._metadata)) if c.index >= 0]
            for _ in range(2)
        ]
        assert tokens == [reference(MODEL, PROMPT, 8)] * 2  # asked again, as after a broken connection
        other = pb.GenerateRequest()
        other.CopyFrom(first)
        other.prompt_ids[0] += 1
        with pytest.raises(Refused, match="session mine is another request's: choose another id"):
            async for chunk in client._stream(client._stub.Generate(other, metadata=client._metadata)):
                raise AssertionError(f"it gave {chunk}")

    pair.run(work)


def test_of_two_sessions_with_one_id_at_once_one_begins_and_the_other_is_told(pair: Pair) -> None:
    """They come while the first one's prompt is being read; two that ask for the same get the same tokens."""

    async def work(client: Client) -> None:
        def request(text: str) -> pb.GenerateRequest:
            asked = pb.GenerateRequest(prompt=text, max_new_tokens=4, ignore_eos=True, session_id="both", sampling=pb.Sampling(top_p=1.0))
            asked.sampling.repetition_penalty = 1.0
            return asked

        async def tokens(text: str) -> list[int] | str:
            try:
                stream = client._stream(client._stub.Generate(request(text), metadata=client._metadata))
                return [c.token_id async for c in stream if c.index >= 0]
            except Refused as e:
                return str(e)

        answers = await asyncio.gather(tokens("a" * 500), tokens("b" * 500), tokens("a" * 500))
        told = [answer for answer in answers if isinstance(answer, str)]
        begun = [answer for answer in answers if isinstance(answer, list)]
        assert len(told) in (1, 2) and all("both is another request's" in text for text in told), answers  # whichever came first
        assert all(len(answer) == 4 and answer == begun[0] for answer in begun), answers
        assert (isinstance(answers[0], str), isinstance(answers[1], str)) in ((True, False), (False, True)), answers

    pair.run(work)


def test_a_unix_socket_is_not_taken_away_from_the_server_behind_it(pair: Pair, tmp_path: Path) -> None:
    listen = f"unix:{tmp_path}/noodle.sock"
    arguments = ["coordinator", "--model", MODEL, "--random-weights", "0", "--listen", listen]
    pair.nursery.start(*arguments)
    second = Holding(tmp_path, "import:torch").start(*arguments)
    assert second.wait(60) == 1 and second.stderr is not None
    assert f"cannot listen on {listen}: another server answers there" in second.stderr.read()

    async def still_there() -> str:
        async with Client(listen) as client:
            return (await client.status()).cluster_id

    assert asyncio.run(still_there()).startswith("noodle-")
