"""Conversations as OpenAI's clients write them, in the form that templates read; what is none is refused by its place."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.errors import InvalidInput
from engine.service.coordinator.text.chat.conversation import MAX_AT_ONCE, read_kwargs, read_messages, read_tools

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('ab"é', max_size=3), inner, max_size=4), max_leaves=20
)
CALL = {"id": "c1", "type": "function", "function": {"name": "now", "arguments": '{"zone": "Paris"}'}}


def test_parts_of_text_are_joined_and_empty_keys_left_out() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "input_text", "text": "b"}, "c"]
    sent = [{"role": "user", "content": parts, "name": None}, {"role": "assistant", "content": None, "tool_calls": [CALL]}]
    user, assistant = read_messages(json.dumps(sent))
    assert user == {"role": "user", "content": "abc"}
    assert assistant == {"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "now", "arguments": {"zone": "Paris"}}}]}


@pytest.mark.parametrize("arguments", ["", "{", "[1]", "3"])
def test_arguments_that_are_no_object_stay_as_the_model_wrote_them(arguments: str) -> None:
    call = {"function": {"name": "f", "arguments": arguments}}
    (message,) = read_messages(json.dumps([{"role": "assistant", "tool_calls": [call]}]))
    assert message["tool_calls"] == [call]


@pytest.mark.parametrize("name", ["reasoning_content", "thinking", "reasoning"])
def test_reasoning_has_the_names_that_templates_read(name: str) -> None:
    (message,) = read_messages(json.dumps([{"role": "assistant", "content": "4", name: "2 + 2"}]))
    assert message["reasoning_content"] == message["thinking"] == "2 + 2"


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        ([], "messages is an empty list"),
        ({}, "messages is {}: it must be a JSON list"),
        ([3], r"messages\[0\] is 3: each message is an object"),
        ([{"role": "user"}, {"content": "x"}], r"messages\[1\].role is missing: name who speaks"),
        ([{"role": 7, "content": "x"}], r"messages\[0\].role is 7"),
        ([{"role": "user", "content": 5}], r"messages\[0\].content is 5: a text, or a list"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}],
            r"content\[0\] is of type 'image_url': only text is read",
        ),
        ([{"role": "user", "content": [{"type": "text", "text": 3}]}], r"content\[0\] is \{'type': 'text', 'text': 3\}"),
        ([{"role": "assistant", "tool_calls": {}}], r"messages\[0\].tool_calls is \{\}: a list of tool calls"),
        ([{"role": "assistant", "tool_calls": ["x"]}], r"tool_calls\[0\] is 'x': each tool call is an object"),
        ([{"role": "user", "content": "x"}] * 10_001, "messages has 10001 entries, the limit is 10000"),
    ],
)
def test_what_is_no_conversation_is_refused_by_its_place(sent: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        read_messages(json.dumps(sent))


@pytest.mark.parametrize("text", ["", "{", "[NaN]", "[" * 100_000, "[1, Infinity]", "\ud800"])
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="messages is no JSON"):
        read_messages(text)


@given(JSON.filter(lambda value: isinstance(value, dict)))
def test_a_long_text_is_read_like_a_short_one(value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False)
    assert read_kwargs(text + " " * MAX_AT_ONCE) == read_kwargs(text) == value


@pytest.mark.parametrize("text", ["[1, ", "[1 2]", '["\\x"]', '{"a" 1}', "[-]", "[1]]", '["a', "[NaN]"])
def test_what_is_no_json_is_refused_in_a_long_text_too(text: str) -> None:
    for padded in (text, " " * MAX_AT_ONCE + text):
        with pytest.raises(InvalidInput, match="messages is no JSON"):
            read_messages(padded)


def test_lists_and_objects_are_bounded() -> None:
    with pytest.raises(InvalidInput, match=r"chat_template_kwargs is no JSON .it has more than 100000 lists and objects"):
        read_kwargs('{"a": [' + "[], {}, " * 60_000 + "1]}")


def test_nesting_is_bounded() -> None:
    text = '[{"role": "user", "x": ' + "[" * 80 + "]" * 80 + "}]"
    with pytest.raises(InvalidInput, match="messages is nested more than 64 levels deep"):
        read_messages(text)


def test_tools_and_further_names() -> None:
    assert (read_tools(""), read_tools("[]"), read_kwargs("")) == (None, None, {})
    assert read_kwargs('{"enable_thinking": false}') == {"enable_thinking": False}
    with pytest.raises(InvalidInput, match=r"tools\[0\] is 'now': each tool is an object"):
        read_tools('["now"]')
    with pytest.raises(InvalidInput, match=r"chat_template_kwargs is .*: it must be a JSON object"):
        read_kwargs("[]")
