"""The one gate for text from outside: model and node names, prompts, answers, events, errors.

What leaves here holds no control or bidi characters, which would steer the terminal or reorder a row, no lone surrogates, and at most
`limit` characters; only `multiline=True` lets a newline through. Joiners, the spaces of French and Japanese, and emoji of several
characters are text and stay: `lines` and `tight_update` know what they take. `clean` applies it to every string inside a frozen value,
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
MAX_COMBINING = 6  # per base character: pointed Hebrew and Tibetan stacks have four; too few to overdraw the rows around it

_REPLACED_CATEGORIES = frozenset({"Cc", "Cs"})
_DROPPED_CATEGORIES = frozenset({"Cf"})  # bidi controls, byte-order marks, zero-width spaces: invisible or reordering
_COMBINING_CATEGORIES = frozenset({"Mn", "Me"})


def safe_text(text: str, limit: int = MAX_FIELD_CHARS, *, multiline: bool = False) -> str:
    """Return `text` fit for a terminal: see the module docstring."""
    text = text[:limit]
    if text.isascii() and text.isprintable():
        return text
    if multiline:
        return "\n".join(_safe_line(line) for line in text.replace("\r\n", "\n").split("\n"))
    return _safe_line(text)


def types(character: str | None) -> bool:
    """Whether a key's character is text; Python calls the spaces of Japanese and French and the joiners of Persian unprintable."""
    return bool(character) and safe_text(character or "") == character


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
        if combining > MAX_COMBINING or (category in _DROPPED_CATEGORIES and not _is_text(char)):
            continue
        out.append(_visible(char, category))
    return "".join(out)


def _visible(char: str, category: str) -> str:
    if char in "\t\n\r\v\f" or category in ("Zl", "Zp"):
        return " "
    return UNPRINTABLE if category in _REPLACED_CATEGORIES else char


def _is_text(char: str) -> bool:
    """Invisible, but what stands around it is written with it: joiners, and the tags of flags such as Scotland's."""
    return char in "\u200c\u200d" or "\U000e0020" <= char <= "\U000e007f"
