"""Values of a parsed document, checked one by one: every refusal names the place, the value and what is allowed."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from typing import Any

from engine.data.errors import InvalidInput
from engine.planning.problem import MOST_SECONDS

MOST_COUNT = 10**9


def check_keys(where: str, raw: Any, known: Iterable[str], required: tuple[str, ...] = ()) -> None:
    if not isinstance(raw, dict):
        raise InvalidInput(f"{where} is {shown(raw)}: it must be an object")
    known = list(known)
    for key in raw:
        if key not in known:
            raise InvalidInput(f"{where} has an unknown key {shown(key)}{nearest(key, known)}; it may have {', '.join(known)}")
    for key in required:
        if key not in raw:
            raise InvalidInput(f"{where} lacks {key!r}: it must be given")


def list_of(where: str, raw: Any, most: int, least: int = 1) -> list[Any]:
    if not isinstance(raw, list):
        raise InvalidInput(f"{where} is {shown(raw)}: it must be a list")
    if not least <= len(raw) <= most:
        raise InvalidInput(f"{where} has {len(raw)} entries: from {least} to {most} are allowed")
    return raw


def number(where: str, raw: Any, most: float, endless: bool = False) -> float:
    """A number from 0 to `most`; whole ones stay whole. `endless`: infinity is allowed too."""
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        raise InvalidInput(f"{where} is {shown(raw)}: it must be a number")
    if endless and raw == math.inf:
        return math.inf
    if not 0 <= raw <= most:
        raise InvalidInput(f"{where} is {shown(raw)}: it must lie in [0, {most:g}]")
    return int(raw) if raw == int(raw) else raw


def seconds(where: str, raw: Any) -> float:
    return math.inf if raw is None else float(number(where, raw, MOST_SECONDS, endless=True))


def count(where: str, raw: Any, least: int) -> int:
    value = number(where, raw, MOST_COUNT)
    if value != int(value) or value < least:
        raise InvalidInput(f"{where} is {shown(raw)}: it must be a whole number of at least {least}")
    return int(value)


def text(where: str, raw: Any) -> str:
    if not isinstance(raw, str) or not 1 <= len(raw) <= 64 or not raw.isprintable():
        raise InvalidInput(f"{where} is {shown(raw)}: it must be a text of 1 to 64 printable characters")
    return raw


def choice(where: str, raw: Any, choices: tuple[str, ...]) -> str:
    if raw not in choices:
        raise InvalidInput(f"{where} is {shown(raw)}: it must be {' or '.join(choices)}")
    return str(raw)


def flag(where: str, raw: Any) -> bool:
    if not isinstance(raw, bool):
        raise InvalidInput(f"{where} is {shown(raw)}: it must be true or false")
    return raw


def shown(raw: Any) -> str:
    """A value in an error: short, ASCII, on one line."""
    if isinstance(raw, dict | list):
        return f"{'an object' if isinstance(raw, dict) else 'a list'} of {len(raw)}"
    if isinstance(raw, int) and not isinstance(raw, bool) and abs(raw) > 10**30:
        return "a number beyond 1e30"
    text = "missing or null" if raw is None else ascii(raw)
    return text if len(text) <= 60 else text[:57] + "..."


def nearest(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word[:64], known, 1, 0.5)
    return f": did you mean {near[0]!r}?" if near else ""
