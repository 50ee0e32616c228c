"""Chat templates in the style of the known families, by our engine and by transformers: equal texts, equal errors, equal tokens.

`templates/` holds one of each kind: roles that must alternate, a system that is not supported, tools and their results, reasoning,
dates, loops that are left, macros, namespaces, and the marks of what an assistant says. What they write is not known here; only that
both engines write the same. `NOODLE_CHAT_TEMPLATES=FOLDER` compares those of another folder.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from engine.data.errors import InvalidInput
from engine.service.coordinator.text.chat.conversation import read_messages, read_tools
from engine.service.coordinator.text.chat.templates import ChatTemplates
from engine.service.coordinator.text.codec import TextCodec

FOLDER = Path(os.environ.get("NOODLE_CHAT_TEMPLATES") or Path(__file__).parent / "templates")
FILES = sorted(FOLDER.glob("*.jinja"))
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
REFUSED = "the model's chat template refuses this conversation: "


def call(arguments: Any, name: str = "weather") -> dict[str, Any]:
    return {"id": "call12345", "type": "function", "function": {"name": name, "arguments": arguments}}


def say(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


PARAMETERS = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "description": 'A "city" <name> & more'},
        "days": {"type": "array", "items": {"type": "integer"}},
        "unit": {"type": "string", "enum": ["C", "F"]},
    },
    "required": ["city"],
}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "description": "What it's like outside: 東京 😀", "parameters": PARAMETERS}},
    {
        "type": "function",
        "function": {"name": "now", "description": "The time", "parameters": {"type": "object", "properties": {}, "required": []}},
    },
]
ASKED, TURN = say("user", "Hello  \n"), [say("user", "What is 2+2?"), say("assistant", " 4. "), say("user", "Sure?\r\n\r\nReally?")]
CALLED = [say("user", "Weather in Paris?"), say("assistant", None, tool_calls=[call({"city": "Paris", "days": [1, 2]})])]
RESULT = say("tool", '{"t": 21.5, "sky": "ciel dégagé"}', name="weather", tool_call_id="call12345")
CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "one turn": [ASKED],
    "system": [say("system", "Be brief.\n"), ASKED],
    "several turns": TURN,
    "system and several turns": [say("system", " /no_think Be brief."), *TURN],
    "two systems": [say("system", "One."), ASKED, say("system", "Two."), ASKED],
    "the assistant has the last word": TURN[:2],
    "the assistant begins": [say("assistant", "Hi."), ASKED],
    "two users": [ASKED, ASKED],
    "an unknown role": [ASKED, say("critic", "Bad.")],
    "unicode": [say("user", "日本語 \U0001f35c e\u0301 \u202e x <|im_end|> <s> \"quotes\" 'and' <b>&amp;</b>")],
    "empty content": [say("user", "")],
    "no content": [{"role": "user"}],
    "reasoning": [ASKED, say("assistant", "Yes.", reasoning_content="\nHm.\n"), ASKED, say("assistant", "No.", reasoning="Hm?"), ASKED],
    "thoughts in the text": [ASKED, say("assistant", "<think>\nHm.\n</think>\n\nYes."), ASKED],
    "a tool call": CALLED,
    "a tool's result": [*CALLED, RESULT],
    "an answer by tool": [*CALLED, RESULT, say("assistant", "It is 21.5 °C."), say("user", "Thanks")],
    "two calls": [CALLED[0], say("assistant", "Let me see.", tool_calls=[call({"city": "Paris"}), call({}, "now")]), RESULT, RESULT],
    "a call without id": [
        CALLED[0],
        say("assistant", "", tool_calls=[{"type": "function", "function": {"name": "now", "arguments": {}}}]),
        RESULT,
    ],
    "a result without a call": [ASKED, RESULT],
}
SETTINGS: list[tuple[bool, bool, dict[str, Any]]] = [
    (True, False, {}),
    (False, False, {}),
    (True, True, {}),
    (False, True, {"tools_in_user_message": False, "date_string": "1 Jan 2030"}),
    (
        True,
        False,
        {
            "enable_thinking": False,
            "reasoning_effort": "high",
            "documents": [{"title": "T", "text": "Facts."}],
            "controls": {"length": "long"},
        },
    ),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a tokenizer with special tokens, which begins every text with one of them."""
    folder = tmp_path_factory.mktemp("tokenizer")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({character: i for i, character in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    marks = [*SPECIAL.values(), "<|im_start|>", "<|im_end|>", "<|eot_id|>", "[INST]", "[/INST]", "<start_of_turn>", "<end_of_turn>"]
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in marks])
    from tokenizers.processors import TemplateProcessing

    tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **SPECIAL}))
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def as_clients_send(messages: list[dict[str, Any]]) -> str:
    """Arguments of calls as JSON texts, as OpenAI's clients have them."""

    def sent(entry: dict[str, Any]) -> dict[str, Any]:
        function = entry["function"]
        return {**entry, "function": {**function, "arguments": json.dumps(function["arguments"])}}

    return json.dumps([{**m, "tool_calls": [sent(c) for c in m["tool_calls"]]} if "tool_calls" in m else m for m in messages])


