"""A plan and its simulation agree: on which plan is better, and on the figures."""

from __future__ import annotations

import pytest

from engine.planning import load
from engine.planning.load import Steps
from tests.simulation.agreement import compare, kendall


def test_plan_and_simulation_rank_and_figure_alike() -> None:
    """Of other seeds those whose steps carry unlike numbers of rows (44, 186), and whose nodes share a host's cores with messages (58)."""
    rows = [row for seed in (*range(300, 306), 44, 58, 186) for row in compare(seed)]
    same, other = kendall(rows)
    assert same > 100 and (same - other) / (same + other) >= 0.95
    worst = sorted(rows, key=lambda row: row.error)
    assert worst[-1].error < 0.06 and worst[-4].error < 0.03, worst[-4:]


def test_the_comparison_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one row in every step, as a plan without batches has it."""
    monkeypatch.setattr("engine.planning.problem.steps_of", lambda sessions, lanes, runs_ahead=False: Steps(sessions, 1.0))
    assert load.steps_of(8, 1) == Steps(1, 8.0)
    assert max(row.error for seed in range(300, 304) for row in compare(seed)) > 0.5
