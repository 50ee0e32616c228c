"""How commands print: JSON as one document in ASCII, text without what steers a terminal."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import Any

from engine.data.json_text import json_text


def print_json(document: Any) -> None:
    """One line of JSON; a number that JSON does not have (NaN, an infinity) becomes null."""
    print(json_text(document), flush=True)


# What steers a terminal or turns the order of what stands on it: C0 and C1 controls, bidirectional controls. Lone surrogates cannot be
# written. Joiners and the spaces of French and Japanese are text. Carriage returns go, so that lines of Windows stay lines.
_STEERING = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """`text` as a terminal may get it: what a model or a node says must not steer it."""
    return _STEERING.sub("?", text.replace("\r", ""))


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


def stand_in_note(why: str) -> str:
    """What to say where text goes through bytes because the model's own tokenizer is missing."""
    return f"noodle-engine: a byte-level stand-in takes the place of the model's tokenizer: {why}; --prompt-ids are not affected"
