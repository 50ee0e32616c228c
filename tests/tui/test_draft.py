"""A text of several lines in a field: every key against a slow reference, every row against the cells it may take."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from noodle_tui.core.draft import EDITS, Draft, Drafts, at_end
from noodle_tui.text.field_rows import at_cell, cell_of, graphemes, row_of, rows_of

TEXTS = st.text(st.sampled_from("ab  _\n\n漢é👩"), max_size=60) | st.text(st.sampled_from("ab \n"), max_size=60)
ALIASES = {"ctrl+b": "left", "ctrl+f": "right", "ctrl+a": "home", "ctrl+e": "end", "ctrl+h": "backspace", "ctrl+d": "delete"}
WIDTHS = st.integers(4, 20)


@given(TEXTS, WIDTHS)
def test_rows_hold_all_of_the_text_and_leave_a_cell_for_the_cursor(text: str, width: int) -> None:
    rows = rows_of(text, width)
    for (start, stop), (following, _) in pairwise(rows):
        assert following == stop or (following == stop + 1 and text[stop] == "\n")
        assert "\n" not in text[start:stop]
    assert rows[0][0] == 0 and rows[-1][1] == len(text)
    assert all(cell_len(text[start:stop]) < width for start, stop in rows)


@given(TEXTS, WIDTHS, st.integers(0, 60))
def test_every_place_of_the_cursor_is_in_one_row_and_is_found_again_by_its_cell(text: str, width: int, at: int) -> None:
    at = at_boundary(text, at)
    rows = rows_of(text, width)
    row = row_of(rows, at)
    assert row == max(i for i, (start, _) in enumerate(rows) if start <= at)
    assert at_cell(text, rows, row, cell_of(text, rows, at)) == at


@given(TEXTS, st.integers(0, 60), st.lists(st.sampled_from([*EDITS, "x", "漢", "\n"]), max_size=30))
def test_keys_do_what_two_lists_of_characters_do(text: str, at: int, keys: list[str]) -> None:
    at = at_boundary(text, at)
    draft, reference = Draft(text, at), Lists(text[:at], text[at:])
    for key in keys:
        draft = draft.edited(key) if key in EDITS else draft.with_text(key)
        reference.press(key)
        assert (draft.text[: draft.at], draft.text[draft.at :]) == ("".join(reference.before), "".join(reference.after)), key


@given(TEXTS, WIDTHS, st.integers(0, 60))
def test_up_and_down_change_the_row_by_one_until_the_edges(text: str, width: int, at: int) -> None:
    draft = Draft(text, at_boundary(text, at))
    rows = rows_of(text, width)
    for step in (-1, 1):
        moved, row = draft.moved(step, width), row_of(rows, draft.at)
        if moved is None:
            assert row == (0 if step < 0 else len(rows) - 1)
        else:
            assert row_of(rows, moved.at) == row + step and cell_of(text, rows, moved.at) <= cell_of(text, rows, draft.at)


def test_a_family_is_one_character() -> None:
    family = "👩\u200d👧"
    assert at_end("a" + family).edited("backspace") == Draft("a", 1)
    assert Draft(family + "b", 0).edited("right").at == len(family)


# --- what was sent ------------------------------------------------------------------------------------------------------
def test_what_was_begun_comes_back_behind_what_was_sent() -> None:
    drafts = Drafts().sent("one", 9).sent("two", 9)
    older = drafts.browsed("begun", -1)
    assert older is not None and older.texts[older.index] == "two"
    oldest = older.browsed("two, changed", -1)
    assert oldest is not None and oldest.texts[oldest.index] == "one" and oldest.browsed("one", -1) is None
    newer = oldest.browsed("one", 1)
    assert newer is not None and newer.texts[newer.index] == "two, changed"
    newest = newer.browsed("two, changed", 1)
    assert newest is not None and newest.texts[newest.index] == "begun" and newest.browsed("begun", 1) is None


def test_sending_an_older_one_again_loses_nothing_that_was_begun() -> None:
    older = Drafts().sent("one", 9).sent("two", 9).browsed("begun", -1)
    assert older is not None
    assert older.sent("two", 9).texts == ("one", "begun", "two", "")


def test_so_many_are_kept() -> None:
    drafts = Drafts()
    for i in range(20):
        drafts = drafts.sent(str(i), 5)
    assert drafts.texts == ("15", "16", "17", "18", "19", "") and drafts.index == 5


def at_boundary(text: str, at: int) -> int:
    """Characters of several are not entered; a line ends one."""
    return max((0, *(end for _, end, _ in graphemes(text) if end <= at)))


class Lists:
    """The reference: what is before the cursor, what is behind it, in characters as they are seen."""

    def __init__(self, before: str, after: str) -> None:
        self.before, self.after = self.split(before), self.split(after)

    @staticmethod
    def split(text: str) -> list[str]:
        return [text[begin:end] for begin, end, _ in graphemes(text)]

    def press(self, key: str) -> None:
        name = {"ctrl+b": "left", "ctrl+f": "right", "ctrl+a": "home", "ctrl+e": "end", "ctrl+h": "backspace", "ctrl+d": "delete"}.get(
            key, key
        )
        if name in ("x", "漢", "\n"):
            self.before.append(name)
        elif name in ("left", "ctrl+left", "home", "ctrl+home"):
            for _ in range(self.num_back(name)):
                self.after.insert(0, self.before.pop())
        elif name in ("right", "ctrl+right", "end", "ctrl+end"):
            for _ in range(self.num_on(name)):
                self.before.append(self.after.pop(0))
        elif name in ("backspace", "ctrl+w", "ctrl+u"):
            num = self.num_back({"backspace": "left", "ctrl+w": "ctrl+left", "ctrl+u": "home"}[name])
            self.before = self.before[: len(self.before) - num]
        else:
            self.after = self.after[self.num_on({"delete": "right", "ctrl+k": "end"}[name]) :]

    def num_back(self, name: str) -> int:
        return self.count(self.before[::-1], name)

    def num_on(self, name: str) -> int:
        return self.count(self.after, {"right": "left", "ctrl+right": "ctrl+left", "end": "home", "ctrl+end": "ctrl+home"}[name])

    @staticmethod
    def count(characters: list[str], name: str) -> int:
        """How many go by, the nearest first."""
        if name == "left":
            return min(1, len(characters))
        if name == "ctrl+home":
            return len(characters)
        if name == "home":
            return characters.index("\n") if "\n" in characters else len(characters)
        num = 0
        while num < len(characters) and not is_word(characters[num]):
            num += 1
        while num < len(characters) and is_word(characters[num]):
            num += 1
        return num


def is_word(character: str) -> bool:
    return character[0].isalnum() or character[0] == "_"
