"""Answers that begin with keys and values of earlier ones: those of `generate()`, whatever happens. Real processes, a tiny model."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from engine.commands.cluster.generate import Transcript, transcribe
from engine.data.errors import NoodleError
from engine.data.generation import GenerateRequest
from engine.data.status import ClusterStatus
from engine.service.client import Client
from engine.service.trust.access import Access
from tests.service.matrix import MODEL, NUM_ITEMS, Matrix, ids, moved, random_stages, until
from tests.service.nursery import Nursery
from tests.service.reference import reference

FIRST = tuple(7 * i % 250 for i in range(60))
BLOCK = 16
TOKENS = {"worker": "w" * 20, "one": "a" * 20, "two": "b" * 20}


@dataclass
class Conversations(Matrix):
    """Three workers with little room for keys and values, if a test wants that."""

    kv_memory: str = "50M"
    token_file: str = ""

    def start_worker(self, worker_id: str) -> None:
        arguments = ["--join", self.address, "--id", worker_id, "--threads", "1", "--memory", "500M", "--kv-memory", self.kv_memory]
        arguments += ["--token-file", self.token_file] if self.token_file else []
        self.pids[worker_id], _ = self.nursery.start("worker", *arguments, "--log-level", "WARNING")

    async def idle(self, client: Client) -> ClusterStatus:
        """As the stages are once they have heard of everything: what they hold is what is kept, to the byte."""
        return await until(
            client, lambda s: sum(n.gauges.kv_used_bytes for n in s.nodes) == s.work.prefix_cache.kept_bytes and not s.sessions
        )


@pytest.fixture
def start(nursery: Nursery, tmp_path: Path) -> Iterator[Callable[..., Conversations]]:
    begun: list[Conversations] = []

    def start(**changes: Any) -> Conversations:
        nursery.folder = tmp_path
        begun.append(Conversations(nursery, **changes))
        begun[-1].start()
        return begun[-1]

    yield start
    for pid in [pid for cluster in begun for pid in cluster.pids.values()]:
        nursery.kill(pid)


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 240))


async def ask(client: Client, prompt: tuple[int, ...], num_tokens: int = 12) -> Transcript:
    """An answer, which is that of one process."""
    found = await transcribe(client, GenerateRequest(prompt_ids=prompt, max_new_tokens=num_tokens, ignore_eos=True))
    assert ids(found) == reference(MODEL, prompt, num_tokens)
    return found


def next_turn(asked: Transcript, *more: int) -> tuple[int, ...]:
    return (*asked.prompt_ids, *ids(asked), *more)


def whole_blocks(num_tokens: int) -> int:
    return num_tokens // BLOCK * BLOCK


def test_a_second_turn_computes_what_is_new_in_it(start: Callable[..., Conversations]) -> None:
    async def work() -> None:
        cluster = start()
        async with Client(cluster.address) as client:
            await cluster.ready(client)
            first = await ask(client, FIRST)
            assert first.document()["cached_tokens"] == 0
            second = await ask(client, next_turn(first, 3, 1, 4))
            assert second.cached_tokens == whole_blocks(60 + 11), "the newest token of an answer has no keys and values"
            again = await ask(client, second.prompt_ids)
            assert again.cached_tokens == whole_blocks(len(second.prompt_ids) - 1)
            found = (await cluster.idle(client)).work.prefix_cache
            assert found.cached_tokens == second.cached_tokens + again.cached_tokens > found.prompt_tokens / 2
            assert found.kept_bytes > 0 == found.num_evictions
            other = await ask(client, (9, *FIRST))
            assert other.cached_tokens == 0

    run(work())


def test_a_kill_and_a_move_amid_an_answer_that_began_with_kept_tokens(start: Callable[..., Conversations]) -> None:
    async def work() -> None:
        cluster = start()
        async with Client(cluster.address) as client:
            await cluster.ready(client)
            turn = next_turn(await ask(client, FIRST), 3)
            for what in ("move", "kill"):
                await reused(client, turn)
                got: list[int] = []
                async for chunk in client.generate(GenerateRequest(prompt_ids=turn, max_new_tokens=30, ignore_eos=True)):
                    got += [chunk.token_id] if chunk.index >= 0 else []
                    if chunk.index == 8 and what == "kill":
                        cluster.nursery.kill(cluster.pids["w2"])
                        await asyncio.to_thread(cluster.start_worker, "w2")
                    if chunk.index == 8 and what == "move":
                        await move(client)
                assert got == reference(MODEL, turn, 30), what
            await reused(client, turn)

    run(work())


def test_sessions_begin_with_the_prompt_of_one_that_runs_and_a_kill_changes_no_answer(start: Callable[..., Conversations]) -> None:
    """Nothing is kept before: the long one goes on all the time."""

    async def work() -> None:
        cluster = start()
        async with Client(cluster.address) as client:
            await cluster.ready(client)
            long = client.generate(GenerateRequest(prompt_ids=FIRST, max_new_tokens=300, ignore_eos=True))
            got = [(await anext(long)).token_id for _ in range(2)][1:]
            found = await asyncio.gather(*(ask(client, (*FIRST, i)) for i in range(3)))
            assert [f.cached_tokens for f in found] == [whole_blocks(60)] * 3
            killed = asyncio.create_task(ask(client, (*FIRST, 7, 7), 60))
            await until(client, lambda s: any(session.num_cached for session in s.sessions))
            cluster.nursery.kill(cluster.pids["w2"])
            await asyncio.to_thread(cluster.start_worker, "w2")
            await killed
            got += [chunk.token_id async for chunk in long if chunk.index >= 0]
            assert got == reference(MODEL, FIRST, 300)

    run(work())


async def move(client: Client) -> None:
    """To other stages, at random, once no other move is under way."""
    while True:
        status = await client.status()
        try:
            await client.apply(status.plan_version, "", random_stages(random.Random(1), [], NUM_ITEMS))
        except NoodleError:
            await asyncio.sleep(0.1)
            continue
        await moved(client, 1)
        return


async def reused(client: Client, turn: tuple[int, ...]) -> None:
    """Ask until an answer begins with what the one before it left: the cluster may still be changing its plan."""
    while not (await ask(client, turn)).cached_tokens:
        continue


def test_callers_do_not_share(start: Callable[..., Conversations], tmp_path: Path) -> None:
    lines = [f"worker {TOKENS['worker']}", f"operator {TOKENS['one']}", f"operator {TOKENS['two']}"]
    (tmp_path / "tokens").write_text("\n".join(lines))
    (tmp_path / "worker").write_text(lines[0])
    (tmp_path / "shared").write_text(",".join(map(str, range(100, 140))))
    arguments = ("--token-file", str(tmp_path / "tokens"), "--shared-prefix", str(tmp_path / "shared"))

    async def work() -> None:
        cluster = start(coordinator_arguments=arguments, token_file=str(tmp_path / "worker"))
        async with contextlib.AsyncExitStack() as stack:
            one, two, tenant, other = [
                await stack.enter_async_context(Client(cluster.address, Access(TOKENS[name]), whom))
                for name, whom in (("one", b""), ("two", b""), ("two", b"x"), ("two", b"y"))
            ]
            await cluster.ready(one)
            await ask(one, FIRST)
            assert [(await ask(c, FIRST)).cached_tokens for c in (two, tenant, other)] == [0, 0, 0]
            assert [(await ask(c, FIRST)).cached_tokens for c in (one, two, tenant, other)] == [whole_blocks(59)] * 4
            shared = tuple(range(100, 140))
            await ask(one, (*shared, *FIRST))
            assert (await ask(two, (*shared, *FIRST))).cached_tokens == whole_blocks(40)

    run(work())


def test_many_conversations_in_rotation_in_little_room(start: Callable[..., Conversations]) -> None:
    """50 conversations of 4 turns, 8 at a time. What is kept makes room all the time, and nobody is refused for it."""

    async def work() -> None:
        cluster = start(kv_memory="1500K")
        async with Client(cluster.address) as client:
            await cluster.ready(client)
            turns = {i: tuple((11 * i + 3 * j) % 250 for j in range(20 + i % 7)) for i in range(50)}
            cached, order = 0, [*range(50)]
            for turn in range(4):
                random.Random(turn).shuffle(order)  # in a circle the least recently used one is always the next
                for first in range(0, 50, 8):
                    some = order[first : first + 8]
                    for i, found in zip(some, await asyncio.gather(*(ask(client, turns[i], 8) for i in some)), strict=True):
                        turns[i] = next_turn(found, i, 5)
                        cached += found.cached_tokens
            status = await cluster.idle(client)
            assert status.ended.num_done == 200 and status.ended.num_failed == 0
            assert cached == status.work.prefix_cache.cached_tokens > 0
            assert status.work.prefix_cache.num_evictions > 0

    run(work())


@pytest.mark.parametrize("mode", ["auto", "off"])
def test_an_answer_that_is_cancelled_leaves_what_it_had_and_off_is_off(start: Callable[..., Conversations], mode: str) -> None:
    async def work() -> None:
        cluster = start(coordinator_arguments=("--prefix-cache", mode))
        async with Client(cluster.address) as client:
            await cluster.ready(client)
            request = GenerateRequest(prompt_ids=FIRST, max_new_tokens=400, ignore_eos=True)
            async with contextlib.aclosing(client.generate(request)) as chunks:
                async for chunk in chunks:
                    if chunk.index == 20:
                        break
            await cluster.idle(client)
            turn = (*FIRST, *reference(MODEL, FIRST, 10))
            assert (await ask(client, turn)).cached_tokens == (whole_blocks(69) if mode == "auto" else 0)

    run(work())
