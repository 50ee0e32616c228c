"""Typing while the help is open: printable keys filter it, the keys that move and close it go on doing so. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from noodle_tui.core.keys import Key
from noodle_tui.text.safe_text import safe_text, types

MAX_CHARS = 60
_ERASERS = {"backspace": -1, "ctrl+h": -1, "ctrl+u": 0}


def typed(text: str, key: str, character: str | None, keys: Sequence[Key]) -> str | None:
    """The filter after a key, or None for a key that does not type: those of `app.help` close it, letters or not."""
    if any(key in bound.keys.split(",") for bound in keys if bound.id == "app.help"):
        return None
    if key in _ERASERS:
        return text[: _ERASERS[key]]
    return pasted(text, character) if character is not None and types(character) else None


def pasted(text: str, more: str) -> str:
    """The filter with more behind it; spaces alone are no filter."""
    return (text + safe_text(more)).lstrip()[:MAX_CHARS]


def fits(filter_text: str, *texts: str) -> bool:
    """Whether every word of the filter stands somewhere in the texts."""
    found = " ".join(texts).lower()
    return all(word in found for word in filter_text.lower().split())
