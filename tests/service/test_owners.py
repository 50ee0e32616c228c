"""State has one owner: nobody else writes what the coordinator's shell, its peers, events and outputs hold, and no class holds too much."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SERVICE = Path(__file__).parent.parent.parent / "engine" / "service"
OWNERS = {"shell", "peers", "events", "outputs"}
MOST_ATTRIBUTES = 20


def assigned_elsewhere(source: str) -> Iterator[str]:
    """Attributes of an owner that are stored or deleted from outside, or whose private ones are even looked at."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Attribute) or _name(node.value).removeprefix("_") not in OWNERS:
            continue
        if not isinstance(node.ctx, ast.Load) or node.attr.startswith("_"):
            yield f"line {node.lineno}: {ast.unparse(node)}"


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def attributes_of(tree: ast.ClassDef) -> set[str]:
    fields = {n.target.id for n in tree.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)}
    stored = (n for n in ast.walk(tree) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store))
    return fields | {n.attr for n in stored if _name(n.value) == "self"}


@pytest.mark.parametrize("path", sorted(SERVICE.rglob("*.py")), ids=lambda p: p.stem)
def test_only_the_owner_writes_and_no_class_holds_too_much(path: Path) -> None:
    source = path.read_text()
    assert [*assigned_elsewhere(source)] == []
    classes = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.ClassDef)]
    assert {c.name: len(attributes_of(c)) for c in classes if len(attributes_of(c)) > MOST_ATTRIBUTES} == {}


@pytest.mark.parametrize(
    "line", ["shell.outputs.codec = None", "self._shell.cluster_id += 'x'", "del self.peers.options", "self._shell._outputs.get(1)"]
)
def test_a_write_from_outside_is_found(line: str) -> None:
    assert [*assigned_elsewhere(line)] != []
