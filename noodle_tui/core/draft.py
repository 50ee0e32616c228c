"""What is being written in a field of several lines: a text, a cursor, and what keys do to them. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from noodle_tui.text.field_rows import at_cell, cell_of, graphemes, row_of, rows_of

NEAR = 64  # characters around the cursor, within which what is seen as one of them begins and ends
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Draft:
    """The cursor stands before character `at`."""

    text: str = ""
    at: int = 0

    def with_text(self, text: str) -> Draft:
        """Written at the cursor, which stands behind it then."""
        return Draft(self.text[: self.at] + text + self.text[self.at :], self.at + len(text))

    def edited(self, key: str) -> Draft:
        """After a key, by its name; one that means nothing here changes nothing."""
        return EDITS[key](self) if key in EDITS else self

    def moved(self, num_rows: int, width: int) -> Draft | None:
        """The cursor so many rows further down in a field of that width; None beyond the first and the last row."""
        rows = rows_of(self.text, width)
        row = row_of(rows, self.at) + num_rows
        return replace(self, at=at_cell(self.text, rows, row, cell_of(self.text, rows, self.at))) if 0 <= row < len(rows) else None


def at_end(text: str) -> Draft:
    """A text with the cursor behind it."""
    return Draft(text, len(text))


def _left(draft: Draft) -> int:
    start = max(0, draft.at - NEAR)
    return start + next((begin for begin, _, _ in reversed(graphemes(draft.text[start : draft.at]))), 0)


def _right(draft: Draft) -> int:
    return draft.at + next((end for _, end, _ in graphemes(draft.text[draft.at : draft.at + NEAR])), 0)


def _word_left(draft: Draft) -> int:
    return max((found.start() for found in _WORD.finditer(draft.text, 0, draft.at)), default=0)


def _word_right(draft: Draft) -> int:
    found = _WORD.search(draft.text, draft.at)
    return found.end() if found else len(draft.text)


def _home(draft: Draft) -> int:
    return draft.text.rfind("\n", 0, draft.at) + 1


def _end(draft: Draft) -> int:
    stop = draft.text.find("\n", draft.at)
    return stop if stop >= 0 else len(draft.text)


def _to(place: Callable[[Draft], int]) -> Callable[[Draft], Draft]:
    return lambda draft: replace(draft, at=place(draft))


def _without(place: Callable[[Draft], int]) -> Callable[[Draft], Draft]:
    """Deletes from the cursor to a place before or behind it."""

    def edit(draft: Draft) -> Draft:
        start, stop = sorted((draft.at, place(draft)))
        return Draft(draft.text[:start] + draft.text[stop:], start)

    return edit


EDITS: Mapping[str, Callable[[Draft], Draft]] = {
    "left": _to(_left),
    "right": _to(_right),
    "ctrl+b": _to(_left),
    "ctrl+f": _to(_right),
    "ctrl+left": _to(_word_left),
    "ctrl+right": _to(_word_right),
    "home": _to(_home),
    "ctrl+a": _to(_home),
    "end": _to(_end),
    "ctrl+e": _to(_end),
    "ctrl+home": _to(lambda draft: 0),
    "ctrl+end": _to(lambda draft: len(draft.text)),
    "backspace": _without(_left),
    "ctrl+h": _without(_left),
    "delete": _without(_right),
    "ctrl+d": _without(_right),
    "ctrl+w": _without(_word_left),
    "ctrl+u": _without(_home),
    "ctrl+k": _without(_end),
}


@dataclass(frozen=True, slots=True)
class Drafts:
    """What was sent from a field, oldest first, and behind it what is being written; one of them is in the field."""

    texts: tuple[str, ...] = ("",)
    index: int = 0

    def browsed(self, text: str, step: int) -> Drafts | None:
        """`text` is in the field now: an older one instead, or a newer one with a positive step. None beyond the ends."""
        index = self.index + step
        if not 0 <= index < len(self.texts):
            return None
        return Drafts((*self.texts[: self.index], text, *self.texts[self.index + 1 :]), index)

    def sent(self, text: str, most: int) -> Drafts:
        """The newest of those that were sent is `text`; at most `most` are kept. What was begun and left stands before it."""
        begun = self.texts[-1:] if self.index < len(self.texts) - 1 else ()
        kept = [known for known in (*self.texts[:-1], *begun) if known and known != text][-most + 1 :]
        return Drafts((*kept, text, ""), len(kept) + 1)
