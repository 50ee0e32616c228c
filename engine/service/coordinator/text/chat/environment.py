"""What a chat template may do: the jinja2 environment of transformers' `_compile_jinja_template`, bounded in time and size.

Templates come with models, from anybody. The sandbox keeps them from the process; here no loop of theirs runs longer than it may, and
what they write is counted while they write it. Neither transformers nor torch is imported.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from datetime import datetime
from typing import Any

from jinja2 import Template, TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

RENDER_LIMIT_S = 10.0
_WATCH = "watched by the engine"  # a name that no template can write
_deadline_s: ContextVar[float] = ContextVar("_deadline_s")


class TooMuch(Exception):
    """A template ran too long or wrote too much."""


def compiled(source: str) -> Template:
    """The template of a text; raises jinja2's TemplateSyntaxError."""
    tree = _ENVIRONMENT.parse(source)
    for loop in list(tree.find_all(nodes.For)):
        loop.iter = nodes.Filter(loop.iter, _WATCH, [], [], None, None, lineno=loop.lineno)
    return _ENVIRONMENT.from_string(tree)


def rendered(template: Template, context: Mapping[str, Any], max_characters: int) -> str:
    """What the template writes. Raises TooMuch, and whatever the template raises."""
    token = _deadline_s.set(time.monotonic() + RENDER_LIMIT_S)
    try:
        return "".join(_counted(template.generate(**context), max_characters))
    finally:
        _deadline_s.reset(token)


def _counted(pieces: Iterable[str], max_characters: int) -> Iterator[str]:
    num_characters = 0
    for piece in pieces:
        num_characters += len(piece)
        if num_characters > max_characters:
            raise TooMuch(f"it writes more than {max_characters} characters, which no prompt of this model can hold")
        yield piece


def _watched(values: Iterable[Any]) -> Iterator[Any]:
    """The values of a loop, as long as there is time."""
    deadline_s = _deadline_s.get()
    for value in values:
        if time.monotonic() > deadline_s:
            raise TooMuch(f"it takes longer than {RENDER_LIMIT_S:g} s")
        yield value


class _Generation(Extension):
    """`{% generation %}` marks what the assistant says, for training; here it is written as if the marks were not there."""

    tags = {"generation"}  # noqa: RUF012 - as jinja2 declares it

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_say"), [], [], body).set_lineno(line)

    def _say(self, caller: Any) -> str:
        return str(caller())


class _Dict:
    """`dict` without the class's other attributes."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args, **kwargs)


class _Namespace(Namespace):
    """A namespace whose names cannot reach into Python."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # so that a namespace may have an attribute called self
        self, *rest = args
        attributes = dict(*rest, **kwargs)
        for name in attributes:
            _check_attribute(name)
        Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_attribute(name)
        super().__setitem__(name, value)


def _check_attribute(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(
            f"Chat templates cannot store underscore-prefixed attributes on a namespace, but got {name!r}. Please rename the attribute."
        )


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: tuple[str, str] | None = None, sort_keys: bool = False
) -> str:
    """jinja2's own escapes what HTML would misread. Piece by piece, because `dumps` holds the interpreter to the end."""
    encoder = json.JSONEncoder(ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    return "".join(encoder.iterencode(value))


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
    environment.filters |= {"tojson": _tojson, _WATCH: _watched}
    environment.globals |= {
        "raise_exception": _raise_exception,
        "strftime_now": _strftime_now,
        "dict": _Dict(),
        "namespace": _Namespace,
    }
    return environment


_ENVIRONMENT = _environment()
