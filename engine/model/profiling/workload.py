"""What a profile runs: a model that can be put at any operating point and take one step there.

A decoder runs as the engine runs it, a `StageModel` of all items with real KV buffers, so that the figures are those of
serving. To stand at a context, a session's buffers are filled with random keys and values: their contents do not
change the time of a step, and computing them by prefill would take minutes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from engine.data.errors import InvalidInput, NotSupported
from engine.data.model import ModelCard, ModelRef
from engine.folders import cache_folder
from engine.model.configuration import UnsupportedFamily
from engine.model.hardware.limits import cpu_memory_bytes
from engine.model.progress import Progress
from engine.model.running.accelerator.acceleration import UNCHANGED
from engine.model.running.kv import LayerShape
from engine.model.running.stage import StageModel
from engine.model.sources.card import describe_weights, prepare
from engine.model.sources.source import resolve
from engine.model.weights.weight_folder import ConfigOnly
from engine.profile.point import PREFILL, Point
from engine.profile.points import PointPlan, causal_points

Step = Callable[[], Any]


class Workload(Protocol):
    """A loaded model, its chain, and steps at points."""

    @property
    def model(self) -> nn.Module: ...

    blocks: str  # path of the block list
    device: str
    dtype: torch.dtype
    card: ModelCard

    def points(self, most_prefill_tokens: int, *, quick: bool) -> PointPlan: ...
    def probe_point(self, tokens: int) -> Point: ...
    def reserve(self, points: Iterable[Point]) -> None: ...
    def step_at(self, point: Point) -> Step:
        """Go to the point, untimed, and return the step to time; it may be taken once."""
        ...


def load_workload(ref: ModelRef, *, cache_dir: Path | None = None, device: str = "cpu", on_progress: Progress | None = None) -> Workload:
    """The model of `ref`: as a decoder if the engine can serve it, else forward only (encoders, recurrent models).

    Raises what `prepare` and loading raise; InvalidInput and NotSupported name the model.
    """
    from engine.model.profiling.encoder import EncoderWorkload

    cache_dir = cache_dir or cache_folder()
    try:
        card = prepare(ref, cache_dir, on_progress)
    except (NotSupported, InvalidInput) as error:
        if ref.random_weights is not None:
            return EncoderWorkload.random(ref, device=device)
        if not isinstance(error, UnsupportedFamily):
            raise
        return EncoderWorkload.load(resolve(ref, cache_dir=cache_dir, on_progress=on_progress), ref, device=device)
    return CausalWorkload.load(card, device=device, on_progress=on_progress)


class CausalWorkload:
    """All items of a decoder in one stage."""

    def __init__(self, stage: StageModel, card: ModelCard) -> None:
        self.card, self.device, self.dtype = card, stage.device, stage.dtype
        self.model, self.blocks = stage.module, stage.blocks
        self._stage = stage
        self._random = random.Random(0)
        self._history: dict[LayerShape, tuple[torch.Tensor, torch.Tensor]] = {}

    @classmethod
    def load(cls, card: ModelCard, *, device: str, on_progress: Progress | None = None) -> CausalWorkload:
        """Read the whole model. Raises what `StageModel.load` raises."""
        folder, budget_bytes = Path(card.folder), _free_bytes(device) // 2
        stage = StageModel.load(
            folder,
            0,
            card.num_items,
            dtype=card.ref.dtype,
            kv_dtype=card.ref.kv_dtype,
            device=device,
            kv_budget_bytes=budget_bytes,
            on_progress=on_progress,
            acceleration=UNCHANGED,  # hooks see every module
        )
        return cls(stage, card)

    @classmethod
    def made_up(cls, folder: Path, ref: ModelRef, *, device: str) -> CausalWorkload:
        """The model that a folder's config.json describes, with made-up weights: as fast as the real one, and nothing is read."""
        weights = ConfigOnly(folder)
        card = describe_weights(weights, ref)
        stage = StageModel.synthetic(
            weights.config,
            0,
            card.num_items,
            dtype=ref.dtype,
            kv_dtype=ref.kv_dtype,
            device=device,
            kv_budget_bytes=_free_bytes(device) // 2,
            acceleration=UNCHANGED,
        )
        return cls(stage, card)

    def points(self, most_prefill_tokens: int, *, quick: bool) -> PointPlan:
        plan = causal_points(self._stage.context_tokens, most_prefill_tokens=most_prefill_tokens, quick=quick)
        return PointPlan(tuple(filter(self._fits, plan.learn)), tuple(filter(self._fits, plan.held_out)))

    def probe_point(self, tokens: int) -> Point:
        return Point(PREFILL, min(tokens, self._stage.context_tokens), 0, 1)

    def reserve(self, points: Iterable[Point]) -> None:
        """Open the sessions that the points need and fill them once, so that no step has to make its buffers larger."""
        lengths: dict[int, int] = {}
        for point in points:
            for row in range(point.batch):
                lengths[row] = max(lengths.get(row, 0), point.context + point.tokens)
        for row, length in lengths.items():
            self._stage.close(_session(row))
            self._stage.open(_session(row), length)
            self._go_to(_session(row), length)

    def step_at(self, point: Point) -> Step:
        rows = [(_session(row), self._token_ids(point.tokens)) for row in range(point.batch)]
        for session, _ in rows:
            self._go_to(session, point.context)
        return lambda: self._stage.forward(rows, None)

    def _fits(self, point: Point) -> bool:
        """Whether the KV of its sessions takes no more than half of what there is."""
        needed_bytes = point.batch * (point.context + point.tokens) * self._stage.kv.bytes_per_token
        return point.context + point.tokens <= self._stage.context_tokens and needed_bytes <= self._stage.kv.budget_bytes // 2

    def _token_ids(self, num_tokens: int) -> list[int]:
        return [self._random.randrange(self._stage.vocab_size) for _ in range(num_tokens)]

    def _go_to(self, session: str, length: int) -> None:
        kv = self._stage.kv
        held = kv.length(session)
        if held > length:
            kv.truncate(session, length)
        elif held < length:
            for layer in kv.layers:
                keys, values = self._made_up(layer, length - held)
                kv.import_block(session, layer, held, keys, values)

    def _made_up(self, layer: int, num_tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys [H, n, K] and values [H, n, V] of a plausible size, as they are kept; layers of one shape share them."""
        shape = self._stage.kv.layers[layer]
        if shape not in self._history or self._history[shape][0].shape[1] < num_tokens:
            keys = torch.randn(shape.num_key_heads, num_tokens, shape.key_size, device=self.device).to(self.dtype)
            values = torch.randn(shape.num_value_heads, num_tokens, shape.value_size, device=self.device).to(self.dtype)
            form = self._stage.kv.format
            self._history[shape] = form.to_kept(keys), form.to_kept(values)
        keys, values = self._history[shape]
        return keys[:, :num_tokens], values[:, :num_tokens]


def _free_bytes(device: str) -> int:
    return cpu_memory_bytes()[1] if device == "cpu" else torch.cuda.mem_get_info(torch.device(device))[0]


def _session(row: int) -> str:
    return f"profile-{row}"
