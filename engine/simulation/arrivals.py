"""When sessions come and how long they are. Randomness is a generator that the caller seeded."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from engine.data.errors import InvalidInput

MAX_SESSIONS = 1_000_000
MAX_TOKENS = 1_000_000  # of one session


@dataclass(frozen=True, slots=True, order=True)
class Arrival:
    """One session: submitted at `arrival_s`, with a prompt, generating exactly `new_tokens`."""

    arrival_s: float
    prompt_tokens: int
    new_tokens: int

    def __post_init__(self) -> None:
        if not (math.isfinite(self.arrival_s) and self.arrival_s >= 0):
            raise InvalidInput(f"a session cannot arrive at {self.arrival_s} s: give 0 or more seconds")
        if not (1 <= self.prompt_tokens <= MAX_TOKENS and 1 <= self.new_tokens <= MAX_TOKENS):
            raise InvalidInput(
                f"a session of {self.prompt_tokens} prompt and {self.new_tokens} new tokens is not allowed: "
                f"each must lie in [1, {MAX_TOKENS}]"
            )


class Generator(Protocol):
    """What `random.Random(seed)` offers of what is needed here."""

    def expovariate(self, lambd: float, /) -> float: ...


def at_once(num_sessions: int, prompt_tokens: int, new_tokens: int) -> tuple[Arrival, ...]:
    """All sessions at the start."""
    return (Arrival(0.0, prompt_tokens, new_tokens),) * _checked(num_sessions)


def poisson(num_sessions: int, per_s: float, prompt_tokens: int, new_tokens: int, generator: Generator) -> tuple[Arrival, ...]:
    """A Poisson process: independent exponential gaps with `per_s` sessions a second on average."""
    if not (math.isfinite(per_s) and per_s > 0):
        raise InvalidInput(f"{per_s} sessions a second are not allowed: give a rate above 0")
    at_s, found = 0.0, []
    for _ in range(_checked(num_sessions)):
        at_s += generator.expovariate(per_s)
        found.append(Arrival(at_s, prompt_tokens, new_tokens))
    return tuple(found)


def trace(rows: Iterable[tuple[float, int, int]]) -> tuple[Arrival, ...]:
    """Recorded sessions (arrival_s, prompt_tokens, new_tokens) in any order; the first of them arrives at its own time."""
    found = tuple(sorted(Arrival(*row) for row in rows))
    _checked(len(found))
    return found


def _checked(num_sessions: int) -> int:
    if not 1 <= num_sessions <= MAX_SESSIONS:
        raise InvalidInput(f"{num_sessions} sessions are not allowed: simulate 1 to {MAX_SESSIONS}")
    return num_sessions
