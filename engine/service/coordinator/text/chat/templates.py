"""The chat templates of a model's folder: where they stand, which one is meant, and the text that they make of a conversation.

Texts and errors are those of transformers' `apply_chat_template`, which the tests compare with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Template, TemplateSyntaxError

from engine.data.errors import InvalidInput, NotSupported
from engine.files import read_document
from engine.service.coordinator.text.chat.environment import TooMuch, compiled, rendered
from engine.service.coordinator.text.tokenizer_files import special_tokens, tokenizer_config

DEFAULT, WITH_TOOLS = "default", "tool_use"
_FILE, _FOLDER = "chat_template.jinja", "additional_chat_templates"
_RESERVED = ("messages", "tools", "add_generation_prompt", "continue_final_message")
_SHOWN = 400  # characters of a template's own message


@dataclass(frozen=True, slots=True)
class Written:
    """What a template made of a conversation."""

    text: str
    template: str  # its name


class ChatTemplates:
    """By name; a model that has only one calls it `default`."""

    def __init__(self, folder: Path) -> None:
        """Raises Corrupt if the tokenizer's settings are damaged, and what reading a file raises."""
        self.sources = _sources(folder)
        self._tokens = special_tokens(folder)
        self._compiled: dict[str, Template] = {}

    def __bool__(self) -> bool:
        return bool(self.sources)

    def write(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None,
        further: Mapping[str, Any],
        add_generation_prompt: bool,
        max_characters: int,
    ) -> Written:
        """The text of a conversation, which holds its special tokens, the one at the beginning too.

        `further` are names for the template, and `chat_template` among them names the template. Raises InvalidInput with what the
        template says against the conversation, NotSupported if there is none, or none that can be read.
        """
        if reserved := next((name for name in _RESERVED if name in further), None):
            raise InvalidInput(f"chat_template_kwargs.{reserved} is not allowed: it is a field of the request, or not supported")
        context = {**self._tokens, **further}
        name = self._chosen(context.pop("chat_template", None), bool(tools))
        template = self._template(name)
        context |= {"messages": messages, "tools": tools, "add_generation_prompt": add_generation_prompt}
        context.setdefault("documents", None)
        try:
            return Written(rendered(template, context, max_characters), name)
        except TooMuch as error:
            raise InvalidInput(f"the model's chat template cannot write this conversation: {error}; send less") from error
        except Exception as error:  # whatever it does wrong it does with what the caller sent
            raise InvalidInput(f"the model's chat template refuses this conversation: {_said(error)}") from error

    def _chosen(self, wanted: Any, with_tools: bool) -> str:
        names = ", ".join(sorted(self.sources))
        if not self.sources:
            raise NotSupported("the model has no chat template: send a prompt as text or as token ids")
        if wanted is not None:
            if wanted not in self.sources:
                raise InvalidInput(f"chat_template {str(wanted)[:80]!r} is not a template of this model: it has {names}")
            return str(wanted)
        if with_tools and WITH_TOOLS in self.sources:
            return WITH_TOOLS
        if DEFAULT not in self.sources:
            raise InvalidInput(
                f"the model has several chat templates and no default: name one of {names} in chat_template_kwargs.chat_template"
            )
        return DEFAULT

    def _template(self, name: str) -> Template:
        """Compiled when it is first wanted, for one that is broken stands in nobody's way before."""
        if name not in self._compiled:
            try:
                self._compiled[name] = compiled(self.sources[name])
            except TemplateSyntaxError as error:
                what = f"line {error.lineno}: {_said(error)}"
                raise NotSupported(f"the model's chat template {name!r} cannot be read ({what}): send the prompt as text") from error
        return self._compiled[name]


def _sources(folder: Path) -> dict[str, str]:
    """Files of their own come before what the tokenizer's settings say."""
    files = {DEFAULT: folder / _FILE} if (folder / _FILE).is_file() else {}
    files |= {path.stem: path for path in sorted((folder / _FOLDER).glob("*.jinja"))}
    if files:
        return {name: read_document(path, "a chat template") for name, path in files.items()}
    said = tokenizer_config(folder).get("chat_template")
    if isinstance(said, str):
        return {DEFAULT: said}
    if isinstance(said, list):
        said = {entry.get("name"): entry.get("template") for entry in said if isinstance(entry, dict)}
    named = said.items() if isinstance(said, dict) else ()
    return {name: source for name, source in named if isinstance(name, str) and isinstance(source, str)}


def _said(error: Exception) -> str:
    """The error's own words on one line that any terminal can show."""
    text = str(error) or type(error).__name__
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:_SHOWN]
