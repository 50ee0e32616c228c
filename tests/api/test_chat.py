"""Chat completions through the `openai` package: equal to single-process transformers, whole and streamed, alone and in company."""

from __future__ import annotations

import asyncio

import openai
import pytest

from tests.api.conftest import NAME, Served
from tests.api.expected import expected

CONVERSATIONS = (
    [{"role": "user", "content": "What is the capital of France?"}],
    [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Grüße, 你好"}],
    [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}],
)


@pytest.mark.parametrize("number", range(len(CONVERSATIONS)))
def test_an_answer_is_that_of_one_process(served: Served, number: int) -> None:
    messages = CONVERSATIONS[number]
    wanted = expected(served.folder, messages, 24)
    got = served.openai().chat.completions.create(
        model=NAME, messages=messages, max_tokens=24, temperature=0, logprobs=True, top_logprobs=3
    )
    (choice,) = got.choices
    assert choice.message.content == wanted.text
    assert choice.finish_reason == wanted.finish_reason
    assert got.usage.prompt_tokens == len(wanted.prompt_ids) and got.usage.completion_tokens == len(wanted.token_ids)
    assert [entry.logprob for entry in choice.logprobs.content] == pytest.approx(wanted.logprobs, abs=1e-4)
    assert all(len(entry.top_logprobs) == 3 and entry.top_logprobs[0].logprob >= entry.logprob for entry in choice.logprobs.content)


def test_a_stream_has_the_same_text_logprobs_and_usage(served: Served) -> None:
    asked = {"model": NAME, "messages": CONVERSATIONS[0], "max_tokens": 24, "temperature": 0, "logprobs": True}
    whole = served.openai().chat.completions.create(**asked)
    chunks = list(served.openai().chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole.choices[0].message.content
    entries = [e for c in chunks if c.choices and c.choices[0].logprobs for e in c.choices[0].logprobs.content]
    wanted = whole.choices[0].logprobs.content
    assert [e.token for e in entries] == [e.token for e in wanted]
    assert [e.logprob for e in entries] == pytest.approx([e.logprob for e in wanted], abs=1e-4)  # the second prompt is not computed again
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == whole.choices[0].finish_reason
    assert chunks[-1].choices == [] and chunks[-1].usage.total_tokens == whole.usage.total_tokens
    assert len({c.id for c in chunks}) == 1


def test_choices_differ_in_their_seed_and_are_the_same_again(served: Served) -> None:
    def texts(seed: int, n: int) -> list[str | None]:
        got = served.openai().chat.completions.create(model=NAME, messages=CONVERSATIONS[0], max_tokens=12, temperature=1.5, seed=seed, n=n)
        return [c.message.content for c in got.choices]

    three = texts(7, 3)
    assert len(set(three)) == 3
    assert texts(7, 3) == three
    assert texts(8, 1) == three[1:2]


def test_a_stop_string_ends_the_answer_and_is_not_part_of_it(served: Served) -> None:
    whole = expected(served.folder, CONVERSATIONS[0], 24).text
    stop = whole[4:6]
    got = served.openai().chat.completions.create(model=NAME, messages=CONVERSATIONS[0], max_tokens=24, temperature=0, stop=[stop])
    assert got.choices[0].message.content == whole[: whole.index(stop)]
    assert got.choices[0].finish_reason == "stop"


def test_a_bias_forces_and_bans_tokens(served: Served) -> None:
    def first(**more: object) -> str:
        asked = {"model": NAME, "messages": CONVERSATIONS[0], "max_tokens": 4, "temperature": 0, "logprobs": True}
        got = served.openai().chat.completions.create(**asked, **more)
        return got.choices[0].logprobs.content[0].token

    usual = first()
    assert first(logit_bias={"70": 100}) != usual
    wanted = expected(served.folder, CONVERSATIONS[0], 1).token_ids[0]
    assert first(logit_bias={str(wanted): -100}) != usual


def test_many_at_once_are_what_each_is_alone(served: Served) -> None:
    async def ask(client: openai.AsyncOpenAI, number: int) -> str | None:
        got = await client.chat.completions.create(model=NAME, messages=CONVERSATIONS[number % 3], max_tokens=10 + number, temperature=0)
        return got.choices[0].message.content

    async def together() -> list[str | None]:
        async with openai.AsyncOpenAI(base_url=served.base, api_key=served.key, max_retries=0, timeout=120) as client:
            return await asyncio.gather(*(ask(client, i) for i in range(9)))

    assert asyncio.run(together()) == [expected(served.folder, CONVERSATIONS[i % 3], 10 + i).text for i in range(9)]


def test_parts_of_text_and_a_developer_are_what_templates_know(served: Served) -> None:
    parts = [
        {"role": "developer", "content": "Be short."},
        {"role": "user", "content": [{"type": "text", "text": "Gr"}, {"type": "text", "text": "üße"}]},
    ]
    plain = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Grüße"}]
    got = served.openai().chat.completions.create(model=NAME, messages=parts, max_completion_tokens=12, temperature=0)
    assert got.choices[0].message.content == expected(served.folder, plain, 12).text


def test_what_a_template_refuses_is_the_callers_fault(served: Served) -> None:
    with pytest.raises(openai.BadRequestError, match="content"):
        served.openai().chat.completions.create(model=NAME, messages=[{"role": "user", "content": None}], max_tokens=4)


def test_what_was_answered_can_be_sent_back_with_every_field_that_it_came_with(served: Served) -> None:
    client, first = served.openai(), {"role": "user", "content": "Who?"}
    asked = {"model": NAME, "max_tokens": 12, "temperature": 0}
    tool = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}
    answer = client.chat.completions.create(messages=[first], **asked).choices[0].message
    assert {"annotations", "audio", "function_call"} <= set(answer.model_dump()), "the client adds fields that the API does not know"
    web_chat = {"role": "assistant", "content": answer.content, "metadata": None, "options": None}
    plain = [first, {"role": "assistant", "content": answer.content}, {"role": "user", "content": "c"}]
    for message in (answer, answer.model_dump(), web_chat):
        got = client.chat.completions.create(messages=[first, message, plain[2]], **asked)
        assert got.choices[0].message.content == expected(served.folder, plain, 12).text
    call = (
        client.chat.completions.create(messages=[first], tools=[tool], tool_choice="required", **{**asked, "max_tokens": 60})
        .choices[0]
        .message
    )
    result = {"role": "tool", "tool_call_id": call.tool_calls[0].id, "content": "it rains", "annotations": []}
    assert client.chat.completions.create(messages=[first, call.model_dump(), result], **asked).choices[0].message.content is not None
    response = client.responses.create(model=NAME, input=[first], max_output_tokens=12, temperature=0)
    back = [first, *(item.model_dump() for item in response.output), plain[2]]
    assert (
        client.responses.create(model=NAME, input=back, max_output_tokens=12, temperature=0).output_text == got.choices[0].message.content
    )
