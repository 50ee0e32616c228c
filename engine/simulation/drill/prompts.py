"""The prompts of a drill: new ones, and those that begin as an earlier session did. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from engine.simulation.drill.coordinator import Session
from engine.simulation.drill.model import VOCABULARY
from engine.simulation.drill.world import Generator

LONGEST_PROMPT = 12


def any_prompt(earlier: Sequence[Session], generator: Generator) -> tuple[int, ...]:
    """Mostly one that goes on from some token of an earlier session, if there is one, or from the prompt of one that still runs."""
    known: list[int] = []
    running = [one for one in earlier if one.ended is None]
    if running and generator.random() < 0.5:
        known = [*running[generator.randrange(len(running))].prompt_ids[: LONGEST_PROMPT - 1]]
    elif earlier and generator.random() < 0.7:
        one = earlier[generator.randrange(len(earlier))]
        known = [*one.prompt_ids, *one.tokens][: generator.randrange(LONGEST_PROMPT)]
    num_new = 1 + generator.randrange(LONGEST_PROMPT - len(known))
    return (*known, *(generator.randrange(VOCABULARY) for _ in range(num_new)))
