"""What a typed line does to a conversation."""

from __future__ import annotations

import json

import pytest

from engine.commands.chat.conversation import COMMANDS, Conversation, Order, help_text, read_line
from engine.data.errors import InvalidInput


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("", None),
        (" \n ", None),
        ("  hello\nthere ", "hello\nthere"),
        ("//etc", "/etc"),
        ("/reset", Order("/reset")),
        ("/system Be brief.\nVery. ", Order("/system", "Be brief.\nVery.")),
        ("/save a b.json", Order("/save", "a b.json")),
    ],
)
def test_lines_are_turns_or_commands(text: str, read: Order | str | None) -> None:
    assert read_line(text) == read


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("/resett", "/resett is no command: /help lists them"),
        ("/reset now", "/reset takes nothing, not 'now'"),
        ("/save", "name of a file: /save FILE"),
    ],
)
def test_a_wrong_command_is_told_with_the_way_out(text: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        read_line(text)


def test_roles_alternate_whatever_became_of_an_answer() -> None:
    talk = Conversation("S")
    with pytest.raises(InvalidInput, match="nothing to answer again"):
        talk.retry()
    talk.ask("one")  # no answer came
    talk.ask("two")
    talk.answer("second")
    talk.retry()
    assert talk.messages() == [{"role": "system", "content": "S"}, {"role": "user", "content": "two"}]
    talk.retry()  # its answer is due still
    talk.answer("again")
    talk.ask("three")
    assert [m["content"] for m in json.loads(talk.document())["messages"]] == ["S", "two", "again", "three"]
    talk.reset()
    assert talk.messages() == [{"role": "system", "content": "S"}] and Conversation().messages() == []


def test_help_names_every_command_and_fits_a_terminal() -> None:
    assert all(name in help_text() for name in COMMANDS)
    assert max(map(len, help_text().splitlines())) < 80
