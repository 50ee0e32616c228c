"""How many prompt tokens make a chunk of a given time. Pure; learnt from the steps that carried prompts.

    time(step with a chunk) = time(step without) + token_s * tokens + pair_s * pairs
    pairs = tokens * context + tokens * (tokens + 1) / 2

A step reads the weights whatever it carries, so a chunk costs what its step takes beyond a decode step. Chunks of equal time
shrink as the context grows, so a prompt of any length delays the others by the same amount. The first step of a plan is not
learnt from: kernels are chosen and memory is touched for the first time, and it takes many times what later ones do.
"""

from __future__ import annotations

import math
from collections import deque

from engine.profile.least_squares import non_negative

WINDOW_STEPS = 32
MIN_TOKENS = 8
MIN_SHARE = 0.2  # of a step that its chunk is held to cost at least: decode steps vary


class ChunkRule:
    """Least squares over the last steps with prompt tokens in them; both costs are never negative."""

    def __init__(self) -> None:
        self._steps: deque[tuple[float, float, float]] = deque(maxlen=WINDOW_STEPS)  # tokens, pairs, seconds
        self._decode_s: deque[float] = deque(maxlen=WINDOW_STEPS)
        self._laws: tuple[float, float] | None = None
        self._is_cold = True

    def forget(self) -> None:
        """Another plan: what was measured describes other stages."""
        self._steps.clear()
        self._decode_s.clear()
        self._laws, self._is_cold = None, True

    def observe_decode(self, spent_s: float) -> None:
        """One step without prompt tokens, summed over the stages."""
        self._decode_s.append(spent_s)

    def observe(self, num_tokens: int, num_pairs: float, spent_s: float) -> None:
        """One step with `num_tokens` prompt tokens, summed over the stages; too few say nothing about a prompt's cost."""
        was_cold, self._is_cold = self._is_cold, False
        if num_tokens >= MIN_TOKENS and spent_s > 0 and not was_cold:
            decode_s = sorted(self._decode_s)[len(self._decode_s) // 2] if self._decode_s else 0.0
            self._steps.append((float(num_tokens), num_pairs, max(spent_s - decode_s, MIN_SHARE * spent_s)))
            self._laws = None

    def chunk_tokens(self, context: int, target_s: float, unknown_tokens: int, max_tokens: int) -> int:
        """The largest chunk behind `context` tokens that is expected to take `target_s`, within [MIN_TOKENS, max_tokens]."""
        if not self._steps:
            return min(unknown_tokens, max_tokens)
        token_s, pair_s = self._laws = self._laws or _fit(self._steps)
        linear_s = token_s + pair_s * (context + 0.5)
        tokens = 2 * target_s / (linear_s + math.sqrt(linear_s * linear_s + 2 * pair_s * target_s))  # of the quadratic; stable for pair_s 0
        return max(MIN_TOKENS, min(int(tokens), max_tokens))


def num_pairs(num_tokens: int, context: int) -> float:
    """(query, key) pairs that `num_tokens` new tokens behind `context` others visit."""
    return num_tokens * context + num_tokens * (num_tokens + 1) / 2


def _fit(steps: deque[tuple[float, float, float]]) -> tuple[float, float]:
    """(token_s, pair_s)"""
    token_s, pair_s = non_negative([(tokens, pairs) for tokens, pairs, _ in steps], [spent_s for *_, spent_s in steps])
    return token_s, pair_s
