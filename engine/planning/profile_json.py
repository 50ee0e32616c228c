"""A profile as JSON and back, checked field by field, so that a damaged or foreign file is refused by name.

The document has the fields of `Profile`; `overhead` and `coverage` stand on top as well, where scripts look for them.
"""

from __future__ import annotations

import json
import math
import types
from dataclasses import MISSING, asdict, fields, is_dataclass
from enum import StrEnum
from typing import Any, Union, get_args, get_origin, get_type_hints

from engine.data import Corrupt, InvalidInput, NotSupported
from engine.planning.profile import SCHEMA_VERSION, Profile


def profile_to_json(profile: Profile) -> str:
    """The document as ASCII text. Raises InvalidInput if a figure is not finite, for such a figure is no measurement."""
    document = {**asdict(profile), "overhead": profile.honesty.overhead, "coverage": profile.honesty.coverage}
    try:
        return json.dumps(document, ensure_ascii=True, allow_nan=False)
    except ValueError as error:
        raise InvalidInput(f"the profile of {profile.model!r} holds a figure that is not finite: take it again") from error


def profile_from_json(text: str) -> Profile:
    """Raises Corrupt naming the field that is missing or wrong, NotSupported for a schema of a later version."""
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Corrupt(f"this is not a profile ({error}): take it again") from error
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if type(version) is not int:
        raise Corrupt("this is not a profile (it has no schema_version): take it again")
    if version != SCHEMA_VERSION:
        raise NotSupported(f"the profile has schema version {version}, this program reads {SCHEMA_VERSION}: take it again")
    profile = _decode(Profile, raw, "profile")
    if not isinstance(profile, Profile):
        raise Corrupt("this is not a profile: take it again")
    return profile


def _decode(kind: Any, raw: Any, where: str) -> Any:
    """`raw` as a value of the annotated type `kind`."""
    if kind is float and type(raw) in (int, float) and math.isfinite(raw):
        return float(raw)
    if kind in (str, int, bool, type(None)) and type(raw) is kind:
        return raw
    if is_dataclass(kind) and isinstance(raw, dict):
        return _decode_dataclass(kind, raw, where)
    if isinstance(kind, type) and issubclass(kind, StrEnum) and raw in list(kind):
        return kind(raw)
    origin = get_origin(kind)
    if origin is tuple and isinstance(raw, list):
        return tuple(_decode(get_args(kind)[0], value, f"{where}[{index}]") for index, value in enumerate(raw))
    if origin is dict and isinstance(raw, dict):
        return {key: _decode(get_args(kind)[1], value, f"{where}.{key}") for key, value in raw.items()}
    if origin in (Union, types.UnionType):
        return None if raw is None else _decode(next(k for k in get_args(kind) if k is not type(None)), raw, where)
    raise Corrupt(f"{where} is {str(raw)[:80]!r}, which is no {getattr(kind, '__name__', kind)}: take the profile again")


def _decode_dataclass(kind: Any, raw: dict[str, Any], where: str) -> Any:
    hints = _hints(kind)
    missing = [f.name for f in fields(kind) if f.name not in raw and f.default is MISSING and f.default_factory is MISSING]
    if missing:
        raise Corrupt(f"{where} lacks {', '.join(missing)}: take the profile again")
    values = {name: _decode(hint, raw[name], f"{where}.{name}") for name, hint in hints.items() if name in raw}
    try:
        return kind(**values)
    except InvalidInput as error:
        raise Corrupt(f"{where} cannot be: {error}") from error


_HINTS: dict[Any, dict[str, Any]] = {}


def _hints(kind: Any) -> dict[str, Any]:
    """Resolving annotations is slow, and a large profile holds ten thousand values of one type."""
    if kind not in _HINTS:
        _HINTS[kind] = {name: hint for name, hint in get_type_hints(kind).items() if name in {f.name for f in fields(kind)}}
    return _HINTS[kind]
