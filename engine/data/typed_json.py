"""JSON to frozen dataclasses, checked field by field, so that a damaged or foreign file is refused by name."""

from __future__ import annotations

import json
import math
import types
from dataclasses import MISSING, fields, is_dataclass
from enum import StrEnum
from typing import Any, Union, get_args, get_origin, get_type_hints

from engine.data.errors import Corrupt, InvalidInput


def read_object(text: str, what: str, remedy: str) -> dict[str, Any]:
    """The object that `text` holds. Raises Corrupt, saying that it is no `what`."""
    try:
        raw = json.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError) as error:
        raise Corrupt(f"this is not {what} ({error}): {remedy}") from error
    if not isinstance(raw, dict):
        raise Corrupt(f"this is not {what} (it is no JSON object): {remedy}")
    return raw


def decode(kind: Any, raw: Any, where: str, remedy: str) -> Any:
    """`raw` as a value of the annotated type `kind`. Raises Corrupt naming the field `where` it is wrong, and the `remedy`."""
    if kind is float and type(raw) in (int, float) and _is_finite(raw):
        return float(raw)
    if kind in (str, int, bool, type(None)) and type(raw) is kind:
        return raw
    if is_dataclass(kind) and isinstance(raw, dict):
        return _decode_dataclass(kind, raw, where, remedy)
    if isinstance(kind, type) and issubclass(kind, StrEnum) and raw in list(kind):
        return kind(raw)
    origin = get_origin(kind)
    if origin is tuple and isinstance(raw, list):
        return tuple(decode(get_args(kind)[0], value, f"{where}[{index}]", remedy) for index, value in enumerate(raw))
    if origin is dict and isinstance(raw, dict):
        return {key: decode(get_args(kind)[1], value, f"{where}.{key}", remedy) for key, value in raw.items()}
    if origin in (Union, types.UnionType):
        return None if raw is None else decode(next(k for k in get_args(kind) if k is not type(None)), raw, where, remedy)
    raise Corrupt(f"{where} is {str(raw)[:80]!r}, which is no {getattr(kind, '__name__', kind)}: {remedy}")


def _is_finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # a whole number beyond every float
        return False


def _decode_dataclass(kind: Any, raw: dict[str, Any], where: str, remedy: str) -> Any:
    hints = _hints(kind)
    missing = [f.name for f in fields(kind) if f.name not in raw and f.default is MISSING and f.default_factory is MISSING]
    if missing:
        raise Corrupt(f"{where} lacks {', '.join(missing)}: {remedy}")
    values = {name: decode(hint, raw[name], f"{where}.{name}", remedy) for name, hint in hints.items() if name in raw}
    try:
        return kind(**values)
    except InvalidInput as error:
        raise Corrupt(f"{where} cannot be: {error}") from error


_HINTS: dict[Any, dict[str, Any]] = {}


def _hints(kind: Any) -> dict[str, Any]:
    """Resolving annotations is slow, and a large document holds ten thousand values of one type."""
    if kind not in _HINTS:
        _HINTS[kind] = {name: hint for name, hint in get_type_hints(kind).items() if name in {f.name for f in fields(kind)}}
    return _HINTS[kind]
