"""What a reader can keep in mind: eight names at the top, at most 15 files in a folder, 20 attributes in a class, 400 lines in a file."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = [ROOT / "engine", ROOT / "noodle_tui"]
TOP = {"pyproject.toml", "noodle_tui", "engine", "protos", "themes", "tests", "README.md", "LICENSE"}
MADE = {"build", "dist", "__pycache__"}  # by tools; see .gitignore
WHY = "## Why so many files"  # a heading of the README of a folder that has more


def sources() -> list[Path]:
    return [path for package in PACKAGES for path in package.rglob("*.py")]


def crowded(folders: set[Path]) -> dict[str, int]:
    """Folders with more files of their own than a reader keeps in mind, and no reason in their README."""
    counts = {folder: sum(path.name != "__init__.py" for path in folder.glob("*.py")) for folder in folders}
    readmes = {folder: (folder / "README.md").read_text() if (folder / "README.md").is_file() else "" for folder in folders}
    return {folder.name: count for folder, count in counts.items() if count > 15 and WHY not in readmes[folder]}


def attributes(node: ast.ClassDef) -> set[str]:
    """Fields, and whatever its methods assign to `self`."""
    fields = {item.target.id for item in node.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)}
    stores = (item for item in ast.walk(node) if isinstance(item, ast.Attribute) and isinstance(item.ctx, ast.Store))
    return fields | {item.attr for item in stores if isinstance(item.value, ast.Name) and item.value.id == "self"}


def classes() -> Iterator[tuple[str, ast.ClassDef]]:
    for path in sources():
        yield from ((path.name, node) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef))


def test_the_top_level_is_what_was_agreed_on() -> None:
    """What else there is has a name with a dot: `.github` holds guides and how to contribute."""
    found = {path.name for path in ROOT.iterdir() if not path.name.startswith(".") and path.suffix != ".egg-info"}
    assert found - MADE == TOP


def test_no_folder_holds_more_files_than_a_reader() -> None:
    folders = {path.parent for path in sources()}
    assert crowded(folders) == {} and len(folders) > 30


def test_a_crowded_folder_is_noticed_until_its_readme_says_why(tmp_path: Path) -> None:
    for number in range(16):
        (tmp_path / f"file{number}.py").touch()
    assert crowded({tmp_path}) == {tmp_path.name: 16}
    (tmp_path / "README.md").write_text(f"{WHY}\nEach is one of sixteen dialects.\n")
    assert crowded({tmp_path}) == {}


def test_no_class_has_more_than_twenty_attributes() -> None:
    assert [(name, node.name) for name, node in classes() if len(attributes(node)) > 20] == []
    found = ast.parse("class C:\n    a: int\n    def f(self):\n        self.b, self.a = 1, 2\n        self.c += 1").body[0]
    assert isinstance(found, ast.ClassDef) and attributes(found) == {"a", "b", "c"}


def test_no_file_is_longer_than_four_hundred_lines() -> None:
    assert [path.name for path in sources() if len(path.read_text().splitlines()) > 400] == []
