"""One tiny model on three real workers: identity, concurrency, limits and refusals, all on the same cluster."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from engine.commands.cluster.generate import Transcript, transcribe
from engine.data.errors import Cancelled, Exhausted, InvalidInput, NoodleError, NotFound
from engine.data.generation import FinishReason, GenerateRequest
from engine.data.precision import Identity
from engine.data.status import NodeState, Phase
from engine.service import wire
from protos import noodle_pb2 as pb
from tests.service.reference import reference
from tests.service.running import Running, running

MODEL = "gpt2:tiny"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Running]:
    with running(MODEL, 3, kv_memory_bytes=2_000_000, memory_bytes=200_000_000) as started:
        yield started


def ids(chunks: object) -> list[int]:
    return [c.token_id for c in chunks.chunks if c.index >= 0]  # type: ignore[attr-defined]


def test_concurrent_ragged_prompts_equal_generate(cluster: Running) -> None:
    prompts = [(1, 2, 3), (9,), tuple(range(4, 40)), (7, 7, 7, 7), (5, 1)]
    transcripts = cluster.generate_all([cluster.request(p, 16, ignore_eos=True) for p in prompts])
    for prompt, transcript in zip(prompts, transcripts, strict=True):
        assert ids(transcript) == reference(MODEL, prompt, 16)
        assert transcript.prompt_ids == prompt
        assert [c.index for c in transcript.chunks if c.index >= 0] == list(range(16))
        assert transcript.finish_reason is FinishReason.LENGTH


def test_every_token_carries_the_time_of_every_stage(cluster: Running) -> None:
    """In the order of the plan, which depends on what the workers measured."""
    order = [stage.worker_id for stage in cluster.status().stages]
    transcript = cluster.generate(cluster.request((1, 2, 3), 4, ignore_eos=True))
    assert sorted(order) == ["w1", "w2", "w3"] and len(ids(transcript)) == 4
    for chunk in transcript.chunks:
        if chunk.index >= 0:
            assert [t.worker_id for t in chunk.timings] == order
            assert 0 < sum(t.compute_s for t in chunk.timings) < chunk.step_s
    stages = transcript.document()["stages"]
    assert [s["worker_id"] for s in stages] == order and all(s["compute_s"] > 0 for s in stages)


def test_sampling_is_the_same_for_the_same_seed_and_differs_for_another(cluster: Running) -> None:
    ask = [cluster.request((1, 2, 3), 12, temperature=1.0, seed=s, ignore_eos=True) for s in (5, 5, 6)]
    one, two, other = (ids(t) for t in cluster.generate_all(ask))
    assert one == two != other


def test_text_prompts_go_through_the_stand_in_tokenizer(cluster: Running) -> None:
    transcript = cluster.generate(GenerateRequest(prompt="Hi", max_new_tokens=3, ignore_eos=True))
    assert transcript.prompt_ids == (72, 105)
    assert ids(transcript) == reference(MODEL, (72, 105), 3)


def test_that_a_stand_in_was_used_is_said_with_the_answer_and_in_the_status(cluster: Running) -> None:
    answer, status = cluster.generate(GenerateRequest(prompt="Hi", max_new_tokens=1)).document(), cluster.status()
    assert "no tokenizer.json" in answer["stand_in_tokenizer"] and answer["stand_in_tokenizer"] == status.model.stand_in_tokenizer


def test_text_is_the_decoding_of_the_tokens_however_an_answer_ends(cluster: Running) -> None:
    """The bytes of random answers end inside characters; the stand-in decodes a byte as Python does."""

    def decoded(document: dict[str, Any]) -> str:
        parts = [bytes([i]) if i < 256 else f"<{i}>".encode() for i in document["token_ids"]]
        return b"".join(parts).decode("utf-8", "replace")

    for seed in range(4):
        whole = cluster.generate(cluster.request((5,), 20, temperature=1.0, seed=seed, ignore_eos=True)).document()
        assert whole["text"] == decoded(whole) and len(whole["token_ids"]) == 20
    cut = cluster.generate(cluster.request((5,), 20, temperature=1.0, seed=0, ignore_eos=True, stop=(">",))).document()
    assert cut["finish_reason"] == "stop" and cut["text"] == decoded(cut)[: decoded(cut).index(">")]

    async def cancelled() -> Transcript:
        transcript = Transcript(0.0)
        async for chunk in cluster.client.generate(cluster.request((5,), 110, temperature=1.0, ignore_eos=True)):
            transcript.add(chunk)
            if chunk.index == 7:
                await cluster.client.cancel(chunk.session_id)
        return transcript

    ended = cluster.wait(cancelled()).document()
    assert ended["finish_reason"] == "cancelled" and ended["text"] == decoded(ended)


def test_text_is_whole_when_it_is_read_again_from_any_token_on(cluster: Running) -> None:
    async def read_again() -> None:
        done = await transcribe(cluster.client, cluster.request((5,), 20, temperature=1.0, seed=3, ignore_eos=True))
        texts = [c.text for c in done.chunks[1:]]
        for first in (0, 1, 7, 19, 20):
            request = pb.GenerateRequest(session_id=done.chunks[0].session_id, resume=True, next_index=first)
            chunks = [wire.chunk_from_message(c) async for c in cluster.client._stub.Generate(request, metadata=cluster.client._metadata)]
            assert [c.text for c in chunks[1:]] == texts[first:]

    cluster.wait(read_again())


def test_a_stop_string_ends_the_answer_before_it(cluster: Running) -> None:
    free = cluster.generate(cluster.request((3, 4), 12, ignore_eos=True)).document()
    stop = free["text"][4:7]
    cut = cluster.generate(cluster.request((3, 4), 12, ignore_eos=True, stop=(stop,))).document()
    assert cut["finish_reason"] == "stop"
    assert cut["text"] == free["text"][: free["text"].index(stop)]


@pytest.mark.parametrize(
    ("wrong", "error", "text"),
    [
        ({"prompt_ids": tuple(range(5)) * 2000}, InvalidInput, r"10000 tokens, the model's context holds \d+"),
        ({"prompt_ids": (1, 10**6)}, InvalidInput, "1000000 is outside the vocabulary"),
        ({"prompt": ""}, InvalidInput, "has no tokens, and the model no token that begins a text"),  # its BOS is outside its vocabulary
    ],
)
def test_wrong_requests_are_refused_with_numbers(cluster: Running, wrong: dict[str, object], error: type[NoodleError], text: str) -> None:
    with pytest.raises(error, match=text):
        cluster.generate(GenerateRequest(**wrong))  # type: ignore[arg-type]
    assert cluster.status().sessions == ()


def test_cancelling_frees_the_session(cluster: Running) -> None:
    async def cancel_after_two() -> str:
        session_id = ""
        async with contextlib.aclosing(cluster.client.generate(cluster.request((1,), 100, ignore_eos=True))) as chunks:
            async for chunk in chunks:
                session_id = chunk.session_id
                if chunk.index == 1:
                    break
        return session_id

    session_id = cluster.wait(cancel_after_two())
    cluster.until(lambda s: not s.sessions and sum(n.gauges.kv_used_bytes for n in s.nodes) == s.work.prefix_cache.kept_bytes, "KV freed")
    with pytest.raises(NotFound, match=session_id):
        cluster.wait(cluster.client.cancel(session_id))


def test_an_operator_can_cancel_a_session_of_somebody_else(cluster: Running) -> None:
    async def run() -> FinishReason | None:
        last = None
        async for chunk in cluster.client.generate(cluster.request((1,), 110, ignore_eos=True)):
            if chunk.index == 0:
                await cluster.client.cancel(chunk.session_id)
            last = chunk.finish_reason
        return last

    try:
        assert cluster.wait(run()) is FinishReason.CANCELLED
    except Cancelled:
        pytest.fail("a cancelled session ends with a reason, not with an error")


def test_the_status_tells_the_truth(cluster: Running) -> None:
    cluster.until(lambda s: [n.state for n in s.nodes] == [NodeState.OK] * 3, "a moment in which no heartbeat is late")
    status = cluster.status()
    assert status.phase is Phase.SERVING and status.model.random_weights and not status.model.has_tokenizer
    assert status.stages[0].start == 0 and status.stages[-1].stop == status.model.num_items
    assert {n.worker_id: n.pid for n in status.nodes} == {k: v for k, v in cluster.cluster.pids().items() if k != "coordinator"}
    assert all(n.gauges.resident_bytes > 10_000_000 and n.heartbeat_age_s >= 0 for n in status.nodes)
    assert (status.model.precision.stored_dtype, status.model.precision.computed_dtype) == ("float32", "float32")
    assert status.model.precision.weight_bytes > 100_000 and status.identity is Identity.SAME_TOKENS


def test_an_answer_as_json_says_its_dtype_and_its_grade_of_identity(cluster: Running) -> None:
    command = [sys.executable, "-m", "engine", "generate", "--prompt-ids", "1,2,3", "--max-new-tokens", "3", "--json"]
    done = subprocess.run([*command, "--connect", cluster.address], capture_output=True, text=True, check=True, timeout=120)
    document = json.loads(done.stdout)
    assert len(document["token_ids"]) == 3 and (document["dtype"], document["identity"]) == ("float32", "1")


def test_a_cluster_in_bfloat16_says_so_at_its_start_and_in_its_status() -> None:
    command = [sys.executable, "-m", "engine", "up", "--model", MODEL, "--random-weights", "0", "--workers", "1", "--dtype", "bfloat16"]
    process = subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stderr is not None
        address = json.loads(process.stdout.readline())["address"]
        told = next(line for line in process.stderr if "weights stored" in line)
        assert "weights stored and computed as bfloat16; identity grade 2: logits agree within a tolerance" in told
        look = [sys.executable, "-m", "engine", "status", "--connect", address, "--json"]
        status = json.loads(subprocess.run(look, capture_output=True, text=True, check=True, timeout=120).stdout)
        assert status["identity"] == "2" and status["precision"]["computed_dtype"] == "bfloat16"
    finally:
        process.terminate()
        process.communicate(timeout=60)


def test_kv_room_for_one_session_makes_the_others_wait_not_fail() -> None:
    with running(MODEL, 1, kv_memory_bytes=100_000, memory_bytes=200_000_000) as small:
        with pytest.raises(Exhausted, match="the budget holds") as refused:
            small.generate(small.request((1,) * 100, 400, ignore_eos=True))
        room = int(str(refused.value).split("the budget holds ")[1].split(":")[0])
        num_new = room - 4  # with a prompt of 3 tokens, one session fills the budget but for one token
        transcripts = small.generate_all([small.request((1, 2, i), num_new, ignore_eos=True) for i in range(3)])
        assert [len(ids(t)) for t in transcripts] == [num_new] * 3
