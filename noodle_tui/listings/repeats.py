"""What repeats itself in the normal course as one row, the newest with how many stand behind it: decisions, sessions that end well."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from noodle_tui.core.pages import Page
from noodle_tui.state import ConsoleState

Row = TypeVar("Row")
REPEATING = frozenset({"adapt", "session"})


def routine_of(kind: str, text: str) -> str:
    """What repeats as one: decisions, sessions that end well, and what node after node says in the same words; empty for anything else."""
    if kind in REPEATING:
        return kind
    return f"{kind} {text.split(' ', 1)[0]}" if kind == "node" else ""


def folded(newest_first: Sequence[Row], routine_kind: Callable[[Row], str]) -> tuple[list[Row], dict[int, int]]:
    """The rows to show, newest first, and how many each hides by its place; `routine_kind` is empty for what is no routine.

    Neither breaks a row of the other; everything else begins both anew.
    """
    kept: list[Row] = []
    hidden: dict[int, int] = {}
    heads: dict[str, int] = {}  # by kind, the place of the row that the next one would hide behind
    for row in newest_first:
        kind = routine_kind(row)
        if kind in heads:
            hidden[heads[kind]] = hidden.get(heads[kind], 0) + 1
            continue
        if kind:
            heads[kind] = len(kept)
        else:
            heads.clear()
        kept.append(row)
    return kept, hidden


def folds(state: ConsoleState, page: Page) -> bool:
    """Whether a list folds now: `z` shows all, and a filter looks at all."""
    return page not in state.ui.expanded and not state.ui.listing(page).filter


def with_count(state: ConsoleState, text: str, num_hidden: int) -> str:
    """In front, where a narrow column does not cut it off."""
    return f"[+{num_hidden} alike, {state.named('{view.expand}')}] {text}" if num_hidden else text
