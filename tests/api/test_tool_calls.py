"""Calls of tools in the text of an answer: found in whatever pieces it comes, and nothing else taken for one."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.api.endpoints.tool_calls import CallReader

HERMES = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'
CASES = [
    # text, what is left of it, the calls
    ("Hello", "Hello", []),
    ("", "", []),
    (HERMES, "", [("f", {"a": 1})]),
    (f"I look.\n{HERMES}\n{HERMES}", "I look.\n", [("f", {"a": 1})] * 2),
    (f"{HERMES} done", " done", [("f", {"a": 1})]),
    ('[TOOL_CALLS] [{"name": "g", "arguments": {}}, {"name": "f", "arguments": {"b": "x"}}]', "", [("g", {}), ("f", {"b": "x"})]),
    ('{"name": "f", "parameters": {"a": [1]}}', "", [("f", {"a": [1]})]),
    ('<|python_tag|>{"name": "f", "parameters": {}}', "", [("f", {})]),
    ('{"name": "unknown", "parameters": {}}', '{"name": "unknown", "parameters": {}}', []),
    ('{"answer": 42}', '{"answer": 42}', []),
    ("[1, 2]", "[1, 2]", []),
    ("a < b and <tool", "a < b and <tool", []),
    ("<tool_call>nonsense</tool_call> and on", "<tool_call>nonsense</tool_call> and on", []),
    ("<tool_call>never closed", "<tool_call>never closed", []),
    ('Text, then {"name": "f", "arguments": {}}', 'Text, then {"name": "f", "arguments": {}}', []),
]


def read(pieces: list[str]) -> tuple[str, list[tuple[str, object]]]:
    reader = CallReader(["f", "g"])
    content, calls = "", []
    for text, found in [*(reader.take(piece) for piece in pieces), reader.end()]:
        content += text
        calls += found
    assert len({call.call_id for call in calls}) == len(calls)
    return content, [(call.name, json.loads(call.arguments)) for call in calls]


@pytest.mark.parametrize(("text", "content", "calls"), CASES)
def test_calls_are_found(text: str, content: str, calls: list[tuple[str, object]]) -> None:
    assert read([text]) == (content, calls)


@given(st.sampled_from(CASES), st.data())
def test_the_pieces_do_not_matter(case: tuple[str, str, list[tuple[str, object]]], data: st.DataObject) -> None:
    text, content, calls = case
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert read(pieces) == (content, calls)


@given(st.text(alphabet='<>tool_cal/[]{}"TOOLCALLS,:namef \n', max_size=60))
def test_no_text_is_lost(text: str) -> None:
    whole = read([text])
    assert read(list(text)) == whole
    if not whole[1]:
        assert whole[0] == text
