"""Calls of tools in the text of an answer, in the forms that chat templates teach their models:

    <tool_call>{"name": "f", "arguments": {...}}</tool_call>      Hermes, Qwen, SmolLM
    [TOOL_CALLS] [{"name": "f", "arguments": {...}}]              Mistral
    {"name": "f", "parameters": {...}}  as the whole answer        Llama 3, with <|python_tag|> in front or not

What is not one of these is text.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from engine.data.json_text import json_text

_TAG, _END_TAG = "<tool_call>", "</tool_call>"
_MISTRAL, _PYTHON = "[TOOL_CALLS]", "<|python_tag|>"
_MARKS = (_TAG, _MISTRAL, _PYTHON)


@dataclass(frozen=True, slots=True)
class Call:
    """A function and its arguments, a JSON text."""

    call_id: str
    name: str
    arguments: str

    def document(self) -> dict[str, Any]:
        return {"id": self.call_id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}}


class CallReader:
    """Takes an answer in piece by piece; gives back text that is no call, and calls that are complete."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = frozenset(names)
        self._held = ""  # not decided yet
        self._is_first = True  # nothing was given back: the whole answer may be a call

    def take(self, text: str) -> tuple[str, list[Call]]:
        """The next piece; returns what is clear by now."""
        self._held += text
        calls: list[Call] = []
        content = ""
        while True:
            start, mark = _first_mark(self._held)
            if mark == _TAG and (end := self._held.find(_END_TAG, start)) >= 0:
                found = self._calls(self._held[start + len(_TAG) : end])
                content += self._held[:start] if found else self._held[: end + len(_END_TAG)]
                calls += found
                self._held = self._held[end + len(_END_TAG) :].lstrip("\n")
                self._is_first = False
                continue
            if mark:
                content, self._held = content + self._held[:start], self._held[start:]
            elif not (self._is_first and _may_be_json(self._held)):
                kept = _possible_mark(self._held)
                content, self._held = content + self._held[: len(self._held) - kept], self._held[len(self._held) - kept :]
            self._is_first = self._is_first and not content
            return content, calls

    def end(self) -> tuple[str, list[Call]]:
        """What is left when the answer has ended."""
        held, self._held = self._held, ""
        body = held.strip()
        for mark in (_TAG, _MISTRAL, _PYTHON):
            body = body.removeprefix(mark)
        calls = self._calls(body) if self._is_first or body != held.strip() else []
        return ("", calls) if calls else (held, [])

    def _calls(self, body: str) -> list[Call]:
        """Those in a JSON object or a list of them; none if it is anything else, or names a tool that was not offered."""
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            return []
        entries = document if isinstance(document, list) else [document]
        calls = [self._call(entry) for entry in entries]
        return [call for call in calls if call is not None] if all(calls) else []

    def _call(self, entry: Any) -> Call | None:
        if not isinstance(entry, dict) or entry.get("name") not in self._names:
            return None
        arguments = entry.get("arguments", entry.get("parameters", {}))
        text = arguments if isinstance(arguments, str) else json_text(arguments)
        return Call(f"call_{secrets.token_hex(12)}", entry["name"], text)


def _first_mark(text: str) -> tuple[int, str]:
    """Where the first mark begins, and which; (-1, "") if there is none."""
    found = [(at, mark) for mark in _MARKS if (at := text.find(mark)) >= 0]
    return min(found, default=(-1, ""))


def _possible_mark(text: str) -> int:
    """So many characters at the end may be the beginning of a mark."""
    return max((n for mark in _MARKS for n in range(1, len(mark)) if text.endswith(mark[:n])), default=0)


def _may_be_json(text: str) -> bool:
    return text.strip()[:1] in ("", "{", "[")
