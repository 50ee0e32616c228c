"""Who may write what: the state of the plan has one owner, no class is everybody's, and every event has its handler."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from engine.control import events as on
from engine.control.cluster import HANDLERS, Cluster
from engine.control.config import ClusterConfig

ENGINE = Path(__file__).resolve().parents[2] / "engine"
MOST_ATTRIBUTES = 20
OWNER = ENGINE / "control" / "plan_state.py"
ROOMS = ("control", "simulation", "service/coordinator", "report")  # those that can reach a cluster
OTHERS_FIELDS = {"member", "reply", "message", "chunk", "disk"}  # names of variables whose fields of the same name are their own


def trees() -> Iterator[tuple[Path, ast.Module]]:
    for room in ROOMS:
        for path in sorted((ENGINE / room).rglob("*.py")):
            yield path, ast.parse(path.read_text())


def targets(tree: ast.AST) -> Iterator[ast.Attribute]:
    """Every attribute that is assigned, also within a tuple, or by an augmented or annotated assignment."""
    for node in ast.walk(tree):
        found = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AugAssign | ast.AnnAssign) else []
        for target in found:
            yield from (n for n in ast.walk(target) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store))


def attributes(cls: ast.ClassDef) -> set[str]:
    """What an instance carries: fields of the class body, and whatever its methods assign to `self`."""
    fields = {n.target.id for n in cls.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)}
    return fields | {t.attr for t in targets(cls) if isinstance(t.value, ast.Name) and t.value.id == "self"}


def classes(tree: ast.Module) -> dict[str, ast.ClassDef]:
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def writes_elsewhere(path: Path, tree: ast.Module, owned: set[str]) -> list[str]:
    """Assignments to fields of the plan's state through another object than the writer itself."""
    found = []
    for target in targets(tree):
        through = ast.unparse(target.value)
        if target.attr in owned and through != "self" and through not in OTHERS_FIELDS:
            found.append(f"{path.relative_to(ENGINE)}:{target.lineno}: {ast.unparse(target)}")
    return found


def test_only_the_plan_state_writes_the_state_of_the_plan() -> None:
    owned = attributes(classes(ast.parse(OWNER.read_text()))["PlanState"])
    assert {"phase", "plan", "plan_version", "last_version", "had_plan", "wish", "failure", "detail"} <= owned
    found = [text for path, tree in trees() for text in writes_elsewhere(path, tree, owned)]
    assert found == []


@pytest.mark.parametrize("line", ["cluster.state.wish = None", "self.state.plan, x = None, 1", "self._cluster.last_version += 1"])
def test_a_write_from_elsewhere_would_be_found(line: str) -> None:
    tree = ast.parse(line)
    assert len(writes_elsewhere(ENGINE / "control" / "x.py", tree, {"wish", "plan", "last_version"})) == 1


def test_the_cluster_shows_the_plan_s_state_and_lets_nobody_write_it() -> None:
    cluster = Cluster(ClusterConfig(), 0.0)
    for name in ("phase", "plan", "plan_version"):
        with pytest.raises(AttributeError):
            setattr(cluster, name, None)


def test_no_class_of_the_control_room_carries_too_much() -> None:
    sizes = {
        f"{path.relative_to(ENGINE)}:{name}": len(attributes(cls))
        for path, tree in trees()
        if path.is_relative_to(ENGINE / "control")
        for name, cls in classes(tree).items()
    }
    assert len(sizes) > 100
    assert {name: size for name, size in sizes.items() if size > MOST_ATTRIBUTES} == {}


def test_every_event_has_its_handler_and_anything_else_is_an_error() -> None:
    assert set(HANDLERS) == set(get_args(on.ClusterEvent))
    assert len({handler.__name__ for handler in HANDLERS.values()}) == len(HANDLERS)
    with pytest.raises(KeyError):
        Cluster(ClusterConfig(), 0.0).handle("no event", 0.0)  # type: ignore[arg-type]
