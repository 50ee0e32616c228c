"""The one writer of JSON: ASCII, and never NaN or Infinity, which JSON does not have and most readers refuse."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any


def json_text(document: Any, *, indent: int | None = None, compact: bool = False) -> str:
    """`document` as JSON on one line, or indented; dataclasses become objects, a number that is not finite null."""
    return _text(plain(document), indent, compact)


def exact_json(document: Any) -> str:
    """JSON for documents that are read back: raises ValueError for a number that is not finite."""
    return _text(document, None, False)


def _text(document: Any, indent: int | None, compact: bool) -> str:
    return json.dumps(document, ensure_ascii=True, allow_nan=False, indent=indent, separators=(",", ":") if compact else None)


def plain(value: Any) -> Any:
    """`value` in what JSON knows: dataclasses become objects, unknown things their text, non-finite numbers null."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, Iterable):
        return [plain(v) for v in value]
    return str(value)
