"""A conversation as clients send it, checked and brought into the form that chat templates read. Pure.

Clients write what OpenAI's chat completions take. Templates are written for what transformers' `apply_chat_template` hands them: the text
of a message is one string, keys without a value are left out, the arguments of a tool call are an object.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from json.scanner import py_make_scanner  # type: ignore[attr-defined]
from typing import Any, cast

from engine.data.errors import InvalidInput

MAX_MESSAGES = 10_000
MAX_TOOLS = 1_000
MAX_AT_ONCE = 32 * 1024  # characters of JSON that are read without a pause; of lists alone that takes 10 ms
MAX_CONTAINERS = 100_000  # lists and objects of one text; what collects garbage holds the interpreter for each of them
MAX_DEPTH = 64  # of objects and lists in one another
_SHOWN = 80  # characters of a wrong value
_REASONING = ("reasoning_content", "thinking", "reasoning")  # one thing under three names; the first is the one that templates read
_TEXT_PARTS = ("text", "input_text", "output_text")


def read_messages(text: str) -> list[dict[str, Any]]:
    """The messages of a JSON text, for a template. Raises InvalidInput naming the message that is none."""
    raw = _document("messages", text, list)
    if not raw:
        raise InvalidInput("messages is an empty list: send at least one message")
    if len(raw) > MAX_MESSAGES:
        raise InvalidInput(f"messages has {len(raw)} entries, the limit is {MAX_MESSAGES}: send fewer")
    return [_message(f"messages[{number}]", message) for number, message in enumerate(raw)]


def read_tools(text: str) -> list[dict[str, Any]] | None:
    """The tools of a JSON text; None if there are none. Raises InvalidInput."""
    if not text:
        return None
    raw = _document("tools", text, list)
    if len(raw) > MAX_TOOLS:
        raise InvalidInput(f"tools has {len(raw)} entries, the limit is {MAX_TOOLS}: send fewer")
    for number, tool in enumerate(raw):
        if not isinstance(tool, dict):
            raise InvalidInput(f"tools[{number}] is {_shown(tool)}: each tool is an object with its type and its function")
    return raw or None


def read_kwargs(text: str) -> dict[str, Any]:
    """The further names for a template. Raises InvalidInput."""
    return dict(_document("chat_template_kwargs", text, dict)) if text else {}


def user_says(text: str) -> list[dict[str, Any]]:
    """The conversation that a bare prompt begins."""
    return [{"role": "user", "content": text}]


def _message(where: str, raw: Any) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise InvalidInput(f"{where} is {_shown(raw)}: each message is an object with role and content")
    message = {key: value for key, value in raw.items() if value is not None}
    if not isinstance(role := message.get("role"), str) or not role:
        raise InvalidInput(f"{where}.role is {_shown(role)}: name who speaks, such as user, assistant, system or tool")
    if "content" in message:
        message["content"] = _content(f"{where}.content", message["content"])
    if "tool_calls" in message:
        message["tool_calls"] = _calls(f"{where}.tool_calls", message["tool_calls"])
    reasoning = next((message[key] for key in _REASONING if key in message), None)
    return message if reasoning is None else {"thinking": reasoning, **message, "reasoning_content": reasoning}


def _content(where: str, raw: Any) -> str:
    """The text of a message, its parts joined."""
    if isinstance(raw, str):
        return raw
    if not isinstance(raw, list):
        raise InvalidInput(f"{where} is {_shown(raw)}: a text, or a list of parts of type text")
    return "".join(_part(f"{where}[{number}]", part) for number, part in enumerate(raw))


def _part(where: str, part: Any) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, dict) else None
    if kind not in _TEXT_PARTS or not isinstance(part.get("text"), str):
        what = f"of type {_shown(kind)}" if kind is not None and kind not in _TEXT_PARTS else _shown(part)
        raise InvalidInput(f'{where} is {what}: only text is read here, as {{"type": "text", "text": ...}}')
    return str(part["text"])


def _calls(where: str, raw: Any) -> list[Any]:
    """Tool calls, their arguments as objects where they are JSON of one: a model may have written anything."""
    if not isinstance(raw, list):
        raise InvalidInput(f"{where} is {_shown(raw)}: a list of tool calls")
    return [_call(f"{where}[{number}]", call) for number, call in enumerate(raw)]


def _call(where: str, call: Any) -> dict[str, Any]:
    if not isinstance(call, dict):
        raise InvalidInput(f"{where} is {_shown(call)}: each tool call is an object with id, type and function")
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = json.loads(function["arguments"])
    except (ValueError, RecursionError):
        return call
    return {**call, "function": {**function, "arguments": arguments}} if isinstance(arguments, dict) else call


def _document(what: str, text: str, kind: type[list[Any]] | type[dict[str, Any]]) -> Any:
    """The JSON in `text`, which must be of that kind, finite, and not nested without end."""
    name = "list" if kind is list else "object"
    try:
        raw = _decoder(len(text)).decode(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{what} is no JSON ({' '.join(str(error).split())[:_SHOWN]}): send a {name} as one JSON text") from error
    if not isinstance(raw, kind):
        raise InvalidInput(f"{what} is {_shown(raw)}: it must be a JSON {name}")
    _check_depth(what, raw)
    return raw


def _decoder(num_characters: int) -> json.JSONDecoder:
    """For a long text the one whose loops are Python's: the other holds the interpreter, and with it the coordinator's loop, to the end."""
    decoder: Any = json.JSONDecoder(parse_constant=_no_constant)
    if num_characters > MAX_AT_ONCE:
        numbers = itertools.count()
        decoder.parse_array, decoder.parse_object = _counted(decoder.parse_array, numbers), _counted(decoder.parse_object, numbers)
        decoder.scan_once = py_make_scanner(decoder)
    return cast(json.JSONDecoder, decoder)


def _counted(parse: Callable[..., Any], numbers: Iterator[int]) -> Callable[..., Any]:
    def counted(*arguments: Any) -> Any:
        if next(numbers) >= MAX_CONTAINERS:
            raise ValueError(f"it has more than {MAX_CONTAINERS} lists and objects")
        return parse(*arguments)

    return counted


def _check_depth(what: str, raw: Any) -> None:
    level = [raw]
    for _ in range(MAX_DEPTH):
        level = [v for c in level for v in (c.values() if isinstance(c, dict) else c) if isinstance(v, dict | list)]
        if not level:
            return
    raise InvalidInput(f"{what} is nested more than {MAX_DEPTH} levels deep: send something flatter")


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _shown(value: Any) -> str:
    text = "missing" if value is None else repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
