"""What is served: how many sessions decode together, and behind how many tokens each. Pure.

A plan is made for a load, and a plan that changes with every session that comes or goes would be worse than any. So the load is looked
at over a window of seconds in which something was served, and it changes only when three quarters of that window lie beyond
what is known by half (sessions) or twice (contexts). While nothing is served the last load stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.control.sessions.session import Session
from engine.control.sessions.window import Window, quantile

SEEN_S = 30.0
LEAST_SHARE = 0.5  # of the window, before it says anything
SESSIONS_FACTOR, CONTEXT_FACTOR = 1.5, 2.0
LEAST_CONTEXT = 16  # where workers measure


@dataclass(frozen=True, slots=True)
class Load:
    """Sessions that decode together, with so many tokens of keys and values each."""

    sessions: int = 1
    context_tokens: int = LEAST_CONTEXT

    def __str__(self) -> str:
        return f"{self.sessions} session{'' if self.sessions == 1 else 's'} behind {self.context_tokens} tokens each"


class ServedLoad:
    """Look at the sessions at every tick; `load` is what plans are made for."""

    def __init__(self) -> None:
        self.load = Load()
        self._seen: Window[tuple[int, float]] = Window(SEEN_S)
        self._first_s: float | None = None  # of the window's oldest look

    def look(self, running: Sequence[Session], now_s: float) -> None:
        """At `now_s` these sessions run."""
        decoding = [session for session in running if session.is_decoding]
        self._seen.forget_old(now_s)
        if not len(self._seen):
            self._first_s = None
        if not decoding:
            return
        self._first_s = now_s if self._first_s is None else max(self._first_s, now_s - SEEN_S)
        self._seen.add((len(decoding), sum(s.num_landed for s in decoding) / len(decoding)), now_s)
        if now_s - self._first_s < LEAST_SHARE * SEEN_S:
            return
        sessions = _followed([float(count) for count, _ in self._seen], self.load.sessions, SESSIONS_FACTOR)
        context = _followed([tokens for _, tokens in self._seen], self.load.context_tokens, CONTEXT_FACTOR)
        self.load = Load(max(1, sessions), max(LEAST_CONTEXT, context))


def _followed(seen: list[float], known: int, factor: float) -> int:
    """The middle of what was seen, once three quarters of it are beyond `known` by the factor; else what is known."""
    is_beyond = quantile(seen, 0.25) >= factor * known or quantile(seen, 0.75) <= known / factor
    return round(quantile(seen, 0.5)) if is_beyond else known
