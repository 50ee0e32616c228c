"""A stage that can be put at any operating point and take a step there.

To stand at a context, a session's buffers are filled with random keys and values: their contents do not
change the time of a step, and computing them by prefill would take minutes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

import torch

from engine.model.running.kv import LayerShape
from engine.model.running.stage import StageModel
from engine.profile.point import Point

Step = Callable[[], Any]


class StandingStage:
    """Sessions of one stage, one for each row of the largest step."""

    def __init__(self, stage: StageModel) -> None:
        self.stage = stage
        self._random = random.Random(0)
        self._history: dict[LayerShape, tuple[torch.Tensor, torch.Tensor]] = {}

    def fits(self, point: Point) -> bool:
        """Whether the KV of its sessions takes no more than half of what there is."""
        needed_bytes = point.batch * (point.context + point.tokens) * self.stage.kv.bytes_per_token
        return point.context + point.tokens <= self.stage.context_tokens and needed_bytes <= self.stage.kv.budget_bytes // 2

    def reserve(self, points: Iterable[Point]) -> None:
        """Open the sessions that the points need and fill them once, so that no step has to make its buffers larger."""
        lengths: dict[int, int] = {}
        for point in points:
            for row in range(point.batch):
                lengths[row] = max(lengths.get(row, 0), point.context + point.tokens)
        for row, length in lengths.items():
            self.stage.close(_session(row))
            self.stage.open(_session(row), length)
            self._go_to(_session(row), length)

    def step_at(self, point: Point) -> Step:
        """Go to the point, and return its step, which may be taken once. Other tokens each time, so that a mixture of experts does not
        stay on warm ones."""
        rows = [(_session(row), self._token_ids(point.tokens)) for row in range(point.batch)]
        for session, _ in rows:
            self._go_to(session, point.context)
        num_tokens = point.batch * point.tokens
        hidden = None if self.stage.is_first else torch.randn(num_tokens, self.stage.hidden_size).to(self.stage.device, self.stage.dtype)
        return lambda: self.stage.forward(rows, hidden)

    def _token_ids(self, num_tokens: int) -> list[int]:
        return [self._random.randrange(self.stage.vocab_size) for _ in range(num_tokens)]

    def _go_to(self, session: str, length: int) -> None:
        kv = self.stage.kv
        held = kv.length(session)
        if held > length:
            kv.truncate(session, length)
        elif held < length:
            for layer in kv.layers:
                keys, values = self._made_up(layer, length - held)
                kv.import_block(session, layer, held, keys, values)

    def _made_up(self, layer: int, num_tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys [H, n, K] and values [H, n, V] of a plausible size, as they are kept; layers of one shape share them."""
        kv, device, dtype = self.stage.kv, self.stage.device, self.stage.dtype
        shape = kv.layers[layer]
        if shape not in self._history or self._history[shape][0].shape[1] < num_tokens:
            keys = torch.randn(shape.num_key_heads, num_tokens, shape.key_size, device=device).to(dtype)
            values = torch.randn(shape.num_value_heads, num_tokens, shape.value_size, device=device).to(dtype)
            self._history[shape] = kv.format.to_kept(keys), kv.format.to_kept(values)
        keys, values = self._history[shape]
        return keys[:, :num_tokens], values[:, :num_tokens]


def _session(row: int) -> str:
    return f"profile-{row}"
