"""How a seed of the drill ended."""

from __future__ import annotations

from dataclasses import dataclass

MOST_GIVEN_UP, FEW_GIVEN_UP = 0.01, 3  # of all sessions; and whatever their number


@dataclass(frozen=True, slots=True)
class DrillResult:
    """How one seed ended. `trace` is equal for equal histories."""

    seed: int
    num_tokens: int
    num_faults: int
    num_sessions: int
    num_failed: int  # sessions that ended with a clear error, which only the safety phase may cause
    num_given_up: int  # those of them that failed too often; the disk failed for the others
    num_plans: int
    num_moves: int
    trace: int


def too_many_given_up(num_given_up: int, num_sessions: int) -> str:
    """Giving up ends a session as it should, so no seed tells that it became a habit: many seeds together do. Empty if it did not."""
    most = FEW_GIVEN_UP + int(MOST_GIVEN_UP * num_sessions)
    return f"{num_given_up} of {num_sessions} sessions were given up, {most} may be" if num_given_up > most else ""


class DrillFailure(AssertionError):
    """What must never happen happened; the message names the seed."""
