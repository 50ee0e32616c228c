"""What a client must never notice: kills, stops, restarts and moves while tokens come. Real processes, a tiny model.

The whole matrix of kills is `python -m tests.service.matrix`; here runs a sample of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import random
import signal
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.commands.cluster.generate import Transcript, transcribe
from engine.data.errors import NoodleError
from engine.data.generation import FinishReason, GenerateRequest
from engine.data.plan import Stage
from engine.data.sampling import LogitBias, SamplingRequest, resolved
from engine.data.status import NodeState, Phase
from engine.service import wire
from engine.service.client import Client
from protos import noodle_pb2 as pb
from tests.service.matrix import (
    MODEL,
    NUM_ITEMS,
    NUM_TOKENS,
    PROMPT,
    PROMPTS,
    WORKERS,
    Matrix,
    ids,
    moved,
    moves_under_load,
    run_cases,
    until,
)
from tests.service.nursery import Nursery
from tests.service.reference import folder_of, reference, reference_logprobs, sampled_reference


@pytest.fixture
def cluster(nursery: Nursery, tmp_path: Path) -> Iterator[Matrix]:
    nursery.folder = tmp_path
    cluster = Matrix(nursery)
    cluster.start()
    yield cluster
    for pid in list(cluster.pids.values()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
        nursery.kill(pid)


def run(cluster: Matrix, work: Callable[[Client], Coroutine[Any, Any, Any]]) -> Any:
    async def connected() -> Any:
        async with Client(cluster.address) as client:
            await cluster.ready(client)
            return await asyncio.wait_for(work(client), 120)

    return asyncio.run(connected())


def ask(prompt: tuple[int, ...], num_tokens: int, **changes: Any) -> GenerateRequest:
    return GenerateRequest(prompt_ids=prompt, max_new_tokens=num_tokens, ignore_eos=True, **changes)


def test_a_sample_of_the_matrix_of_kills(cluster: Matrix) -> None:
    cases = asyncio.run(run_cases(cluster, range(1, NUM_TOKENS, 21), (*WORKERS, "coordinator")))
    assert len(cases) == 12 and [c for c in cases if not c.is_identical] == []


def test_eight_sampled_sessions_survive_two_kills_with_the_same_tokens(cluster: Matrix) -> None:
    requests = [ask(p, 120, sampling=SamplingRequest(temperature=1.0, seed=n)) for n, p in enumerate(PROMPTS)]

    async def work(client: Client) -> None:
        undisturbed = [ids(t) for t in await asyncio.gather(*(transcribe(client, r) for r in requests))]
        again = [asyncio.create_task(transcribe(client, r)) for r in requests]
        await until(client, lambda s: len(s.sessions) == 8 and min(x.num_generated for x in s.sessions) > 10)
        cluster.nursery.kill(cluster.pids["w3"])
        await until(client, lambda s: s.phase is Phase.SERVING and len(s.stages) == 2)
        await until(client, lambda s: not s.sessions or min(x.num_generated for x in s.sessions) > 50)
        cluster.nursery.kill(cluster.pids["w1"])
        assert [ids(t) for t in await asyncio.gather(*again)] == undisturbed

    run(cluster, work)


SAMPLED = (
    SamplingRequest(0.9, seed=1, min_p=0.02, presence_penalty=0.7, frequency_penalty=0.4, logprobs=True, top_logprobs=3),
    SamplingRequest(frequency_penalty=1.5, repetition_penalty=1.2, logit_bias=(LogitBias(9, 1.5), LogitBias(4, -100.0)), logprobs=True),
    SamplingRequest(1.1, seed=3, top_k=50, min_tokens=280, stop_token_ids=tuple(range(60)), logprobs=True, top_logprobs=1),
)


def test_sampling_in_full_and_its_log_probabilities_survive_a_kill_a_move_and_a_restart(cluster: Matrix) -> None:
    """Against one process, in which nothing of that happens."""
    requests = [ask(p, 300, sampling=s) for p, s in zip(PROMPTS, SAMPLED, strict=False)]

    async def work(client: Client) -> None:
        answers = [asyncio.create_task(transcribe(client, r)) for r in requests]
        await until(client, lambda s: len(s.sessions) == 3 and min(x.num_generated for x in s.sessions) > 10)
        cluster.nursery.kill(cluster.pids["w3"])
        await until(client, lambda s: s.phase is Phase.SERVING and len(s.stages) == 2 and min(x.num_generated for x in s.sessions) > 40)
        status = await client.status()
        first, second = status.stages
        await client.apply(status.plan_version, "", [Stage(second.worker_id, 0, 2), Stage(first.worker_id, 2, NUM_ITEMS)])
        await moved(client, 1)
        await until(client, lambda s: min(x.num_generated for x in s.sessions) > 90)
        cluster.nursery.kill(cluster.pids["coordinator"])
        await asyncio.to_thread(cluster.start_coordinator)
        for request, answer in zip(requests, answers, strict=True):
            check_against_one_process(request, await answer)
            resumed = pb.GenerateRequest(session_id=(await answer).chunks[0].session_id, resume=True)
            read_again = client._stream(client._stub.Generate(resumed, metadata=client._metadata))
            kept = [wire.chunk_from_message(chunk) async for chunk in read_again]
            told = (await answer).chunks
            assert kept[0].used == told[0].used and kept[0].used is not None and kept[0].used.sampling.logprobs
            assert [(c.index, c.token_id, c.text, c.logprobs) for c in kept] == [(c.index, c.token_id, c.text, c.logprobs) for c in told]

    run(cluster, work)


def check_against_one_process(request: GenerateRequest, answer: Transcript) -> None:
    sampling = resolved(request.sampling, SamplingRequest())[0]
    found, expected = ids(answer), sampled_reference(MODEL, request.prompt_ids, request.max_new_tokens, sampling)
    assert found == expected[: len(found)]
    ended = next((n for n, token_id in enumerate(expected, 1) if token_id in sampling.stop_token_ids and n > sampling.min_tokens), 0)
    assert len(found) == (ended or request.max_new_tokens)
    assert answer.finish_reason is (FinishReason.STOP if ended else FinishReason.LENGTH)
    told = [c.logprobs for c in answer.chunks if c.index >= 0]
    for row, token_id, logprobs in zip(reference_logprobs(MODEL, request.prompt_ids, found), found, told, strict=True):
        assert logprobs is not None and logprobs.chosen.token_id == token_id and logprobs.chosen.spelling
        assert abs(logprobs.chosen.logprob - float(row[token_id])) < 1e-4
        best = sorted(float(x) for x in row)[::-1][: sampling.top_logprobs]
        assert [e.logprob for e in logprobs.top] == pytest.approx(best, abs=1e-4)


def test_a_stopped_worker_is_given_up_before_its_lease_ends_and_changes_nothing_when_it_wakes(cluster: Matrix) -> None:
    """How long that takes is a figure of a quiet machine; why it is given up is not."""

    async def work(client: Client) -> None:
        answer = asyncio.create_task(transcribe(client, ask(PROMPT, 500)))
        await until(client, lambda s: bool(s.sessions) and s.sessions[0].num_generated > 5)
        os.kill(cluster.pids["w2"], signal.SIGSTOP)
        await until(client, lambda s: s.nodes[1].state is NodeState.LOST and s.phase is Phase.SERVING)
        os.kill(cluster.pids["w2"], signal.SIGCONT)
        await until(client, lambda s: len(s.stages) == 3)
        assert ids(await answer) == reference(MODEL, PROMPT, 500)
        told = [e.text for e in await events(client)]
        assert any("while a step waited" in t for t in told) and not any("no heartbeat for" in t for t in told)
        assert any("joined" in t and "moved" in t for t in told)

    run(cluster, work)


async def events(client: Client) -> tuple[Any, ...]:
    async with contextlib.aclosing(client.watch()) as frames:
        async for frame in frames:
            return frame.events
    return ()


def test_moves_under_load_lose_no_token(cluster: Matrix) -> None:
    async def work(client: Client) -> None:
        reports = await moves_under_load(client, 12)
        done = [r for r in reports if r.outcome == "done"]
        assert len(done) > 6, reports  # on a machine that is busy enough a heartbeat comes late now and then, and a move is dropped
        assert all((r.num_items == 0) == (r.weight_bytes == 0) for r in done)
        status = await client.status()
        assert status.plan_version > 6 and status.ended.num_failed == 0

    run(cluster, work)


def test_the_bytes_of_a_move_are_those_of_the_items_and_tokens_that_moved(cluster: Matrix) -> None:
    async def work(client: Client) -> None:
        answer = asyncio.create_task(transcribe(client, ask(PROMPTS[2], 400)))
        status = await until(client, lambda s: bool(s.sessions) and s.sessions[0].num_generated > 5)
        old = {s.worker_id: set(range(s.start, s.stop)) for s in status.stages}
        w1_has_a_layer = old.get("w1", set()) & set(range(1, NUM_ITEMS - 1))
        layouts = [{"w1": range(0, 1), "w2": range(1, 5), "w3": range(5, 6)}, {"w1": range(0, 4), "w2": range(4, 5), "w3": range(5, 6)}]
        new = layouts[0 if w1_has_a_layer else 1]  # a layer moves, whatever the plan was
        await client.apply(status.plan_version, "", [Stage(n, r.start, r.stop) for n, r in new.items()])
        moves = await moved(client, 1)
        items = [i for n, r in new.items() for i in r if i not in old.get(n, set())]
        assert moves[0].num_items == len(items)
        with_kv = [i for i in items if 0 < i < NUM_ITEMS - 1]
        per_token = moves[0].kv_bytes / len(with_kv) / (2 * 4)  # keys and values of one layer, in float32 numbers
        num_tokens = per_token / (16 * 2)
        assert ids(await answer) == reference(MODEL, PROMPTS[2], 400)
        assert num_tokens == int(num_tokens) and 36 < num_tokens < 436

    run(cluster, work)


def test_a_stage_without_keys_and_values_moves_too(cluster: Matrix) -> None:
    """A node that is new to the plan learns its sessions from their headers alone if its items keep no keys and values."""

    async def work(client: Client) -> None:
        answer = asyncio.create_task(transcribe(client, ask(PROMPT, 300)))
        await until(client, lambda s: bool(s.sessions) and s.sessions[0].num_generated > 3)
        plans = [("w1", 0, 3), ("w2", 3, 6)], [("w3", 0, 1), ("w1", 1, 5), ("w2", 5, 6)], [("w1", 0, 5), ("w3", 5, 6)]
        for number, stages in enumerate(plans):
            await client.apply((await client.status()).plan_version, "", [Stage(*s) for s in stages])
            reports = await moved(client, number + 1)
            assert reports[-1].outcome == "done", reports
        assert ids(await answer) == reference(MODEL, PROMPT, 300)

    run(cluster, work)


@pytest.mark.parametrize("victim", ["w1", "w2", "coordinator"])
def test_a_kill_in_the_middle_of_a_move_leaves_the_old_plan_or_a_new_one(cluster: Matrix, victim: str) -> None:
    choose = random.Random(victim)

    async def work(client: Client) -> None:
        for delay_s in (0.0, 0.02, 0.05, 0.08):
            await cluster.ready(client)
            answer = asyncio.create_task(transcribe(client, ask(PROMPT, 300)))
            status = await until(client, lambda s: bool(s.sessions) and s.sessions[0].num_generated > 3)
            bounds = sorted(choose.sample(range(1, NUM_ITEMS), 2))
            cuts = list(itertools.pairwise([0, *bounds, NUM_ITEMS]))
            with contextlib.suppress(NoodleError):
                await client.apply(status.plan_version, "", [Stage(n, a, b) for n, (a, b) in zip(WORKERS[::-1], cuts, strict=True)])
            await asyncio.sleep(delay_s)
            cluster.nursery.kill(cluster.pids[victim])
            restart = cluster.start_coordinator if victim == "coordinator" else lambda: cluster.start_worker(victim)
            await asyncio.to_thread(restart)
            assert ids(await answer) == reference(MODEL, PROMPT, 300)

    run(cluster, work)


def test_a_client_that_goes_away_frees_its_memory_within_a_second(cluster: Matrix) -> None:
    async def work(client: Client) -> None:
        async with Client(cluster.address) as other:
            async for chunk in other.generate(ask(PROMPT, 900)):
                if chunk.index == 3:
                    break
        await until(client, lambda s: not s.sessions)
        await until(client, lambda s: all(n.gauges.kv_used_bytes == 0 for n in s.nodes))
        told = [e for e in await events(client) if e.kind == "session" and "cancelled" in e.text]
        assert len(told) == 1

    run(cluster, work)


def test_a_broken_connection_is_made_again_and_no_token_comes_twice(cluster: Matrix) -> None:
    """A proxy between client and coordinator cuts every connection again and again."""

    async def work(client: Client) -> None:
        host, port = cluster.address.rsplit(":", 1)
        writers: list[asyncio.StreamWriter] = []

        async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                while data := await reader.read(65536):
                    writer.write(data)
                    await writer.drain()
            writer.close()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            up_reader, up_writer = await asyncio.open_connection(host, int(port))
            writers.extend((writer, up_writer))
            await asyncio.gather(pump(reader, up_writer), pump(up_reader, writer))

        async with (
            await asyncio.start_server(serve, "127.0.0.1", 0) as proxy,
            Client(f"127.0.0.1:{proxy.sockets[0].getsockname()[1]}") as far,
        ):
            got, cuts = [], 0
            async for chunk in far.generate(ask(PROMPT, 400)):
                if chunk.index >= 0:
                    assert chunk.index == len(got)
                    got.append(chunk.token_id)
                if chunk.index in (20, 150, 300):
                    cuts += 1
                    while writers:
                        writers.pop().transport.abort()
            assert cuts == 3 and got == reference(MODEL, PROMPT, 400)

    run(cluster, work)


def test_a_finished_answer_can_be_read_again_from_the_journal_and_its_figures_are_remembered(cluster: Matrix) -> None:
    async def work(client: Client) -> None:
        from protos import noodle_pb2 as pb

        done = await transcribe(client, ask(PROMPT, 12))
        ends = (await until(client, lambda s: s.ended.num_done > 0)).ended.latest
        cluster.nursery.kill(cluster.pids["coordinator"])
        await asyncio.to_thread(cluster.start_coordinator)
        status = await cluster.ready(client)
        assert status.ended.latest == ends and (ends[0].num_generated, status.ended.num_done) == (12, 1)
        request = pb.GenerateRequest(session_id=done.chunks[0].session_id, resume=True, next_index=8)
        chunks = [wire.chunk_from_message(c) async for c in client._stub.Generate(request, metadata=client._metadata)]
        assert [(c.index, c.token_id) for c in chunks[1:-1]] == list(enumerate(ids(done)))[8:]
        assert chunks[-1].finish_reason is FinishReason.LENGTH and chunks[0].prompt_ids == PROMPT

    run(cluster, work)


def test_an_empty_prompt_is_the_token_that_begins_a_text(cluster: Matrix) -> None:
    async def work(client: Client) -> None:
        answer = await transcribe(client, GenerateRequest(prompt="", max_new_tokens=8, ignore_eos=True))
        begin = json.loads((folder_of(MODEL) / "config.json").read_text())["bos_token_id"]
        assert answer.prompt_ids == (begin,) and ids(answer) == reference(MODEL, (begin,), 8)

    run(cluster, work)


def test_a_worker_plays_a_slower_machine_on_request(cluster: Matrix) -> None:
    async def work(client: Client) -> None:
        def compute_s(transcript: Transcript) -> float:
            return {s["worker_id"]: s["compute_s"] for s in transcript.document()["stages"]}["w2"]

        own = compute_s(await transcribe(client, ask(PROMPT, 60)))
        await client.set_slowdown("w2", 20.0)
        slow = compute_s(await transcribe(client, ask(PROMPT, 60)))
        await client.set_slowdown("w2", 1.0)
        again = compute_s(await transcribe(client, ask(PROMPT, 60)))
        assert slow > 5 * own and slow > 5 * again
        with pytest.raises(NoodleError, match="factor from 1 to"):
            await client.set_slowdown("w2", 0.5)
        with pytest.raises(NoodleError, match="w9 is not in the cluster"):
            await client.set_slowdown("w9", 2.0)

    run(cluster, work)


def test_two_coordinators_never_share_a_journal(cluster: Matrix) -> None:
    with pytest.raises(AssertionError, match="another coordinator uses"):
        cluster.nursery.start(
            "coordinator",
            "--model",
            MODEL,
            "--random-weights",
            "0",
            "--listen",
            "127.0.0.1:0",
            "--state-dir",
            str(cluster.nursery.folder / "state"),
        )


def test_an_adapting_cluster_moves_items_off_a_worker_that_becomes_slow_and_no_token_changes(cluster: Matrix) -> None:
    async def work(client: Client) -> None:
        undisturbed = ids(await transcribe(client, ask(PROMPT, 1000)))
        assert (await client.adaptation()).mode == "off" and (await client.moves()) == ()
        assert (await client.set_adaptation("auto")).mode == "auto"
        answer = asyncio.create_task(transcribe(client, ask(PROMPT, 1000)))
        await until(client, lambda s: bool(s.sessions) and s.sessions[0].num_generated > 200)
        await client.set_slowdown("w2", 10.0)
        assert ids(await answer) == undisturbed
        found = await client.adaptation()
        order = next(e for e in found.history if e.verdict == "migrate")
        assert order.outcome.startswith("done") and order.realised_pause_s is not None and "w2" in order.sentence
        assert any(m.outcome == "done" and m.num_items > 0 for m in await client.moves())
        stages = (await client.status()).stages
        assert sum(s.stop - s.start for s in stages if s.worker_id == "w2") < 2

    run(cluster, work)
