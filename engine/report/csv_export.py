"""A profile as a spreadsheet: one row per layer and point, and per item and point; times in seconds, sizes in bytes.

A spreadsheet runs a cell that begins with =, +, - or @, so text that does gets a quote before it, also after characters that
some of them take for the end of a cell. Control characters become escapes. The exact names are in the JSON export.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.files import replace_whole
from engine.profile.point import Point
from engine.profile.profile import Profile
from engine.report.names import visible

_FORMULA = re.compile(r"(^|[;,|])(\s*)(?=[=+\-@＝＋－＠])")
_OF_LAYER = ("class_name", "depth", "parent", "device", "param_bytes", "buffer_bytes", "kv_bytes_per_token")
_OF_POINT = (
    "p50_s", "p95_s", "self_s", "total_s", "num_samples", "cv", "activation_bytes", "peak_memory_change_bytes", "flops", "moved_bytes",
    "flops_per_s", "bytes_per_s", "bound", "why",
)  # fmt: skip
_COLUMNS = ("kind", "index", "name", "path", "role", "item", *_OF_LAYER, "phase", "tokens", "context", "batch", "time_s", *_OF_POINT)


def write_csv(profile: Profile, path: Path) -> None:
    """Write the file, whole or not at all; raises NoodleError when the disk refuses."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, _COLUMNS, restval="", lineterminator="\r\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in _rows(profile))
    replace_whole(path, text.getvalue().encode("utf-8"))


def write_json(profile: Profile, path: Path) -> None:
    """The profile as the planner reads it; raises NoodleError when the disk refuses."""
    replace_whole(path, profile.to_json().encode("ascii"))


def _rows(profile: Profile) -> Iterator[dict[str, Any]]:
    for layer in profile.layers:
        about = {"kind": "layer", "index": layer.index, "name": layer.name, "path": layer.path, "role": layer.role, "item": layer.item}
        about |= {name: getattr(layer, name) for name in _OF_LAYER}
        for figures in layer.figures:
            yield about | _at(figures.point) | {name: getattr(figures, name) for name in _OF_POINT}
    for item in profile.items:
        about = {"kind": "item", "index": item.index, "name": item.name, "item": item.index, "param_bytes": item.weight_bytes}
        about |= {"kv_bytes_per_token": item.kv_bytes_per_token}
        for of_item in item.figures:
            timed = {name: getattr(of_item, name) for name in ("time_s", "p50_s", "p95_s", "cv", "num_samples")}
            yield about | _at(of_item.point) | timed


def _at(point: Point) -> dict[str, Any]:
    return {"phase": point.phase, "tokens": point.tokens, "context": point.context, "batch": point.batch}


def _cell(value: Any) -> Any:
    """Numbers as they are, text made harmless."""
    if not isinstance(value, str):
        return value
    return _FORMULA.sub(r"\1\2'", visible(value))
