"""What may not be asked: every fault has its status and its sentence in OpenAI's form, and nothing makes the server fail."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.api.bodies import ChatBody, CompletionBody, ResponseBody
from tests.api.conftest import NAME, Served

CHAT = {"model": NAME, "messages": [{"role": "user", "content": "x"}], "max_tokens": 2}
POSTS = {"/v1/chat/completions": ChatBody, "/v1/completions": CompletionBody, "/v1/responses": ResponseBody}


@pytest.mark.parametrize(
    ("change", "status", "param", "said"),
    [
        ({"tempersture": 1}, 400, "tempersture", "did you mean 'temperature'?"),
        ({"best_of": 2}, 400, "best_of", "unknown parameter"),
        ({"temperature": 3}, 400, "temperature", "less than or equal to 2"),
        ({"temperature": "hot"}, 400, "temperature", '"hot" is not allowed'),
        ({"temperature": True}, 400, "temperature", "true is not allowed"),
        ({"n": 0}, 400, "n", "greater than or equal to 1"),
        ({"n": 100}, 400, "n", "less than or equal to 16"),
        ({"max_tokens": 0}, 400, "max_tokens", "greater than or equal to 1"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, 400, "max_completion_tokens", "two limits"),
        ({"messages": []}, 400, "messages", "at least 1"),
        ({"messages": "x"}, 400, "messages", "array"),
        ({"messages": [{"role": "pope", "content": "x"}]}, 400, "messages.0.role", "pope"),
        ({"messages": [{"role": "user", "content": "x", "colour": 1}]}, 400, "messages.0.colour", "unknown parameter"),
        ({"messages": [{"role": "user", "content": "x", "audio": {"id": "y"}}]}, 400, "messages.0.audio", "unknown parameter"),
        ({"messages": [{"role": "user", "content": "x", "colour": False}]}, 400, "messages.0.colour", "unknown parameter"),
        ({"colour": None}, 400, "colour", "unknown parameter"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, 400, None, "image_url"),
        ({"top_logprobs": 2}, 400, "top_logprobs", "needs logprobs"),
        ({"stream_options": {}}, 400, "stream_options", "needs stream"),
        ({"logit_bias": {"x": 1}}, 400, None, "x"),
        ({"logit_bias": {"5": 101}}, 400, "logit_bias.5", "101 is not allowed"),
        ({"logit_bias": {"99999": 1}}, 400, None, "99999"),
        ({"stop": ["x"] * 17}, 400, "stop", "16"),
        ({"stop": [""]}, 400, None, "1 character"),
        ({"min_tokens": 9}, 400, None, "min_tokens 9"),
        ({"model": "gpt-4o"}, 404, "model", f"'gpt-4o' is not served here: '{NAME}' is"),
        ({"messages": [{"role": "user", "content": "x" * 600}]}, 400, None, "512"),
    ],
)
def test_a_wrong_field_is_named(served: Served, change: dict[str, Any], status: int, param: str | None, said: str) -> None:
    with served.client() as client:
        answer = client.post("/v1/chat/completions", json={**CHAT, **change})
    error = answer.json()["error"]
    assert (answer.status_code, said in error["message"]) == (status, True), error
    assert param is None or error["param"] == param
    assert set(error) == {"message", "type", "param", "code"}


NOT_JSON = (
    b'"chat_template_kwargs": {"a": NaN}',
    b'"tools": [{"type": "function", "function": {"name": "a", "parameters": {"minimum": -Infinity}}}]',
    b'"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"maximum": 1e999}}}',
)


@pytest.mark.parametrize(
    ("content", "status", "said"),
    [
        (b"", 400, "not JSON"),
        (b"{", 400, "not JSON"),
        (b"\xff\xfe", 400, "not JSON"),
        (b"[]", 400, "the body"),
        (b"[" * 100_000, 400, "JSON"),
        (b'{"model": "small-chat"}', 400, "'messages' is missing"),
        (b"x" * (4 * 2**20 + 1), 413, "more than 4 MiB"),
        *((b'{"model": "small-chat", "messages": [{"role": "user", "content": "a"}], %s}' % bad, 400, "not JSON") for bad in NOT_JSON),
    ],
)
def test_a_body_that_is_none_is_refused(served: Served, content: bytes, status: int, said: str) -> None:
    with served.client() as client:
        answer = client.post("/v1/chat/completions", content=content)
    assert (answer.status_code, said in answer.json()["error"]["message"]) == (status, True), answer.text


def test_a_body_without_a_length_is_cut_off_where_it_is_too_large(served: Served) -> None:
    def endless() -> Any:
        for _ in range(6):
            yield b" " * 2**20

    with served.client() as client:
        assert client.post("/v1/chat/completions", content=endless()).status_code == 413


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({}, "there is no key"),
        ({"authorization": "Basic x"}, "there is no key"),
        ({"authorization": "Bearer"}, "there is no key"),
        ({"authorization": "Bearer not-a-token-of-this-cluster"}, "token"),
        ({"authorization": "Bearer sch\u00f6n".encode("latin-1")}, "ASCII"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models", "/metrics"])
def test_nobody_gets_in_without_a_key(served: Served, headers: dict[str, Any], said: str, path: str) -> None:
    with httpx.Client(base_url=served.http, headers=headers, timeout=60) as client:
        answer = client.get(path) if path != "/v1/chat/completions" else client.post(path, json=CHAT)
    assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert said in answer.json()["error"]["message"], answer.text


def test_what_is_not_there_says_where_to_look(served: Served) -> None:
    with served.client() as client:
        assert (client.get("/v1/nothing").status_code, client.get("/v1/chat/completions").status_code) == (404, 405)
        assert "/docs" in client.get("/v1/nothing").json()["error"]["message"]
        assert client.get("/v1/models/another").json()["error"]["code"] == "model_not_found"
        assert client.get(f"/v1/models/{NAME}").json()["id"] == NAME


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def bodies(draw: st.DrawFn) -> tuple[str, bytes]:
    """A request in which some fields are anything, or bytes that lost or changed a few."""
    path = draw(st.sampled_from(sorted(POSTS)))
    body: dict[str, Any] = {"model": NAME, "max_tokens": 1}
    body |= {"messages": [{"role": "user", "content": "x"}]} if path == "/v1/chat/completions" else {}
    body |= {"prompt": "x"} if path == "/v1/completions" else {}
    if path == "/v1/responses":
        body = {"model": NAME, "input": "x", "max_output_tokens": 1}
    names = st.sampled_from(sorted(POSTS[path].model_fields)) | st.text(max_size=8)
    body |= draw(
        st.dictionaries(
            names.filter(lambda name: name not in ("max_tokens", "max_output_tokens", "max_completion_tokens", "n")), VALUES, max_size=3
        )
    )
    content = json.dumps(body, allow_nan=True).encode()
    if draw(st.booleans()):
        return path, content
    at = draw(st.integers(0, len(content) - 1))
    return path, content[:at] + draw(st.binary(max_size=4)) + content[at + draw(st.integers(0, 3)) :]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bodies())
def test_whatever_is_sent_is_answered_or_refused(served: Served, asked: tuple[str, bytes]) -> None:
    path, content = asked
    with served.client() as client:
        answer = client.post(path, content=content)
    assert answer.status_code in (200, 400, 404), (content, answer.text)
    if answer.status_code != 200:
        assert answer.json()["error"]["message"]
