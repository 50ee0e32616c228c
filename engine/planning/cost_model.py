"""Placeholder shape; see below."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ItemLaw:
    """The law of one item in one phase: `coefficients_s[k]` times the k-th term of the phase (see `terms`)."""

    item: int
    phase: str
    coefficients_s: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class FitError:
    """How far the model's whole steps are from measured ones: relative errors, 0.05 is 5 %."""

    phase: str
    held_out: bool  # measured at points that the fit did not see
    num_points: int
    median: float
    worst: float


@dataclass(frozen=True, slots=True)
class CostModel:
    """`time(item, phase, tokens, context, batch)` of one model on one machine."""

    laws: tuple[ItemLaw, ...]
    errors: tuple[FitError, ...] = ()
