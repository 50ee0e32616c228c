"""`--config FILE`: options of every command in a YAML file, one section per command, keys named like the long options.

    up:
      model: gpt2
      workers: 3
      memory: 2G

The whole file is checked, sections of other commands too, so that a typing error is found before it matters. What stands on
the command line wins. The file is never constructed into objects: only mappings, lists and the text of scalars are read.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from engine.data.errors import InvalidInput, NoodleError
from engine.files import read_document

MAX_BYTES = 1 << 20
_FLAGS = (argparse._StoreTrueAction, argparse._StoreFalseAction)
_NOT_IN_FILES = ("config", "help")
_KINDS = {"str": "text", "int": "a whole number", "float": "a number", "bool": "true or false", "null": "nothing", "timestamp": "a date"}


@dataclass(frozen=True, slots=True)
class Settings:
    """What the file says for the command that runs: values by option name (`dest`)."""

    values: Mapping[str, Any]

    def fill(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Options that collect several values keep those of the command line, if there are any, else they take the file's."""
        lists = {name: value for name, value in self.values.items() if isinstance(value, list) and not given[name]}
        return {**given, **lists}


def apply_config(path: Path, command: str, parsers: Mapping[str, argparse.ArgumentParser]) -> Settings:
    """Check `path` against every command's parser and make its values the defaults of `command`; raises InvalidInput."""
    sections = _sections(path, parsers)
    values = {name: _section(path, name, node, parsers[name]) for name, node in sections.items()}
    settings = Settings(values.get(command, {}))
    if command in parsers:
        _set_defaults(parsers[command], settings.values)
    return settings


def _set_defaults(parser: argparse.ArgumentParser, values: Mapping[str, Any]) -> None:
    for action in list(parser._actions):
        if action.dest not in values:
            continue
        action.required = False
        if isinstance(action, _FLAGS) and action.option_strings:
            # The command line must be able to win over `true`.
            against = action.option_strings[-1].replace("--", "--no-", 1)
            parser.add_argument(against, dest=action.dest, action="store_const", const=not action.const, help=argparse.SUPPRESS)
    parser.set_defaults(**{dest: value for dest, value in values.items() if not isinstance(value, list)})


# --- the file -----------------------------------------------------------------------------------------------------
def _sections(path: Path, parsers: Mapping[str, argparse.ArgumentParser]) -> dict[str, yaml.MappingNode]:
    root = _compose(path)
    if root is None:
        return {}
    if not isinstance(root, yaml.MappingNode):
        raise InvalidInput(f"{_at(path, root)}: a configuration has one section per command, such as 'up:'")
    found: dict[str, yaml.MappingNode] = {}
    for key, node in _pairs(path, root):
        if key.value not in parsers:
            raise InvalidInput(f"{_at(path, key)}: there is no command {_quoted(key.value)}{_nearest(key.value, parsers)}")
        if isinstance(node, yaml.MappingNode):
            found[key.value] = node
        elif node.tag != "tag:yaml.org,2002:null":
            raise InvalidInput(f"{_at(path, node)}: section {key.value} has options below it, such as 'json: true'")
    return found


