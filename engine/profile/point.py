"""An operating point: what one step of a model does. Profiles measure at points, cost models predict at them."""

from __future__ import annotations

from dataclasses import dataclass

from engine.data.errors import InvalidInput

PREFILL = "prefill"  # new tokens of a prompt, nothing or a prompt's earlier part in the KV
DECODE = "decode"  # one new token per session
FORWARD = "forward"  # an encoder's only phase: all tokens at once, no KV
PHASES = (PREFILL, DECODE, FORWARD)


@dataclass(frozen=True, slots=True, order=True)
class Point:
    """One step: `batch` sessions, each with `tokens` new tokens behind the `context` tokens that its KV holds."""

    phase: str
    tokens: int
    context: int
    batch: int

    def __post_init__(self) -> None:
        if self.phase not in PHASES:
            raise InvalidInput(f"phase {self.phase!r} is not known: use {', '.join(PHASES)}")
        if self.tokens < 1 or self.context < 0 or self.batch < 1:
            raise InvalidInput(f"point {self} is not possible: tokens and batch are at least 1, context at least 0")

    @property
    def label(self) -> str:
        """For people: `decode ctx 256 x4`, `prefill 128`."""
        times = f" x{self.batch}" if self.batch > 1 else ""
        if self.phase == DECODE:
            return f"decode ctx {self.context}{times}"
        behind = f" behind {self.context}" if self.context else ""
        return f"{self.phase} {self.tokens}{behind}{times}"
