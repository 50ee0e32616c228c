"""`console.toml` in the user's folder: keys by id, theme, refresh rate, graphs, thresholds. Optional; the command line wins.

theme = "cvd-dark"
hz = 0.5
graphs = "timeline=braille"
alert = "bell"
[keys]
"list.filter" = "slash,ctrl+f"
[thresholds]
over_plan = 0.3
[access]
tls_ca = "/etc/noodle/ca.pem"
token_file = "~/.noodle-token"
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from engine.data.errors import InvalidInput, NotFound
from engine.files import read_document
from noodle_tui.core.keys import KEYS, Key, nearest, with_keys
from noodle_tui.state import Thresholds
from noodle_tui.text.graph_sets import parse_graph_sets

SETTINGS_FILE = "console.toml"
_KINDS: Mapping[str, type] = {
    "theme": str,
    "hz": float,
    "ascii": bool,
    "low_bandwidth": bool,
    "graphs": str,
    "alert": str,
    "keys": dict,
    "thresholds": dict,
    "access": dict,
}


@dataclass(frozen=True, slots=True)
class Config:
    """What the file says; None where it says nothing."""

    theme: str | None = None
    hz: float | None = None
    ascii: bool | None = None
    low_bandwidth: bool | None = None
    graphs: str | None = None
    alert: str | None = None
    keys: tuple[Key, ...] = KEYS
    thresholds: Thresholds = field(default_factory=Thresholds)
    access: Mapping[str, Any] = field(default_factory=dict)  # fields of AccessOptions


def load_config(path: Path) -> Config:
    """The file's settings, or the defaults if there is no file; raises InvalidInput naming the file and the key."""
    try:
        return parse_config(str(path), read_document(path, "the console's settings"))
    except NotFound:
        return Config()


def parse_config(path: str, text: str) -> Config:
    """See `load_config`; `path` is only for messages."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as problem:
        raise InvalidInput(f"{path}: this is not TOML: {problem}") from None
    try:
        plain = {key: _checked(key, value) for key, value in data.items()}
        keys = with_keys(_texts("keys", plain.pop("keys", {})))
        thresholds = _thresholds(plain.pop("thresholds", {}))
        access = _access(plain.pop("access", {}))
        parse_graph_sets(plain.get("graphs", ""))
        return Config(**plain, keys=keys, thresholds=thresholds, access=access)
    except InvalidInput as problem:
        raise InvalidInput(f"{path}: {problem}") from None


def _checked(key: str, value: Any) -> Any:
    kind = _KINDS.get(key)
    if kind is None:
        raise InvalidInput(f"unknown key {key!r}{nearest(key, _KINDS)}")
    if kind is float and type(value) in (int, float):
        return float(value)
    if type(value) is not kind:
        raise InvalidInput(f"{key} must be a {'table' if kind is dict else kind.__name__}, not {value!r}")
    return value


def _texts(table: str, raw: Mapping[str, Any]) -> dict[str, str]:
    """Key ids contain a dot, so `[keys]` may quote them or nest them."""
    found: dict[str, str] = {}
    for name, value in raw.items():
        inner = {f"{name}.{key}": text for key, text in value.items()} if isinstance(value, dict) else {name: value}
        for key_id, text in inner.items():
            if not isinstance(text, str) or not text.strip():
                raise InvalidInput(f"{table}.{key_id} must name one or more keys, such as 'x' or 'x,ctrl+e', not {text!r}")
            found[key_id] = ",".join(part.strip() for part in text.split(","))
    return found


def _thresholds(raw: Mapping[str, Any]) -> Thresholds:
    known = {f.name: f for f in fields(Thresholds)}
    for name, value in raw.items():
        if name not in known:
            raise InvalidInput(f"unknown key thresholds.{name}{nearest(name, known)}")
        if type(value) not in (int, float) or not math.isfinite(value) or value <= 0:
            raise InvalidInput(f"thresholds.{name} must be a number above 0, not {value!r}")
    return Thresholds(**{name: float(value) for name, value in raw.items()})


_ACCESS: Mapping[str, type] = {"tls": bool, "tls_ca": str, "tls_cert": str, "tls_key": str, "token_file": str}


def _access(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A token itself does not belong into this file, which others may read."""
    for name, value in raw.items():
        kind = _ACCESS.get(name)
        if kind is None:
            raise InvalidInput(f"unknown key access.{name}{nearest(name, _ACCESS)}")
        if type(value) is not kind:
            raise InvalidInput(f"access.{name} must be {'true or false' if kind is bool else 'a path'}, not {value!r}")
    return {name: Path(value).expanduser() if isinstance(value, str) else value for name, value in raw.items()}
