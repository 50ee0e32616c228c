"""What the README states is what the code does."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from engine.cli import COMMANDS
from engine.model.families import VERIFIED
from tests.model.test_families import ROW_BY_ROW

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
MODEL_README = (ROOT / "engine" / "model" / "README.md").read_text()


def test_the_families_stated_are_the_families_verified() -> None:
    section = MODEL_README.split("## Verified families")[1].split("### ")[0]
    assert f"{len(VERIFIED)} `model_type`s" in section
    stated = {way: set(re.findall(r"[a-z0-9][\w-]*", section.split(f"{way}: ")[1].split("\n\n")[0])) for way in ("Packed", "Row by row")}
    assert stated == {"Packed": set(VERIFIED) - ROW_BY_ROW, "Row by row": ROW_BY_ROW}


def test_every_command_of_the_readme_exists() -> None:
    named = set(re.findall(r"noodle-engine ([a-z]+)", README))
    assert named and named <= set(COMMANDS)


def test_the_map_names_every_room() -> None:
    block = README.split("## The rooms")[1].split("\n## ")[0]
    rooms = {p.name for p in (ROOT / "engine").iterdir() if (p / "__init__.py").is_file()}
    assert all(f"engine/{room}/" in block for room in rooms)


def test_every_link_between_the_readmes_leads_somewhere() -> None:
    files = [ROOT / name for name in subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True).stdout.split()]
    links = [(path, link) for path in files for link in re.findall(r"\]\(([^)#:]+)\)", path.read_text())]
    assert len(links) > 10
    assert [(str(path), link) for path, link in links if not (path.parent / link).exists()] == []


def test_the_door_stays_small() -> None:
    lines = README.splitlines()
    assert len(lines) <= 120 and max(map(len, lines)) <= 140


def test_ci_runs_what_the_readme_says() -> None:
    ci = (ROOT / ".ci" / "run").read_text()
    assert "python -m pytest -n 2" in README and "python -m pytest -n 2" in ci
    assert '-e ".[dev]"' in README and '-e ".[dev]"' in ci
