"""What a step costs on a stage: from a profile's laws, or from the item times that workers measure when they join.

A step is seen as its segments are, whatever scheduler made them: so many packed new tokens, so many (query, key) pairs
for attention, and whether all of its segments are single tokens, as in decode.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from engine.data import InvalidInput, Segment
from engine.planning.cost_model import CostModel, work_s
from engine.planning.point import DECODE, PREFILL


@dataclass(frozen=True, slots=True)
class StepShape:
    """`decode_*` counts segments of one token, `prompt_*` the longer ones."""

    decode_tokens: int
    prompt_tokens: int
    decode_pairs: int
    prompt_pairs: int

    @property
    def num_tokens(self) -> int:
        return self.decode_tokens + self.prompt_tokens


def shape_of(segments: Iterable[Segment]) -> StepShape:
    """A segment of n tokens behind p others visits n * p + n (n + 1) / 2 pairs."""
    decode_tokens = prompt_tokens = decode_pairs = prompt_pairs = 0
    for segment in segments:
        n, position = len(segment.token_ids), segment.position
        if n == 1:
            decode_tokens += 1
            decode_pairs += position + 1
        else:
            prompt_tokens += n
            prompt_pairs += n * position + n * (n + 1) // 2
    return StepShape(decode_tokens, prompt_tokens, decode_pairs, prompt_pairs)


StageCost = Callable[[StepShape], float]


class CostSource(Protocol):
    """Where the times come from; both sources below are for a node with no slowdown."""

    @property
    def num_items(self) -> int: ...

    def decode_s(self) -> tuple[float, ...]:
        """Seconds per item of one decode step with a short context, as a worker would measure them."""
        ...

    def stage(self, start: int, stop: int) -> StageCost:
        """Seconds of items [start, stop) as a function of the step."""
        ...


class ProfileCosts:
    """The laws that were fitted to a profile.

    A step of single tokens follows the decode laws; one with prompt tokens the prefill laws at all its packed tokens, with
    the pairs of its single tokens at the decode laws' price.
    """

    def __init__(self, model: CostModel) -> None:
        phases = {laws.phase for laws in model.phases}
        if not {DECODE, PREFILL} <= phases:
            has = ", ".join(sorted(phases))
            raise InvalidInput(f"the profile has the phases {has}, a simulation needs prefill and decode: profile a decoder")
        self._model = model

    @property
    def num_items(self) -> int:
        return self._model.num_items

    def decode_s(self) -> tuple[float, ...]:
        return tuple(self._model.time_s(item, DECODE, 1, 16, 1) for item in range(self.num_items))

    def stage(self, start: int, stop: int) -> StageCost:
        decode, prefill = self._model.laws(DECODE), self._model.laws(PREFILL)
        decode_pair_s = math.fsum(law.pair_s for law in decode.items[start:stop])
        prefill_pair_s = math.fsum(law.pair_s for law in prefill.items[start:stop])
        known: dict[tuple[bool, int], float] = {}

        def step_s(shape: StepShape) -> float:
            key = shape.prompt_tokens > 0, shape.num_tokens
            fixed_s = known.get(key)
            if fixed_s is None:
                laws = prefill if key[0] else decode
                fixed_s = known[key] = math.fsum(work_s(law.work_s, laws.num_tokens, key[1]) for law in laws.items[start:stop])
            return fixed_s + decode_pair_s * shape.decode_pairs + prefill_pair_s * shape.prompt_pairs

        return step_s


@dataclass(frozen=True, slots=True)
class ItemTimes:
    """Nothing but each item's time for one token: what a worker measures. Every further token of a step costs the share
    `extra_token_share` of the first, for the weights are read once; this is an assumption, not a measurement."""

    item_s: tuple[float, ...]
    extra_token_share: float

    def __post_init__(self) -> None:
        if not self.item_s or not all(math.isfinite(t) and t >= 0 for t in self.item_s):
            raise InvalidInput("item times must be 1 or more finite numbers of 0 or more seconds")
        if not 0.0 <= self.extra_token_share <= 1.0:
            raise InvalidInput(f"a further token cannot cost {self.extra_token_share} of the first: give a share from 0 to 1")

    @property
    def num_items(self) -> int:
        return len(self.item_s)

    def decode_s(self) -> tuple[float, ...]:
        return self.item_s

    def stage(self, start: int, stop: int) -> StageCost:
        one_s = math.fsum(self.item_s[start:stop])
        return lambda shape: one_s * (1.0 + self.extra_token_share * (shape.num_tokens - 1))
