"""Chat templates of a folder: where they are found, which one is meant, what a template may not do, and whose fault an error is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.data.errors import InvalidInput, NotSupported
from engine.service.coordinator.text.chat import environment
from engine.service.coordinator.text.chat.templates import ChatTemplates, Written

HI = [{"role": "user", "content": "hi"}]


def folder(tmp_path: Path, config: dict[str, Any] | None = None, **files: str) -> Path:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config or {}))
    for name, text in files.items():
        path = tmp_path / ("chat_template.jinja" if name == "default" else f"additional_chat_templates/{name}.jinja")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return tmp_path


def write(templates: ChatTemplates, messages: Any = HI, tools: Any = None, further: Any = None, prompt: bool = True) -> Written:
    return templates.write(messages, tools, further or {}, prompt, 1000)


def test_files_come_before_the_settings_and_tools_have_their_own(tmp_path: Path) -> None:
    config = {"chat_template": "settings"}
    assert write(ChatTemplates(folder(tmp_path / "a", config) if (tmp_path / "a").mkdir() is None else tmp_path)) == Written(
        "settings", "default"
    )
    (tmp_path / "b").mkdir()
    templates = ChatTemplates(folder(tmp_path / "b", config, default="file", tool_use="with tools", rag="{{ documents }}"))
    assert (write(templates), write(templates, tools=[{}])) == (Written("file", "default"), Written("with tools", "tool_use"))
    assert write(templates, further={"chat_template": "rag", "documents": 5}) == Written("5", "rag")
    with pytest.raises(InvalidInput, match="chat_template 'x' is not a template of this model: it has default, rag, tool_use"):
        write(templates, further={"chat_template": "x"})


@pytest.mark.parametrize(
    "named", [[{"name": "tool_use", "template": "t"}, {"name": "rag", "template": "r"}], {"tool_use": "t", "rag": "r"}]
)
def test_several_names_without_a_default_must_be_chosen_from(tmp_path: Path, named: Any) -> None:
    templates = ChatTemplates(folder(tmp_path, {"chat_template": named}))
    assert write(templates, tools=[{}]).text == "t"
    with pytest.raises(InvalidInput, match="no default: name one of rag, tool_use"):
        write(templates)


def test_special_tokens_are_there_by_name_in_either_spelling(tmp_path: Path) -> None:
    config = {
        "bos_token": {"content": "<s>", "lstrip": False},
        "eos_token": "</s>",
        "chat_template": "{{ bos_token }}|{{ eos_token }}|{{ pad_token }}",
    }
    templates = ChatTemplates(folder(tmp_path, config))
    assert write(templates).text == "<s>|</s>|"
    assert write(templates, further={"bos_token": "<b>"}).text == "<b>|</s>|"


def test_a_model_without_a_template_says_so(tmp_path: Path) -> None:
    templates = ChatTemplates(folder(tmp_path))
    assert not templates
    with pytest.raises(NotSupported, match="the model has no chat template: send a prompt"):
        write(templates)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ raise_exception('Only user\x1b[31m and\nassistant!') }}", r"refuses this conversation: Only user \[31m and assistant!"),
        ("{{ messages[7].content.x }}", "refuses this conversation: .*has no element 7"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ messages + 1 }}", "refuses this conversation: can only concatenate list"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{% set n = namespace(__class__=1) %}", "underscore-prefixed attributes"),
        ("{{ messages.append(1) }}", "unsafe|not safely callable"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
        ("{{ 'x' * 1001 }}", "writes more than 1000 characters"),
    ],
)
def test_what_a_template_does_wrong_is_the_callers_error(tmp_path: Path, source: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as caught:
        write(ChatTemplates(folder(tmp_path, {"chat_template": source})))
    assert str(caught.value).isprintable()


def test_a_template_that_cannot_be_read_is_told_when_it_is_wanted(tmp_path: Path) -> None:
    templates = ChatTemplates(folder(tmp_path, {"chat_template": "a\n{% if %}"}))
    with pytest.raises(NotSupported, match=r"chat template 'default' cannot be read \(line 2: Expected an expression"):
        write(templates)


@pytest.mark.parametrize(
    "source",  # no piece of output may be needed to notice
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% set r = range(99999) | list %}{% for a in r if a %}{% for b in r %}{% endfor %}{% endfor %}",
        "{% macro f(x) %}{% for a in x %}{% for b in x %}{% endfor %}{% endfor %}{% endmacro %}{{ f(range(99999)) }}",
        "{% generation %}{% for a in range(9999) %}{{ loop.length }}{% for b in range(9999) %}{% endfor %}{% endfor %}{% endgeneration %}",
    ],
)
def test_a_template_that_would_not_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.setattr(environment, "RENDER_LIMIT_S", 0.05)
    with pytest.raises(InvalidInput, match=r"cannot write this conversation: it takes longer than 0.05 s"):
        write(ChatTemplates(folder(tmp_path, {"chat_template": source})))


def test_fields_of_the_request_are_not_further_names(tmp_path: Path) -> None:
    templates = ChatTemplates(folder(tmp_path, {"chat_template": "x"}))
    for name in ("messages", "tools", "add_generation_prompt", "continue_final_message"):
        with pytest.raises(InvalidInput, match=rf"chat_template_kwargs.{name} is not allowed"):
            write(templates, further={name: 1})
