"""How commands print: JSON as one document in ASCII, text without what steers a terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from engine.data.json_text import json_text
from engine.printable import one_line, printable


def print_json(document: Any) -> None:
    """One line of JSON; a number that JSON does not have (NaN, an infinity) becomes null."""
    print(json_text(document), flush=True)


def say(text: str) -> None:
    """Lines for people on stdout."""
    print(printable(text), flush=True)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns padded to their widest cell; the first is left-aligned, the others too unless they look like numbers."""
    cells = [list(header), *[[one_line(c) for c in row] for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = ["  ".join(_pad(c, w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join(lines)


def _pad(cell: str, width: int) -> str:
    return cell.rjust(width) if cell[:1].isdigit() else cell.ljust(width)


def note(text: str) -> None:
    """A line for people, on stderr."""
    print(printable(text), file=sys.stderr, flush=True)


def stand_in_note(why: str) -> str:
    """What to say where text goes through bytes because the model's own tokenizer is missing."""
    return f"noodle-engine: a byte-level stand-in takes the place of the model's tokenizer: {why}; --prompt-ids are not affected"