def _compose(path: Path) -> yaml.Node | None:
    try:
        content = read_document(path, "a configuration", max_bytes=MAX_BYTES)
    except NoodleError as e:
        raise InvalidInput(f"--config: {e}") from e
    try:
        return yaml.compose(content, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError) as e:
        mark = getattr(e, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark is not None else str(path)
        raise InvalidInput(f"{where}: this is not YAML: {getattr(e, 'problem', None) or str(e).splitlines()[0]}") from e


def _pairs(path: Path, node: yaml.MappingNode) -> list[tuple[yaml.ScalarNode, yaml.Node]]:
    """Keys and values; raises InvalidInput for a key that is no word or that stands twice."""
    lines: dict[str, int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise InvalidInput(f"{_at(path, key)}: a key is one word")
        if key.value in lines:
            raise InvalidInput(f"{_at(path, key)}: {_quoted(key.value)} stands in line {lines[key.value]} already")
        lines[key.value] = key.start_mark.line + 1
    return [(key, value) for key, value in node.value]


def _section(path: Path, name: str, node: yaml.MappingNode, parser: argparse.ArgumentParser) -> dict[str, Any]:
    actions = _options(parser)
    values: dict[str, Any] = {}
    for key, value in _pairs(path, node):
        action = actions.get(key.value.replace("_", "-"))
        if action is None:
            raise InvalidInput(f"{_at(path, key)}: {name} has no option {_quoted(key.value)}{_nearest(key.value, actions)}")
        try:
            values[action.dest] = _value(action, value)
        except (argparse.ArgumentTypeError, ValueError, TypeError) as e:
            raise InvalidInput(f"{_at(path, value)}: {name}.{key.value}: {e}") from e
    return values


def _options(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """What a section may hold: long options, and positional arguments under their name."""
    found: dict[str, argparse.Action] = {}
    for action in parser._actions:
        names = [o.removeprefix("--") for o in action.option_strings if o.startswith("--")] or [action.dest]
        found.update({n: action for n in names if n not in _NOT_IN_FILES and action.help is not argparse.SUPPRESS})
    return found


# --- one value ----------------------------------------------------------------------------------------------------
def _value(action: argparse.Action, node: yaml.Node) -> Any:
    """The option's value, from the same text and through the same check as on the command line."""
    if isinstance(action, _FLAGS):
        return _flag(action, node)
    if isinstance(node, yaml.SequenceNode):
        texts = [_text(action, item) for item in node.value]
        if isinstance(action.nargs, int) and len(texts) != action.nargs:
            raise ValueError(f"{len(texts)} values are not allowed: give {action.nargs}")
        if isinstance(action, argparse._AppendAction) or action.nargs not in (None, "?"):
            return [_checked(action, text) for text in texts]
        if not isinstance(action.default, tuple):
            raise ValueError(f"a list is not allowed: give one {_expected(action)}")
        return _checked(action, ",".join(texts))
    found = _checked(action, _text(action, node))
    if isinstance(action.nargs, int):
        raise ValueError(f"{_shown(node)} is not allowed: give a list of {action.nargs}")
    return [found] if isinstance(action, argparse._AppendAction) or action.nargs in ("*", "+") else found


def _flag(action: argparse.Action, node: yaml.Node) -> bool:
    if node.tag != "tag:yaml.org,2002:bool" or not isinstance(node, yaml.ScalarNode):
        raise ValueError(f"{_shown(node)} is not allowed: give true or false")
    on = bool(yaml.SafeLoader.bool_values[node.value.lower()])
    return bool(action.const) if on else not action.const


def _text(action: argparse.Action, node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise ValueError(f"{_shown(node)} is not allowed: give {_expected(action)}")
    kind = node.tag.rpartition(":")[2]
    plain_text = action.type in (None, str, Path)
    if (plain_text and kind != "str") or kind in ("null", "bool"):
        quoted = f"; if it is meant as text, write it in quotes: '{node.value}'" if plain_text and kind != "null" else ""
        raise ValueError(f"{_shown(node)} is {_KINDS.get(kind, kind)}: give {_expected(action)}{quoted}")
    return str(node.value)


def _checked(action: argparse.Action, text: str) -> Any:
    try:
        value = action.type(text) if callable(action.type) else text
    except ValueError as e:
        raise ValueError(f"{_quoted(text)} is not allowed: give {_expected(action)}") from e
    if action.choices is not None and value not in action.choices:
        choices = [str(c) for c in action.choices]
        raise ValueError(f"{_quoted(text)} is not allowed: give one of {', '.join(choices)}{_nearest(text, choices)}")
    return value


def _expected(action: argparse.Action) -> str:
    names: dict[Any, str] = {float: "a number", int: "a whole number", Path: "a path", None: "text", str: "text"}
    return names.get(action.type, "one value")


# --- words --------------------------------------------------------------------------------------------------------
def _nearest(word: str, known: Mapping[str, Any] | Sequence[str]) -> str:
    close = difflib.get_close_matches(word[:80].replace("_", "-"), list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else f"; known are {', '.join(sorted(known))}"


def _at(path: Path, node: yaml.Node) -> str:
    return f"{path}:{node.start_mark.line + 1}"


def _quoted(text: str) -> str:
    return ascii(text if len(text) <= 80 else f"{text[:79]}…".replace("…", "..."))


def _shown(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        return _quoted(node.value)
    return "a list" if isinstance(node, yaml.SequenceNode) else "a section"
