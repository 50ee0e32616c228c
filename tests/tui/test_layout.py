"""What a reader can keep in mind: at most 15 files in a folder of the console, 20 attributes in a class, 400 lines in a file."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import noodle_tui

ROOT = Path(noodle_tui.__file__).parent


def attributes(node: ast.ClassDef) -> set[str]:
    """Fields, and whatever its methods assign to `self`."""
    fields = {item.target.id for item in node.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)}
    stores = (item for item in ast.walk(node) if isinstance(item, ast.Attribute) and isinstance(item.ctx, ast.Store))
    return fields | {item.attr for item in stores if isinstance(item.value, ast.Name) and item.value.id == "self"}


def classes() -> Iterator[tuple[str, ast.ClassDef]]:
    for path in ROOT.rglob("*.py"):
        yield from ((path.name, node) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef))


def test_no_folder_holds_more_files_than_a_reader() -> None:
    folders = {path.parent for path in ROOT.rglob("*.py")}
    crowded = {folder.name: count for folder in folders if (count := sum(p.name != "__init__.py" for p in folder.glob("*.py"))) > 15}
    assert crowded == {} and len(folders) > 5


def test_no_class_has_more_than_twenty_attributes() -> None:
    assert [(name, node.name) for name, node in classes() if len(attributes(node)) > 20] == []
    found = ast.parse("class C:\n    a: int\n    def f(self):\n        self.b, self.a = 1, 2\n        self.c += 1").body[0]
    assert isinstance(found, ast.ClassDef) and attributes(found) == {"a", "b", "c"}


def test_no_file_is_longer_than_four_hundred_lines() -> None:
    assert [path.name for path in ROOT.rglob("*.py") if len(path.read_text().splitlines()) > 400] == []
