"""How commands print: ASCII only, so that no console encoding can fail, JSON as one document."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from engine.data.json_text import json_text


def print_json(document: Any) -> None:
    """One line of JSON; a number that JSON does not have (NaN, an infinity) becomes null."""
    print(json_text(document), flush=True)


def printable(text: str) -> str:
    """`text` without control characters: what a model or a node says must not steer the terminal."""
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns padded to their widest cell; the first is left-aligned, the others too unless they look like numbers."""
    cells = [list(header), *[[printable(c).replace("\n", " ") for c in row] for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = ["  ".join(_pad(c, w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join(lines)


def _pad(cell: str, width: int) -> str:
    return cell.rjust(width) if cell[:1].isdigit() else cell.ljust(width)


def note(text: str) -> None:
    """A line for people, on stderr."""
    print(printable(text), file=sys.stderr, flush=True)
