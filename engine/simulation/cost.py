"""What a step costs on a stage: from a profile's laws, or from the item times that workers measure when they join.

A step is seen as its segments are, whatever scheduler made them: so many packed new tokens, so many (query, key) pairs
for attention, and whether all of its segments are single tokens, as in decode.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from engine.data.errors import InvalidInput
from engine.data.generation import Segment
from engine.profile.cost_model import CostModel, work_s
from engine.profile.point import DECODE, PREFILL


@dataclass(frozen=True, slots=True)
class StepShape:
    """`decode_*` counts segments of one token, `prompt_*` the longer ones; `num_behind` of these continue a prompt."""

    decode_tokens: int
    prompt_tokens: int
    decode_pairs: int
    prompt_pairs: int
    num_prompts: int = 1  # segments that the prompt tokens are in; nothing without prompt tokens
    num_behind: int = 0

    @property
    def num_tokens(self) -> int:
        return self.decode_tokens + self.prompt_tokens

    @property
    def num_rows(self) -> int:
        """Segments: the head looks at the last token of each."""
        return self.decode_tokens + (self.num_prompts if self.prompt_tokens else 0)


def shape_of(segments: Iterable[Segment]) -> StepShape:
    """A segment of n tokens behind p others visits n * p + n (n + 1) / 2 pairs."""
    decode_tokens = prompt_tokens = decode_pairs = prompt_pairs = num_prompts = num_behind = 0
    for segment in segments:
        n, position = len(segment.token_ids), segment.position
        if n == 1:
            decode_tokens += 1
            decode_pairs += position + 1
        else:
            prompt_tokens += n
            prompt_pairs += n * position + n * (n + 1) // 2
            num_prompts += 1
            num_behind += position > 0
    return StepShape(decode_tokens, prompt_tokens, decode_pairs, prompt_pairs, num_prompts, num_behind)


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
    the pairs of its single tokens at the decode laws' price. Every chunk that continues a prompt needs its own mask. A prompt
    was profiled alone, where the head sees one row; in a packed step it sees one per segment, as in decode.
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
        behind_s = math.fsum(law.behind_s for law in prefill.items[start:stop])
        known: dict[tuple[bool, int, int], float] = {}

        def packed_s(is_prompt: bool, num_tokens: int, num_rows: int) -> float:
            laws = prefill if is_prompt else decode
            weights_s = math.fsum(work_s(law.work_s, laws.num_tokens, num_tokens) for law in laws.items[start:stop])
            return weights_s + (self._more_rows_s(num_tokens, num_rows) if is_prompt and stop == self.num_items else 0.0)

        def step_s(shape: StepShape) -> float:
            key = shape.prompt_tokens > 0, shape.num_tokens, shape.num_rows
            fixed_s = known.get(key)
            if fixed_s is None:
                fixed_s = known[key] = packed_s(*key)
            pairs_s = decode_pair_s * shape.decode_pairs + prefill_pair_s * shape.prompt_pairs
            return fixed_s + pairs_s + behind_s * shape.num_behind

        return step_s

    def _more_rows_s(self, num_tokens: int, num_rows: int) -> float:
        """What the head of a step with prompts costs beyond the profile's, which had one row, or all tokens in some models."""
        decode, prefill = self._model.laws(DECODE), self._model.laws(PREFILL)
        one_s, rows_s = (work_s(decode.items[-1].work_s, decode.num_tokens, n) for n in (1, num_rows))
        return max(0.0, rows_s - max(one_s, work_s(prefill.items[-1].work_s, prefill.num_tokens, num_tokens)))


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
