"""The benchmark's table: errors of predicted rows only, and whether plans come in the same order."""

from __future__ import annotations

import json

import pytest

from engine.report.staged import Figures, StagedRow, median_errors, rankings, staged_document


def row(layers: tuple[int, ...], measured: float, simulated: float, *, calibrated: bool = False, sessions: int = 4) -> StagedRow:
    """Only the speeds differ."""
    return StagedRow(layers, sessions, Figures(0.1, measured, 0.5), Figures(0.11, simulated, 0.45), calibrated)


ROWS = [row((14,), 10.0, 10.0, calibrated=True), row((7, 7), 20.0, 22.0), row((9, 5), 19.8, 23.0), row((5, 5, 4), 30.0, 21.0)]


def test_errors_are_medians_over_what_was_predicted() -> None:
    found = median_errors(ROWS)
    assert found["tokens_per_s"] == pytest.approx(23.0 / 19.8 - 1.0)
    assert found["step_s"] == pytest.approx(0.1) and found["ttft_s"] == pytest.approx(0.1)


def test_a_ranking_counts_pairs_that_are_really_apart() -> None:
    (found,) = rankings(ROWS)
    assert found.measured == ((5, 5, 4), (7, 7), (9, 5), (14,))
    assert found.simulated == ((9, 5), (7, 7), (5, 5, 4), (14,))
    assert (found.num_pairs, found.num_same) == (5, 3)  # 7+7 and 9+5 differ by 1 %; 5+5+4 should beat both


def test_session_counts_are_ranked_apart() -> None:
    mixed = [row((14,), 10.0, 9.0, sessions=1), row((7, 7), 8.0, 7.0, sessions=1), *ROWS]
    assert [(r.sessions, r.num_pairs, r.num_same) for r in rankings(mixed)] == [(1, 1, 1), (4, 5, 3)]


def test_the_document_is_json_with_everything() -> None:
    found = json.loads(json.dumps(staged_document(ROWS, Figures(0.1, 10.0, 0.2), {"model": "m"})))
    assert found["model"] == "m" and len(found["rows"]) == 4 and found["native"]["tokens_per_s"] == 10.0
    assert found["rows"][1]["errors"]["tokens_per_s"] == pytest.approx(0.1)
    assert found["rankings"][0]["num_same"] == 3
