"""Native against staged, simulated against measured: one table of a benchmark, its errors and its ranking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

_NAMES = ("step_s", "tokens_per_s", "ttft_s")
_APART = 0.03  # two plans whose measured speeds differ by less are not ranked: the machine's noise is as large


@dataclass(frozen=True, slots=True)
class Figures:
    """`step_s`: mean decode step from the coordinator and back; `tokens_per_s`: of all sessions together, after their first."""

    step_s: float
    tokens_per_s: float
    ttft_s: float


@dataclass(frozen=True, slots=True)
class StagedRow:
    """One plan with so many sessions at once. `calibrated`: this row's measurement went into the simulation's costs."""

    layers: tuple[int, ...]
    sessions: int
    measured: Figures
    simulated: Figures
    calibrated: bool

    def error(self, name: str) -> float:
        """Simulated against measured, 0.05 = 5 % too high."""
        return float(getattr(self.simulated, name) / getattr(self.measured, name) - 1.0)


@dataclass(frozen=True, slots=True)
class Ranking:
    """Plans by tokens per second, fastest first, for one number of sessions."""

    sessions: int
    measured: tuple[tuple[int, ...], ...]
    simulated: tuple[tuple[int, ...], ...]
    num_pairs: int  # pairs of plans that differ by more than 3 % as measured
    num_same: int  # of them in the same order as simulated


def median_errors(rows: Sequence[StagedRow]) -> dict[str, float]:
    """Median absolute error of each figure over rows that were predicted, not calibrated with."""
    predicted = [row for row in rows if not row.calibrated] or list(rows)
    return {name: _median([abs(row.error(name)) for row in predicted]) for name in _NAMES}


def rankings(rows: Sequence[StagedRow]) -> list[Ranking]:
    return [_ranking(n, [row for row in rows if row.sessions == n]) for n in sorted({row.sessions for row in rows})]


def staged_document(rows: Sequence[StagedRow], native: Figures, about: dict[str, Any]) -> dict[str, Any]:
    """Everything for scripts."""
    return {
        **about,
        "native": asdict(native),
        "rows": [{**asdict(row), "errors": {name: row.error(name) for name in _NAMES}} for row in rows],
        "median_errors": median_errors(rows),
        "rankings": [asdict(ranking) for ranking in rankings(rows)],
    }


def _ranking(sessions: int, rows: Sequence[StagedRow]) -> Ranking:
    pairs = [(a, b) for i, a in enumerate(rows) for b in rows[i + 1 :]]
    apart = [(a, b) for a, b in pairs if abs(a.measured.tokens_per_s / b.measured.tokens_per_s - 1.0) > _APART]
    same = [_faster(a.measured, b.measured) == _faster(a.simulated, b.simulated) for a, b in apart]
    order = {side: sorted(rows, key=lambda r: -getattr(r, side).tokens_per_s) for side in ("measured", "simulated")}
    by = {side: tuple(row.layers for row in ordered) for side, ordered in order.items()}
    return Ranking(sessions, by["measured"], by["simulated"], len(apart), sum(same))


def _faster(a: Figures, b: Figures) -> bool:
    return a.tokens_per_s > b.tokens_per_s


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
