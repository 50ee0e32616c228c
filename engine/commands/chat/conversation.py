"""A conversation as it stands: who said what, and what a typed line does to it. No terminal, no cluster."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.data.errors import InvalidInput
from engine.data.json_text import json_text

COMMANDS = {
    "/system": ("[TEXT]", "what the model is told first; alone shows it, - takes it away"),
    "/reset": ("", "forget what was said; what the system says stays"),
    "/retry": ("", "answer the last turn again, drawn anew"),
    "/save": ("FILE", "write the conversation as JSON, in OpenAI's form"),
    "/help": ("", "this list"),
    "/quit": ("", "end; so does Ctrl-D"),
}


@dataclass(frozen=True, slots=True)
class Order:
    """A command that was typed."""

    name: str
    argument: str = ""


def read_line(text: str) -> Order | str | None:
    """What a line asks for: a command, a turn, or nothing. Two slashes begin a turn that begins with one. Raises InvalidInput."""
    said = text.strip()
    if not said:
        return None
    if said.startswith("//"):
        return said[1:]
    if not said.startswith("/"):
        return said
    name, _, argument = said.partition(" ")
    if name not in COMMANDS:
        raise InvalidInput(f"{name[:40]} is no command: /help lists them, and // begins a turn with a slash")
    wanted, argument = COMMANDS[name][0], argument.strip()
    if argument and not wanted:
        raise InvalidInput(f"{name} takes nothing, not {argument[:40]!r}")
    if wanted == "FILE" and not argument:
        raise InvalidInput(f"{name} needs the name of a file: {name} FILE")
    return Order(name, argument)


def help_text() -> str:
    """Every command, and the keys."""
    width = max(len(f"{name} {argument}") for name, (argument, _) in COMMANDS.items())
    lines = [f"{f'{name} {argument}':{width}}  {what}" for name, (argument, what) in COMMANDS.items()]
    keys = (
        "Enter sends, Alt-Enter begins a new line, Up and Down bring back what was",
        "typed. Ctrl-C ends an answer and keeps what came of it.",
    )
    return "\n".join([*lines, *keys])


@dataclass(slots=True)
class Conversation:
    """`turns` are what the user and the model said in turn; an answer that is missing is due."""

    system: str = ""
    turns: list[dict[str, str]] = field(default_factory=list)

    def messages(self) -> list[dict[str, str]]:
        """For the chat template."""
        return [*([{"role": "system", "content": self.system}] if self.system else []), *self.turns]

    def ask(self, text: str) -> None:
        """In place of a turn to which no answer came."""
        if self.turns and self.turns[-1]["role"] == "user":
            del self.turns[-1]
        self.turns.append({"role": "user", "content": text})

    def answer(self, text: str) -> None:
        self.turns.append({"role": "assistant", "content": text})

    def retry(self) -> None:
        """The last answer is due again; raises InvalidInput if there is none."""
        if not self.turns:
            raise InvalidInput("there is nothing to answer again: say something first")
        if self.turns[-1]["role"] == "assistant":
            del self.turns[-1]

    def reset(self) -> None:
        self.turns.clear()

    def document(self) -> str:
        return json_text({"messages": self.messages()}, indent=2) + "\n"
