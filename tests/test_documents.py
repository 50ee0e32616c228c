"""What the engine's own documents state is what the code and its contracts say."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ENGINE = (ROOT / "engine" / "README.md").read_text()
ROOMS = sorted(path.parent.name for path in (ROOT / "engine").glob("*/__init__.py"))
DOCUMENTS = (
    "engine/README.md",
    "engine/CHANGELOG.md",
    ".github/CONTRIBUTING.md",
    "tests/README.md",
    *(f"engine/{room}/README.md" for room in ROOMS),
)


def test_the_changelog_begins_with_the_version_of_the_package() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "engine" / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == PROJECT["project"]["version"]


def test_every_room_has_a_readme_that_says_what_it_is_for() -> None:
    texts = {room: (ROOT / "engine" / room / "README.md").read_text().splitlines() for room in ROOMS}
    assert [room for room, lines in texts.items() if not lines[0].startswith("# ") or lines[1] or not lines[2].strip()] == []


def test_the_map_has_every_room_and_no_other() -> None:
    rooms = {str(path.parent.relative_to(ROOT / "engine")) + "/" for path in (ROOT / "engine").rglob("__init__.py")} - {"./"}
    listed = set(re.findall(r"^\| `([a-z_/]+/)` \|", ENGINE.split("## Rooms")[1].split("## ")[0], re.MULTILINE))
    assert listed == rooms


def test_every_contract_stands_beside_its_rule_and_every_guard_exists() -> None:
    section = ENGINE.split("## Import rules")[1].split("\n## ")[0]
    contracts = [contract["name"] for contract in PROJECT["tool"]["importlinter"]["contracts"]]
    named = re.findall(r'contract "([^"]+)"', section)
    assert sorted(named) == sorted(name for name in named for contract in contracts if contract.startswith(name))
    assert [contract for contract in contracts if not any(contract.startswith(name) for name in named)] == []
    assert all((ROOT / test).is_file() for test in re.findall(r"`(tests/[\w/]+\.py)`", section))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_a_document_points_to_exists(document: str) -> None:
    text, folder = (ROOT / document).read_text(), (ROOT / document).parent
    assert all((folder / target).exists() for target in re.findall(r"\]\(([^)#:]+)\)", text))
    named = re.findall(rf"`((?:engine|tests|protos|\.ci|{'|'.join(ROOMS)})/[\w/]*\w(?:\.\w+)?)`", text)
    assert [name for name in named if not any((base / name).exists() for base in (ROOT, ROOT / "engine", folder))] == []
    assert text.isascii() and max(map(len, text.splitlines())) <= 180
