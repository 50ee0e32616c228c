"""Answers of a form: JSON of a schema, calls of tools; at any temperature, streamed or not, and through the loss of a worker."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import openai
import pydantic
import pytest

from tests.api.conftest import NAME, Served
from tests.api.killing import texts_through_a_kill
from tests.api.test_streams import own  # noqa: F401  (a fixture)

MESSAGES = [{"role": "user", "content": "Describe a person"}]


class Person(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    name: str = pydantic.Field(max_length=12)
    kind: Literal["adult", "child"]
    ages: list[Literal[1, 20, 300]] = pydantic.Field(max_length=3)


FORM = {"type": "json_schema", "json_schema": {"name": "person", "schema": Person.model_json_schema(), "strict": True}}
ARGUMENTS = {"type": "object", "properties": {"id": {"enum": [1, 22]}}, "required": ["id"], "additionalProperties": False}
NOTHING = {"type": "object", "properties": {}, "additionalProperties": False}
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": name, "parameters": schema}} for name, schema in (("look_up", ARGUMENTS), ("stop", NOTHING))
]
LOOK_UP = {"type": "function", "function": {"name": "look_up"}}


def test_answers_are_of_the_schema_whatever_the_seed(served: Served) -> None:
    client = served.openai()
    for seed in range(0, 48, 16):
        got = client.chat.completions.create(
            model=NAME, messages=MESSAGES, temperature=1, seed=seed, n=16, max_tokens=200, response_format=FORM
        )
        for choice in got.choices:
            assert choice.finish_reason == "stop", choice
            Person.model_validate_json(choice.message.content)


def test_a_model_class_is_a_form(served: Served) -> None:
    got = served.openai().chat.completions.parse(model=NAME, messages=MESSAGES, max_tokens=200, temperature=0, response_format=Person)
    assert isinstance(got.choices[0].message.parsed, Person)


def test_a_stream_is_the_same_answer(served: Served) -> None:
    asked = {"model": NAME, "messages": MESSAGES, "temperature": 1, "seed": 3, "max_tokens": 200, "response_format": FORM}
    whole = served.openai().chat.completions.create(**asked)
    chunks = list(served.openai().chat.completions.create(**asked, stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == whole.choices[0].message.content


@pytest.mark.parametrize(("choice", "names"), [("required", {"look_up", "stop"}), (LOOK_UP, {"look_up"})])
@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_call_that_is_required_is_made(served: Served, choice: Any, names: set[str], is_streamed: bool) -> None:
    for seed in range(6):
        asked = {
            "model": NAME,
            "messages": MESSAGES,
            "temperature": 1,
            "seed": seed,
            "max_tokens": 120,
            "tools": TOOLS,
            "tool_choice": choice,
        }
        if is_streamed:
            chunks = list(served.openai().chat.completions.create(**asked, stream=True))
            calls = [call for c in chunks for call in c.choices[0].delta.tool_calls or []]
            reason = chunks[-1].choices[0].finish_reason
        else:
            (only,) = served.openai().chat.completions.create(**asked).choices
            calls, reason = only.message.tool_calls, only.finish_reason
            assert only.message.content is None
        assert reason == "tool_calls" and len(calls) == 1 and calls[0].function.name in names
        arguments = json.loads(calls[0].function.arguments)
        assert arguments in ([{"id": 1}, {"id": 22}] if calls[0].function.name == "look_up" else [{}])


@pytest.mark.parametrize(
    ("more", "param", "said"),
    [
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "with a schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "objekt"}}}}, None, "objekt"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"$ref": "#"}}}}, None, "no answer can have"),
        ({"tool_choice": "required"}, "tool_choice", "needs tools"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice", "'look_up', 'stop'"),
        ({"tools": TOOLS, "tool_choice": "required", "response_format": FORM}, "response_format", "two forms"),
        ({"response_format": FORM, "extra_body": {"ignore_eos": True}}, None, "where an answer ends"),
    ],
)
def test_a_form_that_is_none_is_refused(served: Served, more: dict[str, Any], param: str | None, said: str) -> None:
    with pytest.raises(openai.BadRequestError, match=said) as caught:
        served.openai().chat.completions.create(model=NAME, messages=MESSAGES, max_tokens=20, **more)
    assert param is None or caught.value.param == param


def test_a_worker_that_is_killed_in_the_middle_changes_no_form(served: Served, own: Served) -> None:  # noqa: F811
    asked = {"model": NAME, "messages": MESSAGES, "temperature": 1, "max_tokens": 300, "response_format": FORM}
    wanted = [served.openai().chat.completions.create(**asked, seed=seed).choices[0].message.content for seed in range(3)]
    assert texts_through_a_kill(own, [{**asked, "seed": seed} for seed in range(3)], begun_after=4) == wanted


def test_the_command_line_asks_for_a_form_too(served: Served, tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps(Person.model_json_schema()))
    command = [sys.executable, "-m", "engine", "generate", "Describe a person", "--connect", served.address, "--max-new-tokens", "200"]
    done = subprocess.run([*command, "--json-schema", str(schema), "--json"], capture_output=True, text=True, timeout=120)
    Person.model_validate_json(json.loads(done.stdout)["text"])
    schema.write_text("{")
    done = subprocess.run([*command, "--json-schema", str(schema)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "json_schema" in done.stderr and "Traceback" not in done.stderr
