"""Command lines as values, and what is wrong with them as one sentence that offers the nearest word there is."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

from engine.data.errors import InvalidInput
from engine.data.version import own_version

_NO_SUCH = re.compile(r"argument (?P<what>.+?): invalid choice: '(?P<word>.*)' \(choose from (?P<known>.*)\)", re.S)


class Parser(argparse.ArgumentParser):
    """Raises InvalidInput; its epilog stays as it is written."""

    def __init__(self, **more: Any) -> None:
        super().__init__(formatter_class=_Help, **more)

    def error(self, message: str) -> NoReturn:
        raise InvalidInput(with_help(_explained(message), self.prog))


class _Help(argparse.RawDescriptionHelpFormatter):
    """Options beside their help, also those with long names."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30)


class ShowVersion(argparse.Action):
    """Looked up only when it is asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        print(f"{parser.prog} {own_version()}")
        parser.exit()


def parsed(parser: argparse.ArgumentParser, commands: Mapping[str, argparse.ArgumentParser], argv: Sequence[str]) -> dict[str, Any]:
    """Values by name, as `parser` makes them of a command line; raises InvalidInput."""
    found, left = parser.parse_known_args(argv)
    if left:
        command = commands[found.command]
        raise InvalidInput(with_help(not_taken(found.command, command, left), command.prog))
    return vars(found)


def not_taken(name: str, parser: argparse.ArgumentParser, left: Sequence[str]) -> str:
    """What is wrong with words that a command does not know. One without dashes is a model, for all that many people know."""
    known = [option for action in parser._actions for option in action.option_strings if action.help != argparse.SUPPRESS]
    is_model = not left[0].startswith("-") and "--model" in known
    offer = f": did you mean --model {left[0][:80]}?" if is_model else nearest(left[0].partition("=")[0], known)
    return f"{name} does not take {' '.join(left)[:80]}{offer}"


def with_help(text: str, program: str) -> str:
    return f"{text}{'' if text.endswith('?') else ';'} see `{program} --help`"


def nearest(word: str, known: Iterable[str]) -> str:
    """An offer, if there is a word like it."""
    import difflib

    found = difflib.get_close_matches(word, list(known), 1, 0.6)
    return f": did you mean {found[0]}?" if found else ""


def _explained(message: str) -> str:
    if (match := _NO_SUCH.fullmatch(message)) is None:
        return message
    known = re.findall(r"[^\s,']+", match["known"])
    if match["what"] == "COMMAND":
        return f"there is no command {match['word'][:40]!r}{nearest(match['word'], known)}"
    return f"{match['what']} cannot be {match['word'][:40]!r}{nearest(match['word'], known)}; it is one of {', '.join(known)}"
