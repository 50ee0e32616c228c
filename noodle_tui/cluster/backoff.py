"""How long to wait before the next attempt to reach the coordinator: 1 2 4 8 15 s, each with jitter."""

from __future__ import annotations

DELAYS_S = (1.0, 2.0, 4.0, 8.0, 15.0)
JITTER = 0.2  # share of the delay; many consoles must not return to a restarted coordinator in one instant


def delay_s(num_failures: int, chance: float) -> float:
    """The delay after `num_failures` (from 1) failed attempts; `chance` is uniform in [0, 1)."""
    base = DELAYS_S[min(max(num_failures, 1), len(DELAYS_S)) - 1]
    return base * (1 - JITTER / 2 + JITTER * chance)
