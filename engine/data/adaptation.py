"""What adaptation decided and what became of it: nouns that the control service, the wire and the client share."""

from __future__ import annotations

from dataclasses import dataclass

from engine.data.plan import Stage


@dataclass(frozen=True, slots=True)
class AdaptationEntry:
    """One decision. Times are seconds per step of the pipeline; `realised_s` and `realised_pause_s` are None until measured."""

    decision_id: int
    age_s: float
    verdict: str
    sentence: str
    outcome: str
    before_s: float
    predicted_s: float
    cost_s: float
    realised_s: float | None
    realised_pause_s: float | None
    stages: tuple[Stage, ...] = ()  # what it moves to; empty if it moves nothing
    for_version: int = 0  # of the plan that it was decided for; an offer lapses with that plan


@dataclass(frozen=True, slots=True)
class AdaptationStatus:
    """The mode (off, suggest or auto) and the last decisions, oldest first."""

    mode: str
    history: tuple[AdaptationEntry, ...]
