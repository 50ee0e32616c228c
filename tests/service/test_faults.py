"""An exception while one session's output is handled ends that session alone, and no worker is accused of it. Real processes."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Iterator

import pytest

from engine.commands.cluster.generate import Transcript, transcribe
from engine.data.errors import Bug
from engine.data.generation import FinishReason, GenerateRequest
from engine.service.client import Client
from tests.service import faults
from tests.service.matrix import MODEL, PROMPTS, Matrix, ids, until
from tests.service.nursery import Nursery
from tests.service.reference import reference

NUM_TOKENS = 16
BYSTANDER_TOKENS = 120
LOG_S = 20.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Matrix]:
    nursery = Nursery()
    nursery.folder = tmp_path_factory.mktemp("faults")
    cluster = Matrix(nursery, prepare="tests.service.faults")
    cluster.coordinator_arguments = ("--metrics-dir", str(nursery.folder / "metrics"), "--adapt", "suggest")
    cluster.start()
    yield cluster
    nursery.close()


def victim_of(step: str) -> GenerateRequest:
    prompt = (faults.FIRST + faults.STEPS.index(step), 7, 8)
    return GenerateRequest(prompt_ids=prompt, max_new_tokens=NUM_TOKENS, ignore_eos=True, stop=("never said",))


async def beside(client: Client, request: GenerateRequest) -> tuple[Transcript | Exception, list[Transcript]]:
    """One session among three others, which are in the midst of their answers when it begins."""
    prompts = PROMPTS[:3]
    are_running, num_running = asyncio.Event(), 0

    def show(chunk: object) -> None:
        nonlocal num_running
        num_running += getattr(chunk, "index", -1) == 2
        if num_running == len(prompts):
            are_running.set()

    others = [
        asyncio.create_task(transcribe(client, GenerateRequest(prompt_ids=p, max_new_tokens=BYSTANDER_TOKENS, ignore_eos=True), show))
        for p in prompts
    ]
    await are_running.wait()
    (result,) = await asyncio.gather(transcribe(client, request), return_exceptions=True)
    assert not isinstance(result, BaseException) or isinstance(result, Exception)
    assert not all(task.done() for task in others), "the others must have run beside it"
    return result, await asyncio.gather(*others)


async def accusations(client: Client) -> list[str]:
    """Workers that were called lost, but for those that a busy machine kept from beating."""
    async with contextlib.aclosing(client.watch()) as frames:
        async for frame in frames:
            lost = [e.text for e in frame.events if e.kind == "node" and e.text.startswith("lost")]
            return [text for text in lost if not text.startswith(("lost: silent", "lost: no heartbeat"))]
    raise AssertionError("the watch ended")


def check(cluster: Matrix, step: str, ends: bool) -> None:
    async def work() -> None:
        async with Client(cluster.address) as client:
            before, told = await cluster.ready(client), await accusations(client)
            result, others = await beside(client, victim_of(step))
            assert [ids(t) for t in others] == [reference(MODEL, t.prompt_ids, BYSTANDER_TOKENS) for t in others]
            if ends:
                assert isinstance(result, Bug), result
            else:
                assert isinstance(result, Transcript) and ids(result) == reference(MODEL, result.prompt_ids, NUM_TOKENS)
                assert result.finish_reason is FinishReason.LENGTH
            assert (await client.status()).ended.num_failed - before.ended.num_failed == ends
            assert await accusations(client) == told
            whose = [cluster.pids[n] for n in (("w1", "w2", "w3") if step == "sampling" else ("coordinator",))]
            found = re.search(r"incident ([0-9a-f]{8})", str(result)) if ends else None
            wanted = f"incident {found[1]}" if found else "incident"
            assert any(wanted in cluster.nursery.log_of(pid, wanted, LOG_S / len(whose)) for pid in whose)

    asyncio.run(work())


@pytest.mark.parametrize("step", [s for s in faults.ENDING if s != "restart"])
def test_a_step_that_fails_for_one_session_ends_it_alone_with_an_incident(cluster: Matrix, step: str) -> None:
    check(cluster, step, ends=True)


@pytest.mark.parametrize("step", faults.HARMLESS)
def test_figures_and_logs_that_fail_end_no_session(cluster: Matrix, step: str) -> None:
    check(cluster, step, ends=False)


def test_a_session_that_cannot_be_taken_over_does_not_keep_the_others_from_it(cluster: Matrix) -> None:
    """Last of this file: the coordinator is killed."""

    async def work() -> None:
        async with Client(cluster.address) as client, Client(cluster.address) as other:
            await cluster.ready(client)
            prompt = (faults.FIRST + faults.STEPS.index("restart"), 7, 8)
            both = [GenerateRequest(prompt_ids=p, max_new_tokens=BYSTANDER_TOKENS, ignore_eos=True) for p in (prompt, PROMPTS[0])]
            tasks = [asyncio.create_task(transcribe(c, r)) for c, r in zip((client, other), both, strict=True)]
            await until(client, lambda s: len(s.sessions) == 2 and min(x.num_generated for x in s.sessions) > 3)
            cluster.nursery.kill(cluster.pids["coordinator"])
            await asyncio.to_thread(cluster.start_coordinator)
            lost, kept = await asyncio.gather(*tasks, return_exceptions=True)
            assert isinstance(lost, Bug) and re.search(r"incident [0-9a-f]{8}", str(lost)), lost
            assert isinstance(kept, Transcript) and ids(kept) == reference(MODEL, PROMPTS[0], BYSTANDER_TOKENS)

    asyncio.run(work())
