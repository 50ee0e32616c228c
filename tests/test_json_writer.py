"""One writer of JSON: nothing else in the engine or the console turns a document into text, so that NaN can come out nowhere."""

from __future__ import annotations

import ast
import json
import math
from pathlib import Path

import engine
from engine.data.json_text import json_text

ROOT = Path(engine.__file__).parents[1]
WRITER = ROOT / "engine" / "data" / "json_text.py"


def test_only_one_file_writes_json() -> None:
    found = []
    for room in ("engine", "noodle_tui"):
        for file in sorted((ROOT / room).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text())):
                is_json = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "json"
                if is_json and node.attr in ("dump", "dumps") and file != WRITER:  # type: ignore[attr-defined]
                    found.append(f"{file.relative_to(ROOT)}:{node.lineno}")  # type: ignore[attr-defined]
    assert not found, f"use engine.data.json_text: {found}"


def test_numbers_that_json_does_not_have_are_null() -> None:
    text = json_text({"a": math.nan, "b": [math.inf, {"c": -math.inf}], "d": (1.5, "caf\u00e9\udce9")})
    assert text.isascii() and json.loads(text) == {"a": None, "b": [None, {"c": None}], "d": [1.5, "caf\u00e9\udce9"]}