def theirs(tokenizer: Any, source: str, messages: Any, tools: Any, prompt: bool, further: dict[str, Any]) -> str:
    try:
        return str(
            tokenizer.apply_chat_template(
                messages, tools=tools, chat_template=source, add_generation_prompt=prompt, tokenize=False, **further
            )
        )
    except Exception as error:
        return REFUSED + " ".join(str(error).split())


def ours(templates: ChatTemplates, messages: Any, tools: Any, prompt: bool, further: dict[str, Any]) -> str:
    try:
        said = read_messages(as_clients_send(messages))
        return templates.write(said, read_tools(json.dumps(tools)) if tools else None, further, prompt, 100_000).text
    except InvalidInput as error:
        return str(error)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_both_engines_write_the_same_texts_tokens_and_errors(file: Path, folder: Path, tokenizer: Any, tmp_path: Path) -> None:
    source = file.read_text(encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text((folder / "tokenizer_config.json").read_text())
    (tmp_path / "chat_template.jinja").write_text(source, encoding="utf-8")
    templates, codec, num_texts = ChatTemplates(tmp_path), TextCodec(folder), 0
    for name, messages in CONVERSATIONS.items():
        for prompt, with_tools, further in SETTINGS:
            tools = TOOLS if with_tools else None
            expected = theirs(tokenizer, source, messages, tools, prompt, further)
            assert ours(templates, messages, tools, prompt, further) == expected, (name, prompt, with_tools, further)
            if not expected.startswith(REFUSED):
                num_texts += 1
                ids = tokenizer(expected, add_special_tokens=False)["input_ids"]
                assert codec.encode(expected, frames=False) == tuple(ids), (name, prompt, with_tools)
    assert num_texts >= 10, "a template that refuses everything compares nothing"


def test_there_are_thirty_and_they_differ_in_what_they_refuse(folder: Path, tokenizer: Any) -> None:
    assert len(FILES) >= 30
    refusals = {theirs(tokenizer, f.read_text(encoding="utf-8"), m, None, True, {}) for f in FILES for m in CONVERSATIONS.values()}
    assert len([text for text in refusals if text.startswith(REFUSED)]) >= 8


def test_a_text_is_begun_once(folder: Path, tokenizer: Any) -> None:
    """A template writes the token that begins a text; the tokenizer, which would as well, must not do it again."""
    codec = TextCodec(folder)
    begin = tokenizer.bos_token_id
    assert codec.encode("<s>[INST] x [/INST]", frames=False)[:2] == (begin, tokenizer.convert_tokens_to_ids("[INST]"))
    assert codec.encode("<s>[INST] x [/INST]")[:2] == (begin, begin)
