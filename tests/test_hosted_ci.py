"""The hosted CI runs what `.ci/run` runs, on every Python that the package promises. It has not run here: only its form is tested."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
WORKFLOW: dict[Any, Any] = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
STEPS = [step["run"] for job in WORKFLOW["jobs"].values() for step in job["steps"] if "run" in step]


def test_it_runs_everything_on_every_python_that_is_promised() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    promised = [found[1] for name in project["classifiers"] if (found := re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", name))]
    job = WORKFLOW["jobs"]["everything"]
    assert job["strategy"]["matrix"]["python"] == promised and {"run": ".ci/run"} in job["steps"]


def test_what_it_names_exists_and_nothing_may_be_written() -> None:
    named = {word for step in STEPS for word in step.split() if word.startswith(("tests/", ".ci/"))}
    assert len(named) > 5 and [name for name in named if not (ROOT / name).exists()] == []
    assert WORKFLOW["permissions"] == {"contents": "read"}
