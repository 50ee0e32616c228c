"""Options as frozen dataclasses: each is declared once, and the command line, `--config` files, `--help` and the command lines of
child processes are made from that.

    @dataclass(frozen=True, kw_only=True)
    class Worker:
        join: str = option(required=True, metavar="HOST:PORT", help="the coordinator's address")
        memory_bytes: int | None = option("--memory", kind=size, help="memory for weights and KV, e.g. 2G")
        server: ServerOptions = group(ServerOptions, listen="127.0.0.1:0")

A field's name is how the program calls the value; its unit stands in it. Fields that are neither an option nor a group are not for
users, and keep their default.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
_KEY = "declared"


@dataclass(frozen=True, slots=True)
class Declared:
    """How one value is given. `of_process` says that an embedded cluster sets it for each of its processes itself."""

    flag: str | None  # None: made from the name of the field
    kind: Callable[[str], Any] | None
    metavar: str | tuple[str, ...] | None
    help: str
    choices: tuple[str, ...] | None
    required: bool
    repeated: bool
    num_values: int | str | None
    is_positional: bool
    of_process: bool


@dataclass(frozen=True, slots=True)
class Group:
    """Options that stand together; `instead` are defaults, by field name, that differ in this place."""

    options: type
    instead: Mapping[str, Any]
    is_embedded: bool  # without what is `of_process`


def option(
    flag: str | None = None,
    *,
    default: Any = None,
    default_from: Callable[[], Any] | None = None,
    kind: Callable[[str], Any] | None = None,
    metavar: str | tuple[str, ...] | None = None,
    help: str = "",  # what argparse calls it; empty: it is not shown
    choices: tuple[str, ...] | None = None,
    required: bool = False,
    repeated: bool = False,
    num_values: int | None = None,
    of_process: bool = False,
) -> Any:
    """A named option. A `bool` default makes a switch, `repeated` a tuple of all that were given."""
    declared = Declared(flag, kind, metavar, help, choices, required, repeated, num_values, False, of_process)
    if repeated:
        default = ()
    return _field(declared, default, default_from)


def argument(
    *,
    kind: Callable[[str], Any] | None = None,
    metavar: str | None = None,
    help: str = "",
    choices: tuple[str, ...] | None = None,
    default: Any = None,
    optional: bool = False,
    several: bool = False,
) -> Any:
    """A value that is known by its place; `several` make a tuple of one or more."""
    num_values = "+" if several else "?" if optional else None
    declared = Declared(None, kind, metavar, help, choices, not optional, several, num_values, True, False)
    return _field(declared, default, None)


def group(options: type, *, is_embedded: bool = False, **instead: Any) -> Any:
    """All options of another class under one field; `instead` changes defaults by field name."""
    return field(default_factory=lambda: build(options, instead), metadata={_KEY: Group(options, instead, is_embedded)})


def _field(declared: Declared, default: Any, default_from: Callable[[], Any] | None) -> Any:
    if default_from is not None:
        return field(default_factory=default_from, metadata={_KEY: declared})
    return field(default=default, metadata={_KEY: declared})


# --- to a parser --------------------------------------------------------------------------------------------------
def declare(parser: argparse._ActionsContainer, options: type) -> None:
    """Add everything that `options` declares, in groups as it is declared; what two of its groups share is added once."""
    known: set[str] = set()
    places: dict[type, argparse._ActionsContainer] = {options: parser}
    for found, declared, default, owner in _declared(options, {}, is_embedded=False):
        if found.name not in known:
            known.add(found.name)
            is_apart = isinstance(parser, argparse.ArgumentParser) and declared.help and not declared.is_positional
            if is_apart and owner not in places:
                places[owner] = parser.add_argument_group(_title(owner))
            _add(places[owner] if is_apart else parser, found.name, declared, default)


def _title(options: type) -> str:
    """What the class says of itself, as the head of its options."""
    about = (options.__doc__ or options.__name__).strip().partition("\n")[0].partition(". ")[0].rstrip(".")
    return about[:1].lower() + about[1:]


def _help(declared: Declared, default: Any) -> str:
    """With its default, if that is a value and not said already."""
    if not declared.help or declared.required or isinstance(default, bool) or default in (None, "", ()) or "default" in declared.help:
        return declared.help or argparse.SUPPRESS
    return f"{declared.help} (default {_text(default)})"


def _add(parser: argparse._ActionsContainer, name: str, declared: Declared, default: Any) -> None:
    more: dict[str, Any] = {"help": _help(declared, default), "default": default}
    if declared.is_positional:
        more |= {"metavar": declared.metavar} if declared.metavar else {}
        parser.add_argument(name, nargs=declared.num_values, type=declared.kind or str, choices=declared.choices, **more)
        return
    more |= {"dest": name, "required": declared.required}
    if isinstance(default, bool):
        parser.add_argument(flag_of(name, declared), action="store_true", **more)
        return
    more |= {"type": declared.kind or str, "choices": declared.choices, "metavar": declared.metavar}
    if declared.repeated:
        parser.add_argument(flag_of(name, declared), action="append", **{**more, "default": []})
        return
    parser.add_argument(flag_of(name, declared), nargs=declared.num_values, **more)


def _declared(options: type, instead: Mapping[str, Any], is_embedded: bool) -> Iterator[tuple[Field[Any], Declared, Any, type]]:
    """Every option that a user may give, with its default in this place and the class that declares it."""
    for found in fields(options):
        declared = found.metadata.get(_KEY)
        if isinstance(declared, Group):
            yield from _declared(declared.options, {**declared.instead, **instead}, is_embedded or declared.is_embedded)
        elif isinstance(declared, Declared) and not (is_embedded and declared.of_process):
            yield found, declared, instead[found.name] if found.name in instead else _default(found), options


def _default(found: Field[Any]) -> Any:
    return found.default_factory() if found.default_factory is not MISSING else found.default


def flag_of(name: str, declared: Declared) -> str:
    return declared.flag or "--" + name.replace("_", "-")


# --- from values, and back ------------------------------------------------------------------------------------------
def build(options: type[T], values: Mapping[str, Any]) -> T:
    """The options with `values` by field name, at whatever depth; raises TypeError for a name that nothing has."""
    if unknown := sorted(set(values) - set(names_in(options))):
        raise TypeError(f"{options.__name__} has no option {', '.join(unknown)}")
    return _build(options, values, {}, is_embedded=False)


def _build(options: type[T], values: Mapping[str, Any], instead: Mapping[str, Any], is_embedded: bool) -> T:
    given: dict[str, Any] = {}
    for found in fields(options):  # type: ignore[arg-type]
        declared = found.metadata.get(_KEY)
        if isinstance(declared, Group):
            inner = {**declared.instead, **instead}
            given[found.name] = _build(declared.options, values, inner, is_embedded or declared.is_embedded)
        elif isinstance(declared, Declared) and not (is_embedded and declared.of_process):
            value = values.get(found.name, instead.get(found.name, _default(found)))
            given[found.name] = tuple(value) if isinstance(value, list) else value
    return options(**given)


def names_in(options: type) -> Iterator[str]:
    """The field names of all options that a user may give, at whatever depth."""
    return (found.name for found, _, _, _ in _declared(options, {}, is_embedded=False))


def words(options: Any) -> list[str]:
    """The words of a command line that makes these options: what differs from the defaults of their class."""
    named, placed = _words(options, {}, is_embedded=False)
    return named + placed


def _words(options: Any, instead: Mapping[str, Any], is_embedded: bool) -> tuple[list[str], list[str]]:
    named: list[str] = []
    placed: list[str] = []
    for found in fields(options):
        declared, value = found.metadata.get(_KEY), getattr(options, found.name)
        if isinstance(declared, Group):
            inner, inner_placed = _words(value, {**declared.instead, **instead}, is_embedded or declared.is_embedded)
            named += inner
            placed += inner_placed
        elif isinstance(declared, Declared) and not (is_embedded and declared.of_process):
            if value == (instead[found.name] if found.name in instead else _default(found)):
                continue
            if declared.is_positional:
                placed += map(_text, value) if declared.repeated else (_text(value),)
            else:
                named += _named(flag_of(found.name, declared), declared, value)
    return named, placed


def _named(flag: str, declared: Declared, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [flag] if value else []
    if declared.repeated:
        return [f"{flag}={_text(part)}" for part in value]
    if declared.num_values is not None:
        return [flag, *map(_text, value)]
    return [f"{flag}={_text(value)}"]


def _text(value: str | int | float | Path | Sequence[Any]) -> str:
    return ",".join(map(_text, value)) if isinstance(value, tuple | list) else str(value)
