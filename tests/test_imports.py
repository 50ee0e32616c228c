"""The import rules at run time: what a room imports is what really lands in `sys.modules`, indirectly too."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PURE = ["asyncio", "grpc", "protos", "socket", "threading", "random", "torch", "transformers", "numpy", "sqlite3"]
ARRAYS = ["numpy", "random", "threading", "socket", "asyncio"]  # numpy brings these with it
HEAVY = ["torch", "transformers", "numpy"]


def modules_of(folder: str) -> tuple[str, ...]:
    """Every module of a room, so that a new file is covered without being listed."""
    files = sorted(path.relative_to(ROOT).with_suffix("") for path in (ROOT / folder).glob("*.py"))
    return tuple(".".join(path.parts) for path in files if path.name != "__init__")


CONSOLE_CORE = tuple(
    module for room in ("core", "changes", "text", "listings", "widgets/plan") for module in modules_of(f"noodle_tui/{room}")
)


def loaded_by(*modules: str) -> set[str]:
    """Top-level names in `sys.modules` after importing `modules`, less what a bare interpreter has."""
    code = f"""
import sys, json
before = set(sys.modules)
import {", ".join(modules)}
print(json.dumps(sorted(set(sys.modules) - before)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in json.loads(done.stdout)}


@pytest.mark.parametrize(
    ("modules", "forbidden"),
    [
        (modules_of("engine/data"), [*PURE, "textual"]),
        (("engine.planning.strategies", "engine.planning.documents.problem_json", "engine.planning.explain"), [*PURE, "textual"]),
        (("engine.planning.solving.beam_plan", "engine.planning.solving.prices.additive_search"), [*(set(PURE) - set(ARRAYS)), "textual"]),
        (modules_of("engine/profile"), [*PURE, "textual"]),
        (("engine.planning.capability", "engine.planning.documents.comparison"), [*PURE, "textual"]),
        (("engine.planning.documents.plan_json", "engine.planning.documents.plan_drawing"), [*PURE, "textual"]),
        (("engine.commands.machine.doctor_hardware",), [*HEAVY, "grpc", "protos"]),
        (("engine.simulation.simulator", "engine.simulation.gantt", "engine.simulation.native"), [*PURE, "textual"]),
        (("engine.commands.planning.simulate",), [*HEAVY, "grpc", "protos"]),
        (("engine.commands.machine.profile",), [*HEAVY, "grpc", "protos"]),
        (("engine.control.cluster", "engine.control.status", "engine.control.sessions.stage_sessions"), [*PURE, "textual"]),
        (("engine.simulation.drill.drill",), [*PURE, "textual"]),
        (("engine.control.adaptation.planner", "engine.simulation.adaptation.table"), [*PURE, "textual"]),
        (("engine.service.client", "engine.service.local"), [*HEAVY, "textual"]),
        (("engine.service.coordinator.coordinator",), [*HEAVY, "textual"]),
        (("engine.service.worker.worker",), [*HEAVY, "textual"]),  # it announces its address before it imports torch
        (("engine.model.sources.card", "engine.model.sources.inventory"), [*HEAVY, "grpc", "protos"]),
        (("engine.model.configuration", "engine.model.hardware.cpu", "engine.model.weights.weight_cache"), [*HEAVY, "grpc", "protos"]),
        (("engine.cli",), [*HEAVY, "grpc", "protos", "textual"]),
        (("noodle_tui.app",), [*HEAVY, "grpc", "protos"]),
        ((*CONSOLE_CORE, "noodle_tui.state", "noodle_tui.glyphs"), [*HEAVY, "grpc", "protos", "asyncio", "textual"]),
    ],
)
def test_a_room_loads_nothing_it_must_not(modules: tuple[str, ...], forbidden: list[str]) -> None:
    assert loaded_by(*modules) & set(forbidden) == set()


def test_the_check_can_fail() -> None:
    assert "asyncio" in loaded_by("engine.service.client")
