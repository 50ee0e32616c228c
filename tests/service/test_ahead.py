"""Steps that are sent ahead of a stage that holds the whole model: the tokens are those of `generate()`.

Whatever ends, dies or moves meanwhile. Real processes, a tiny model.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.commands.cluster.generate import transcribe
from engine.data.errors import NoodleError, Refused
from engine.data.generation import UNKNOWN, FinishReason, GenerateRequest, Segment
from engine.data.model import ModelRef
from engine.data.plan import Stage as PlannedStage
from engine.data.sampling import Sampling, SamplingRequest
from engine.folders import cache_folder
from engine.model.sources.card import prepare
from engine.service import wire
from engine.service.client import Client
from protos import noodle_pb2 as pb
from tests.service import matrix
from tests.service.matrix import NUM_ITEMS, PROMPTS, Matrix, ids, until
from tests.service.nursery import Nursery
from tests.service.reference import reference, sampled_reference
from tests.service.test_stage_runner import MODEL, Stage, frame

PROMPT = (4, 5, 6, 7, 8)
PENALTIES = Sampling(temperature=0.7, top_k=40, seed=3, repetition_penalty=1.3, presence_penalty=0.4, frequency_penalty=0.3)


# ---------------------------------------------------------------------------------------------- one stage
@pytest.fixture
def stage() -> Iterator[Stage]:
    whole = Stage("a", 0, prepare(ModelRef(MODEL, 0), cache_folder()).num_items)
    yield whole
    whole.runner.close()


def opening(sampling: Sampling) -> pb.StepFrame:
    message = pb.StepFrame(plan_version=3, step_id=1)
    message.segments.append(wire.segment_to_message(Segment("s", 1, 0, PROMPT, 0, sampling, 50)))
    return message


def following(index: int, *, epoch: int = 1, session: str = "s", position: int | None = None) -> pb.StepFrame:
    """The step that samples that token, behind one that nobody knows yet."""
    message = pb.StepFrame(plan_version=3, step_id=index + 1)
    at = len(PROMPT) + index - 1 if position is None else position
    message.segments.append(wire.segment_to_message(Segment(session, epoch, at, (UNKNOWN,), index, follows=True)))
    return message


@pytest.mark.parametrize("sampling", [Sampling(), PENALTIES], ids=["greedy", "penalties"])
def test_a_stage_goes_on_behind_what_it_chose_itself(stage: Stage, sampling: Sampling) -> None:
    """All steps are there before the first one runs; the last one twice, and it appends once."""
    expected = sampled_reference(MODEL, PROMPT, 12, sampling)
    steps = [opening(sampling), *map(following, range(1, 12)), following(11)]
    for step in steps:
        stage.runner.submit(step)
    reports = [stage.out.get(timeout=120) for _ in steps]
    assert [r.token_id for report in reports for r in report.results] == [*expected, expected[-1]]  # type: ignore[union-attr]


def test_what_follows_a_step_that_did_not_run_is_left_out(stage: Stage) -> None:
    """Whoever sent it hears of the first one, and of the others of the step."""
    for lost in (following(1), following(2, session="other")):
        report = stage.step(lost)
        assert isinstance(report, pb.StepReport) and not report.results
    expected = reference(MODEL, PROMPT, 3)
    assert stage.step(opening(Sampling())).results[0].token_id == expected[0]  # type: ignore[union-attr]
    for wrong in (following(2), following(1, epoch=2), following(1, position=2), following(1, position=0)):
        assert not stage.step(wrong).results  # type: ignore[union-attr]
    both = following(2)
    both.segments.insert(0, following(1).segments[0])
    assert [r.token_id for r in stage.step(following(1)).results] == [expected[1]]  # type: ignore[union-attr]
    known = stage.step(frame(len(PROMPT) + 1, (expected[1],), 2))
    assert [r.token_id for r in known.results] == [expected[2]]  # type: ignore[union-attr]


def test_what_follows_a_chunk_that_samples_nothing_is_left_out(stage: Stage) -> None:
    stage.step(frame(0, PROMPT, None))
    assert not stage.step(following(1)).results  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "changes",
    [{"token_ids": [3]}, {"sample_index": -1}, {"sampling": wire.to_message(Sampling(), pb.Sampling())}],
    ids=["a token", "no sample", "an opening"],
)
def test_a_part_that_follows_and_is_something_else_too_is_refused(stage: Stage, changes: dict[str, object]) -> None:
    message = following(1)
    message.segments[0].MergeFrom(pb.Segment(**changes))
    report = stage.step(message)
    assert "a part that follows" in report.results[0].message  # type: ignore[union-attr]


# ---------------------------------------------------------------------------------------------- clusters
def started(nursery: Nursery, folder: Path, *workers: str, memory: tuple[str, str] = ("500M", "50M")) -> Matrix:
    nursery.folder = folder
    cluster = Matrix(nursery, coordinator_arguments=("--speculate", "off"), workers=workers, memory=memory)
    cluster.start()
    return cluster


def stopped(cluster: Matrix) -> None:
    for pid in cluster.pids.values():
        with contextlib.suppress(ProcessLookupError):
            cluster.nursery.kill(pid)


@pytest.fixture
def single(nursery: Nursery, tmp_path: Path) -> Iterator[Matrix]:
    cluster = started(nursery, tmp_path, "w1")
    yield cluster
    stopped(cluster)


def test_ends_of_all_kinds_in_company_change_no_token_of_the_others(single: Matrix) -> None:
    """Lengths, stop tokens, stop strings and clients that leave; a second round begins with what the first one left."""

    async def check(client: Client) -> None:
        await single.ready(client)
        for _ in range(2):
            await asyncio.gather(
                *(of_length(client, prompt, count) for prompt, count in zip(PROMPTS, (40, 7, 25, 1, 2, 33, 12, 60), strict=True)),
                *(stops_at(client, prompt, at) for prompt, at in zip(PROMPTS[:4], (5, 0, 1, 9), strict=True)),
                *(says_stop(client, prompt, at) for prompt, at in zip(PROMPTS[4:], (4, 1, 7, 2), strict=True)),
                *(leaves(client, prompt, at) for prompt, at in zip(PROMPTS[:3], (1, 6, 11), strict=True)),
            )

    asyncio.run(in_client(single, check))


async def in_client(cluster: Matrix, work: object) -> None:
    async with Client(cluster.address) as client:
        await work(client)  # type: ignore[operator]


async def of_length(client: Client, prompt: tuple[int, ...], count: int) -> None:
    request = GenerateRequest(prompt_ids=prompt, max_new_tokens=count, ignore_eos=True)
    assert ids(await transcribe(client, request)) == reference(matrix.MODEL, prompt, count)


async def stops_at(client: Client, prompt: tuple[int, ...], at: int) -> None:
    expected = reference(matrix.MODEL, prompt, 40)
    request = GenerateRequest(
        prompt_ids=prompt, max_new_tokens=40, sampling=SamplingRequest(stop_token_ids=(expected[at],)), ignore_eos=True
    )
    found = await transcribe(client, request)
    assert ids(found) == expected[: expected.index(expected[at]) + 1]
    assert found.chunks[-1].finish_reason is FinishReason.STOP


async def says_stop(client: Client, prompt: tuple[int, ...], at: int) -> None:
    expected = reference(matrix.MODEL, prompt, 40)
    word = bytes([expected[at]]).decode("latin-1") if expected[at] < 128 else f"<{expected[at]}>" if expected[at] > 255 else ""
    if not word:
        return  # no character of its own
    request = GenerateRequest(prompt_ids=prompt, max_new_tokens=40, stop=(word,), ignore_eos=True)
    found = ids(await transcribe(client, request))
    assert found == expected[: len(found)] and len(found) <= expected.index(expected[at]) + 1


async def leaves(client: Client, prompt: tuple[int, ...], after: int) -> None:
    expected, got = reference(matrix.MODEL, prompt, 50), []
    request = GenerateRequest(prompt_ids=prompt, max_new_tokens=50, ignore_eos=True)
    with contextlib.suppress(NoodleError):
        async for chunk in client.generate(request):
            got += [chunk.token_id] if chunk.index >= 0 else []
            if chunk.index == after:
                await client.cancel(chunk.session_id)
    assert len(got) > after and got == expected[: len(got)]


@pytest.mark.parametrize("victim", ["w1", "coordinator"])
def test_a_killed_process_changes_no_token(single: Matrix, victim: str) -> None:
    """Eight sessions, while one of them has another token more at each kill."""

    async def check(client: Client) -> None:
        await single.ready(client)
        for token in (0, 13):
            killing = asyncio.create_task(kills(client, token))
            await asyncio.gather(killing, *(of_length(client, prompt, 40) for prompt in PROMPTS))

    async def kills(client: Client, token: int) -> None:
        got: list[int] = []
        async for chunk in client.generate(GenerateRequest(prompt_ids=PROMPT, max_new_tokens=30, ignore_eos=True)):
            got += [chunk.token_id] if chunk.index >= 0 else []
            if chunk.index == token:
                single.nursery.kill(single.pids[victim])
                again = single.start_coordinator if victim == "coordinator" else lambda: single.start_worker(victim)
                await asyncio.to_thread(again)
        assert got == reference(matrix.MODEL, PROMPT, 30)

    asyncio.run(in_client(single, check))


def test_sessions_that_wait_for_room_are_served_as_those_before_them_end(nursery: Nursery, tmp_path: Path) -> None:
    """Keys and values of about two sessions fit at once."""
    cluster = started(nursery, tmp_path, "w1", memory=("500M", "300K"))

    async def check(client: Client) -> None:
        await cluster.ready(client)
        capacity = (await client.status()).work.kv_capacity_tokens
        assert 0 < capacity < 8 * 64
        await asyncio.gather(*(of_length(client, prompt, 60 - len(prompt)) for prompt in PROMPTS))

    try:
        asyncio.run(in_client(cluster, check))
    finally:
        stopped(cluster)


def test_moves_from_one_stage_to_two_and_back_under_load_change_no_token(nursery: Nursery, tmp_path: Path) -> None:
    cluster = started(nursery, tmp_path, "w1", "w2")
    layouts = ([("w1", 0, 6)], [("w1", 0, 3), ("w2", 3, 6)], [("w2", 0, 6)], [("w2", 0, 2), ("w1", 2, 6)])
    assert all(stages[-1][2] == NUM_ITEMS for stages in layouts)

    async def check(client: Client) -> None:
        await cluster.ready(client)
        going, num_answers = True, 0

        async def keep_busy(prompt: tuple[int, ...], count: int) -> None:
            nonlocal num_answers
            while going:
                await of_length(client, prompt, count)
                num_answers += 1

        load = [asyncio.create_task(keep_busy(p, count)) for p, count in zip(PROMPTS, (64, 9, 30, 50, 21, 64, 40, 13), strict=True)]
        for stages in [*layouts, *layouts]:
            wanted = [PlannedStage(*stage) for stage in stages]
            status = await until(client, lambda s: len(s.sessions) >= 4)
            with contextlib.suppress(Refused):
                await client.apply(status.plan_version, "", wanted)
            await until(client, lambda s, w=stages: [(x.worker_id, x.start, x.stop) for x in s.stages] == w)  # type: ignore[misc]
        going = False
        await asyncio.gather(*load)
        assert num_answers >= len(PROMPTS) and not (await client.status()).ended.num_failed

    try:
        asyncio.run(in_client(cluster, check))
    finally:
        stopped(cluster)
