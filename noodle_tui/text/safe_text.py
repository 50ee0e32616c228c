"""The one gate for text from outside: model and node names, prompts, answers, events, errors.

What leaves here holds no control, bidi or zero-width format characters, no lone surrogates, and at most `limit`
characters; only `multiline=True` lets a newline through. `clean` applies it to every string inside a frozen value,
so that whatever the console keeps in its state is already safe to draw.
"""

from __future__ import annotations

import unicodedata
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from typing import TypeVar

T = TypeVar("T")

UNPRINTABLE = "?"
MAX_FIELD_CHARS = 400  # longer than any row; a 100 KB model name must not cost 100 KB of work per frame
MAX_COMBINING = 2  # per base character: enough for real scripts, too few to overdraw the rows around it

_REPLACED_CATEGORIES = frozenset({"Cc", "Cs", "Co", "Cn"})
_DROPPED_CATEGORIES = frozenset({"Cf"})  # bidi controls, joiners, byte-order marks: invisible or reordering
_COMBINING_CATEGORIES = frozenset({"Mn", "Me"})


def safe_text(text: str, limit: int = MAX_FIELD_CHARS, *, multiline: bool = False) -> str:
    """Return `text` fit for a terminal: see the module docstring."""
    text = text[:limit]
    if text.isascii() and text.isprintable():
        return text
    if multiline:
        return "\n".join(_safe_line(line) for line in text.replace("\r\n", "\n").split("\n"))
    return _safe_line(text)


def clean(value: T) -> T:
    """The same frozen value with every string inside it made safe; enums and numbers stay as they are."""
    if isinstance(value, str):
        return value if isinstance(value, Enum) else safe_text(value)  # type: ignore[return-value]
    if isinstance(value, tuple):
        numbers = bool(value) and isinstance(value[0], int | float)  # histories: thousands per frame, nothing to clean
        return value if numbers else tuple(clean(item) for item in value)  # type: ignore[return-value]
    if is_dataclass(value) and not isinstance(value, type):
        return _clean_fields(value)
    return value


def _clean_fields(value: T) -> T:
    """Copy a dataclass only if something in it had to change."""
    old = {f.name: getattr(value, f.name) for f in fields(value)}  # type: ignore[arg-type]
    new = {name: clean(item) for name, item in old.items() if isinstance(item, str | tuple) or is_dataclass(item)}
    changed = {name: item for name, item in new.items() if item != old[name]}
    return replace(value, **changed) if changed else value  # type: ignore[type-var]


def _safe_line(text: str) -> str:
    out: list[str] = []
    combining = 0
    for char in text:
        category = unicodedata.category(char)
        combining = combining + 1 if category in _COMBINING_CATEGORIES else 0
        if category in _DROPPED_CATEGORIES or combining > MAX_COMBINING or _joins_neighbours(char):
            continue
        out.append(_visible(char, category))
    return "".join(out)


def _visible(char: str, category: str) -> str:
    if char in "\t\n\r\v\f" or category in ("Zl", "Zp", "Zs"):
        return " "
    return UNPRINTABLE if category in _REPLACED_CATEGORIES else char


def _joins_neighbours(char: str) -> bool:
    """Characters that merge with others into one glyph, whose width terminals disagree about."""
    return "\ufe00" <= char <= "\ufe0f" or "\U0001f1e6" <= char <= "\U0001f1ff" or "\U0001f3fb" <= char <= "\U0001f3ff"
