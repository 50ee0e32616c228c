"""Writing what a screen lists to a file: JSON, JSON Lines or CSV. The rows are those on screen, filtered and sorted."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.data.errors import InvalidInput, Refused
from engine.data.json_text import json_text
from engine.files import replace_whole

FORMATS = ("json", "jsonl", "csv")


def render(records: Sequence[Mapping[str, Any]], form: str) -> str:
    """The records as text, ASCII where the format can escape; raises InvalidInput for an unknown format."""
    rows = [{name: _plain(value) for name, value in record.items()} for record in records]
    if form == "json":
        return json_text(rows, indent=1) + "\n"
    if form == "jsonl":
        return "".join(json_text(row) + "\n" for row in rows)
    if form == "csv":
        return _csv(rows)
    raise InvalidInput(f"export {form[:20]!r}: the formats are {', '.join(FORMATS)}")


def write_new(path: Path, text: str) -> None:
    """Write a file that must not exist yet, whole or not at all; raises Refused or NoodleError."""
    if path.exists():
        raise Refused(f"{path} exists: give another name")
    replace_whole(path, text.encode("utf-8", "backslashreplace"))


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    out = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _inert(value) for name, value in row.items()} for row in rows)
    return out.getvalue()


def _inert(value: Any) -> Any:
    """A text that a spreadsheet would run as a formula gets an apostrophe."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t") else value


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
