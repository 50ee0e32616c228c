"""The client library against a real cluster: its README's examples, its answers, its ends."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.client import AsyncClient, Client, LocalCluster
from engine.client.answers import Transcript
from engine.data.errors import InvalidInput, NoodleError, Refused, Unavailable
from engine.data.generation import FinishReason, TokenChunk
from engine.data.plan import Stage
from tests.service.reference import reference
from tests.service.small_chat import small_chat

README = Path(__file__).parents[2] / "engine" / "client" / "README.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
PROMPT = (5, 6, 7)


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(model="gpt2:tiny", random_weights=0, num_workers=2, num_threads=1, strategy="balanced", adapt="off") as started:
        yield started


@pytest.fixture(scope="module")
def client(cluster: LocalCluster) -> Iterator[Client]:
    with cluster.client() as connected:
        yield connected


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_the_examples_run(cluster: LocalCluster, number: int, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(EXAMPLES[number], f"{README}:example {number}", "exec"), {"address": cluster.address})
    assert capsys.readouterr().out.strip()


def test_an_answer_is_that_of_one_process(client: Client) -> None:
    answer = client.complete(PROMPT, max_new_tokens=12, ignore_eos=True)
    assert list(answer.token_ids) == reference("gpt2:tiny", PROMPT, 12)
    assert answer.prompt_ids == PROMPT and answer.finish_reason is FinishReason.LENGTH
    assert answer.ttft_s > 0 and answer.tokens_per_s > 0


def test_a_stream_is_the_same_piece_by_piece(client: Client) -> None:
    whole = client.complete("Once", max_new_tokens=12, ignore_eos=True, logprobs=True, top_logprobs=2)
    with client.stream("Once", max_new_tokens=12, ignore_eos=True, logprobs=True, top_logprobs=2) as stream:
        with pytest.raises(ValueError, match="not ended"):
            _ = stream.completion
        tokens = list(stream)
    assert tuple(t.token_id for t in tokens if t.token_id is not None) == whole.token_ids
    assert "".join(t.text for t in tokens) == whole.text == stream.completion.text
    assert stream.completion.logprobs == whole.logprobs and len(whole.logprobs) == 12


def test_leaving_a_stream_ends_its_session(client: Client) -> None:
    with client.stream(PROMPT, max_new_tokens=200, ignore_eos=True) as stream:
        next(stream)
        (session,) = client.status().sessions
    while client.status().sessions:
        pass
    ended = next(s for s in client.status().ended.latest if s.session_id == session.session_id)
    assert ended.finish_reason == FinishReason.CANCELLED


def test_threads_may_share_a_client(client: Client) -> None:
    wanted = {n: reference("gpt2:tiny", (n, 6, 7), 10) for n in range(1, 7)}
    got: dict[int, list[int]] = {}

    def ask(number: int) -> None:
        got[number] = list(client.complete((number, 6, 7), max_new_tokens=10, ignore_eos=True).token_ids)

    threads = [threading.Thread(target=ask, args=(n,)) for n in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert got == wanted


def test_the_cluster_is_moved_to_a_plan_that_was_looked_at(client: Client) -> None:
    before = client.status().plan_version
    now = {stage.node_id: (stage.start, stage.stop) for stage in client.apply(client.plan("balanced")).stages}
    assert len(now) == 2
    plan = client.plan("", [Stage("w2", 0, 6)])
    moved = client.apply(plan)
    assert moved.plan_version > before and moved.stages == plan.stages == (Stage("w2", 0, 6),)
    with pytest.raises(Refused):
        client.apply(plan)


def test_what_is_wrong_is_said_before_anything_is_sent(client: Client) -> None:
    for wrong in ({"temperature": -1.0}, {"max_new_tokens": 0}, {"stop": [""]}, {"logit_bias": {-1: 1.0}}, {"top_logprobs": 3}):
        with pytest.raises(InvalidInput):
            client.complete("x", **wrong)  # type: ignore[arg-type]


def test_a_server_that_is_not_there_is_named() -> None:
    with Client("127.0.0.1:1") as nobody, pytest.raises(Unavailable, match=r"127\.0\.0\.1:1"):
        nobody.status()
    with pytest.raises(InvalidInput, match="not allowed"):
        Client("dns://a/b")


def test_a_cluster_that_cannot_start_says_why_and_leaves_nothing() -> None:
    with pytest.raises(NoodleError, match="no-such-model"), LocalCluster(model="./no-such-model", num_workers=1):
        raise AssertionError("never")


def test_a_conversation_goes_through_the_template(tmp_path: Path) -> None:
    folder = small_chat(tmp_path)
    messages = [{"role": "user", "content": "Who?"}]

    async def ask(address: str) -> None:
        async with AsyncClient(address) as client:
            one, other = await asyncio.gather(client.chat("Who?", max_new_tokens=8), client.chat(messages, max_new_tokens=8))
            assert one.prompt_ids == other.prompt_ids and one.token_ids == other.token_ids
            assert one.used is not None and one.used.template
            assert len(one.prompt_ids) > len("Who?")

    with LocalCluster(model=str(folder), num_workers=1, num_threads=1) as cluster:
        asyncio.run(ask(cluster.address))


def test_text_that_was_held_back_comes_at_the_end() -> None:
    """Bytes of a character that never became whole, or what might have been the beginning of a stop string."""
    transcript = Transcript()
    chunks = [
        TokenChunk("s-1", -1, 0, "", prompt_ids=(1, 2)),
        TokenChunk("s-1", 0, 7, "a"),
        TokenChunk("s-1", 1, 8, ""),
        TokenChunk("s-1", -1, 0, "\ufffd", finish_reason=FinishReason.LENGTH),
    ]
    tokens = [transcript.take(chunk) for chunk in chunks]
    assert [None if t is None else (t.index, t.token_id, t.text) for t in tokens] == [None, (0, 7, "a"), (1, 8, ""), (2, None, "\ufffd")]
    answer = transcript.completion()
    assert (answer.text, answer.token_ids, answer.prompt_ids, answer.finish_reason) == ("a\ufffd", (7, 8), (1, 2), FinishReason.LENGTH)
