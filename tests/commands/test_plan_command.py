"""`noodle-engine plan` and `bench plan`: one document out, exit codes, options and constraints from file and command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.cli import main
from engine.commands.bench.plan import order_gain, plan_text

PINNED = {
    "strategy",
    "stages",
    "bottleneck_s",
    "round_trip_s",
    "period_s",
    "objective",
    "lower_bound",
    "optimal",
    "solve_ms",
}
PROBLEM: dict[str, Any] = {
    "items": [{"name": f"h.{i}", "weight_bytes": 100, "output_bytes": 10} for i in range(6)],
    "nodes": [
        {"id": "a", "memory_bytes": 400, "time_s": [0.1] * 6},
        {"id": "b", "memory_bytes": 400, "time_s": [0.2] * 6},
        {"id": "c", "memory_bytes": 400, "time_s": [0.4] * 6},
    ],
    "links": {"latency_s": 0.001, "bandwidth_bytes_per_s": 1000},
}


@pytest.fixture
def problem(tmp_path: Path) -> Path:
    path = tmp_path / "problem.json"
    path.write_text(json.dumps(PROBLEM))
    return path


def answer(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    assert main(["plan", "--json", *map(str, arguments)]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("strategy", ["balanced", "bottleneck_first", "memory_aware", "latency_optimized", "cost"])
def test_the_pinned_answer(problem: Path, strategy: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "--problem", problem, "--strategy", strategy)
    assert set(found) >= PINNED and found["strategy"] == strategy and found["optimal"] and found["lower_bound"] == found["objective"]
    assert set(found["stages"][0]) >= {"node", "start", "stop", "time_s", "memory_bytes"}
    assert [s["start"] for s in found["stages"]] + [6] == [0] + [s["stop"] for s in found["stages"]]
    assert found["binds"] and isinstance(found["notes"], list)


def test_options_and_constraints(problem: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nodes = [s["node"] for s in answer(capsys, "--problem", problem, "--strategy", "bottleneck_first", "--forbid", "a")["stages"]]
    assert sorted(nodes) == ["b", "c"]
    counted = answer(capsys, "--problem", problem, "--stage-items", "1,2,3")["stages"]
    assert [(s["node"], s["stop"] - s["start"]) for s in counted] == [("c", 1), ("b", 2), ("a", 3)]
    pinned = answer(capsys, "--problem", problem, "--pin", "h.5=c", "--max-stages", 2)["stages"]
    assert len(pinned) == 2 and pinned[-1]["node"] == "c"
    path = problem.with_name("constrained.json")
    path.write_text(json.dumps({**PROBLEM, "constraints": {"forbidden_nodes": ["c"], "pins": {"h.0": "b"}}}))
    both = answer(capsys, "--problem", path, "--in-flight", 2)
    assert [s["node"] for s in both["stages"]] == ["b", "a"] and both["period_s"] == max(both["bottleneck_s"], both["round_trip_s"] / 2)


def test_for_people(problem: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--problem", str(problem)]) == 0
    out = capsys.readouterr().out
    assert out.isascii() and "auto: 2 of 3 nodes, optimal" in out and "binds: stage" in out and "tokens/s" in out


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["--max-stages", "1"], 1, "max_stages 1 is too few: 2 are needed"),
        (["--memory-reserve", "350"], 1, "memory: item h.0 alone needs 100 bytes"),
        (["--latency-limit", "0.01"], 1, "the shortest round trip is"),
        (["--latency-limit", "nan"], 2, "must lie in"),
        (["--strategy", "fastest"], 2, "strategy 'fastest' is unknown: choose one of auto, balanced"),
        (["--stage-items", "1,x"], 2, "whole numbers joined by commas"),
        (["--pin", "h.0"], 2, "give ITEM=NODE"),
        (["--forbid", "z"], 2, "the nodes are a, b, c"),
    ],
)
def test_refusals(problem: Path, arguments: list[str], code: int, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--problem", str(problem), *arguments]) == code
    captured = capsys.readouterr()
    assert expected in captured.err and captured.out == "" and captured.err.count("\n") == 1


def test_files_that_are_no_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--problem", str(tmp_path / "none.json")]) == 1
    (tmp_path / "bad.json").write_bytes(b"\xff\xfe")
    assert main(["plan", "--problem", str(tmp_path / "bad.json")]) == 2
    assert main(["plan"]) == 2
    err = capsys.readouterr().err
    assert "none.json does not exist" in err and "not UTF-8" in err and "--problem FILE" in err


def test_the_figures_of_bench_plan_are_text() -> None:
    row = {"case": "40 x 3", "strategy": "cost", "solve_ms": 0.5, "first_ms": 1.0, "limit_ms": 1.0, "optimal": False, "gap": 0.015}
    text = plan_text({"cases": [{**row, "ties_searched": True}], "peak_memory_bytes": 90e6, "order": order_gain()})
    assert text.isascii() and "gap 1.50 %" in text and "peak memory 90 MB" in text and "times shorter" in text
