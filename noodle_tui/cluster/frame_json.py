"""Watch frames as JSON and back, by the fields of `engine.data`, so that a recording outlives versions of the wire.

Unknown keys are skipped and missing ones take their defaults: an older or newer console can read the same file. Floats keep
microseconds. It does not know files; `recording.py` does.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from enum import Enum
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from engine.data.errors import Corrupt
from engine.data.watch_frame import WatchFrame

T = TypeVar("T")
DECIMALS = 7
_READERS: dict[Any, dict[str, Callable[[Any, str], Any]]] = {}


def frame_to_plain(frame: WatchFrame) -> dict[str, Any]:
    """The frame in what JSON knows; a float that is no number becomes None."""
    plain = _plain(frame)
    if not isinstance(plain, dict):
        raise AssertionError("a dataclass becomes a dict")
    return plain


def frame_from_plain(raw: Any) -> WatchFrame:
    """The frame that `frame_to_plain` wrote; raises Corrupt naming the field that is wrong."""
    return _build(WatchFrame, raw, "frame")


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, DECIMALS) if math.isfinite(value) else None
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if dataclasses.is_dataclass(value):
        return {name: _plain(getattr(value, name)) for name in _readers(type(value))}
    return value


def _build(cls: type[T], raw: Any, where: str) -> T:
    if not isinstance(raw, dict):
        raise Corrupt(f"{where} is {str(raw)[:40]!r} and not an object")
    values = {name: convert(raw[name], f"{where}.{name}") for name, convert in _readers(cls).items() if name in raw}
    try:
        return cls(**values)
    except TypeError as problem:
        raise Corrupt(f"{where}: {problem}") from None


def _readers(cls: Any) -> dict[str, Callable[[Any, str], Any]]:
    """For every field, how to read it; resolving annotations is slow."""
    if cls not in _READERS:
        hints = get_type_hints(cls)
        _READERS[cls] = {f.name: _converter(hints[f.name]) for f in dataclasses.fields(cls)}
    return _READERS[cls]


def _converter(hint: Any) -> Callable[[Any, str], Any]:
    if get_origin(hint) is tuple:
        inner = _converter(get_args(hint)[0])
        return lambda raw, where: tuple(inner(item, where) for item in _list(raw, where))
    if type(None) in get_args(hint):
        inner = _converter(next(a for a in get_args(hint) if a is not type(None)))
        return lambda raw, where: None if raw is None else inner(raw, where)
    if dataclasses.is_dataclass(hint):
        return lambda raw, where: _build(hint, raw, where)  # type: ignore[arg-type]
    return functools.partial(_scalar, hint)


def _list(raw: Any, where: str) -> list[Any]:
    if not isinstance(raw, list):
        raise Corrupt(f"{where} is {str(raw)[:40]!r} and not a list")
    return raw


def _scalar(kind: Any, raw: Any, where: str) -> Any:
    if kind is float:
        if raw is None:
            return math.nan
        if type(raw) in (int, float):
            return float(raw)
    elif issubclass(kind, Enum) and isinstance(raw, str):
        try:
            return kind(raw)
        except ValueError:
            raise Corrupt(f"{where} is {raw[:40]!r}, which this console does not know") from None
    elif type(raw) is kind:
        return raw
    raise Corrupt(f"{where} is {str(raw)[:40]!r} and not {kind.__name__}")
