"""Text completions and responses through the `openai` package."""

from __future__ import annotations

import openai
import pytest

from tests.api.conftest import NAME, Served
from tests.api.expected import expected


def test_a_text_is_continued_as_it_is(served: Served) -> None:
    wanted = expected(served.folder, "Once upon", 20)
    got = served.openai().completions.create(model=NAME, prompt="Once upon", max_tokens=20, temperature=0, logprobs=2)
    (choice,) = got.choices
    assert choice.text == wanted.text and choice.finish_reason == wanted.finish_reason
    assert choice.logprobs.token_logprobs == pytest.approx(wanted.logprobs, abs=1e-4)
    assert got.usage.prompt_tokens == len(wanted.prompt_ids)
    assert choice.logprobs.text_offset[0] == 0 and choice.logprobs.text_offset == sorted(choice.logprobs.text_offset)


def test_token_ids_are_a_prompt_too(served: Served) -> None:
    wanted = expected(served.folder, "Once upon", 8)
    got = served.openai().completions.create(model=NAME, prompt=wanted.prompt_ids, max_tokens=8, temperature=0)
    assert got.choices[0].text == wanted.text


def test_every_prompt_of_a_list_has_its_choices(served: Served) -> None:
    got = served.openai().completions.create(model=NAME, prompt=["ab", "xyz"], max_tokens=6, n=2, temperature=0, echo=True)
    texts = [prompt + expected(served.folder, prompt, 6).text for prompt in ("ab", "ab", "xyz", "xyz")]
    assert [c.text for c in got.choices] == texts and [c.index for c in got.choices] == [0, 1, 2, 3]
    assert (
        got.usage.prompt_tokens == 5
        and got.usage.completion_tokens == sum(len(expected(served.folder, p, 6).token_ids) for p in ("ab", "xyz")) * 2
    )


def test_a_stream_has_the_same_text(served: Served) -> None:
    asked = {"model": NAME, "prompt": ["ab", "xyz"], "max_tokens": 10, "temperature": 0, "echo": True}
    whole = served.openai().completions.create(**asked)
    texts = ["", ""]
    reasons: list[str | None] = [None, None]
    for chunk in served.openai().completions.create(**asked, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            reasons[choice.index] = choice.finish_reason or reasons[choice.index]
    assert texts == [c.text for c in whole.choices] and reasons == [c.finish_reason for c in whole.choices]


def test_end_tokens_are_ignored_on_request(served: Served) -> None:
    got = served.openai().completions.create(model=NAME, prompt="Once", max_tokens=40, temperature=0, extra_body={"ignore_eos": True})
    assert got.usage.completion_tokens == 40 and got.choices[0].finish_reason == "length"


def test_a_response_is_the_answer_of_a_conversation(served: Served) -> None:
    messages = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Who?"}]
    wanted = expected(served.folder, messages, 12)
    got = served.openai().responses.create(model=NAME, instructions="Be short.", input="Who?", max_output_tokens=12, temperature=0)
    assert got.output_text == wanted.text
    assert got.status == ("completed" if wanted.finish_reason == "stop" else "incomplete")
    assert got.usage.output_tokens == len(wanted.token_ids)


def test_the_events_of_a_response_tell_the_same(served: Served) -> None:
    asked = {"model": NAME, "input": [{"role": "user", "content": "Who?"}], "max_output_tokens": 12, "temperature": 0}
    whole = served.openai().responses.create(**asked)
    with served.openai().responses.stream(**asked) as stream:
        events = list(stream)
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == whole.output_text
    assert [e.type for e in events][:2] == ["response.created", "response.in_progress"]
    assert [e.sequence_number for e in events] == list(range(len(events)))


def test_embeddings_say_why_not(served: Served) -> None:
    with pytest.raises(openai.InternalServerError, match="not a vector") as caught:
        served.openai().embeddings.create(model=NAME, input="x")
    assert caught.value.status_code == 501
