"""What a profile runs: a model that can be put at any operating point and take one step there.

A decoder runs as the engine runs it, a `StageModel` of all items with real KV buffers, so that the figures are those of
serving. On an accelerator hooks see neither fused blocks nor recorded steps, so what is served there is timed once more, without them.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from torch import nn

from engine.data.errors import InvalidInput, NotSupported
from engine.data.model import ModelCard, ModelRef
from engine.folders import cache_folder
from engine.model.configuration import UnsupportedFamily
from engine.model.hardware.limits import cpu_memory_bytes
from engine.model.profiling.kinds import Running
from engine.model.profiling.served import Served, served_plan
from engine.model.profiling.standing import StandingStage, Step
from engine.model.progress import Progress
from engine.model.running.accelerator.acceleration import UNCHANGED, CaptureLimits
from engine.model.running.accelerator.graphs import BUCKETS
from engine.model.running.stage import StageModel
from engine.model.sources.card import describe_weights, prepare
from engine.model.sources.source import resolve
from engine.model.weights.weight_folder import ConfigOnly, WeightFolder
from engine.profile.point import PREFILL, Point
from engine.profile.points import PointPlan, causal_points, recorded_points

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


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

    def served(self, most_prefill_tokens: int, *, quick: bool, on_progress: Progress | None) -> Served:
        """Steps as they are served, where that differs from what hooks see; else nothing."""
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

    def __init__(self, stage: StageModel, card: ModelCard, config: PreTrainedConfig) -> None:
        self.card, self.device, self.dtype = card, stage.device, stage.dtype
        self.model, self.blocks = stage.module, stage.blocks
        self._stage, self._standing, self._config = stage, StandingStage(stage), config

    @classmethod
    def load(cls, card: ModelCard, *, device: str, on_progress: Progress | None = None) -> CausalWorkload:
        """Read the whole model. Raises what `StageModel.load` raises."""
        weights, budget_bytes = WeightFolder(Path(card.folder)), _free_bytes(device) // 2
        stage = StageModel.load(
            weights,
            0,
            card.num_items,
            dtype=card.ref.dtype,
            kv_dtype=card.ref.kv_dtype,
            device=device,
            kv_budget_bytes=budget_bytes,
            on_progress=on_progress,
            acceleration=UNCHANGED,  # hooks see every module
        )
        return cls(stage, card, weights.config)

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
        return cls(stage, card, weights.config)

    def points(self, most_prefill_tokens: int, *, quick: bool) -> PointPlan:
        return self._fitting(causal_points(self._stage.context_tokens, most_prefill_tokens=most_prefill_tokens, quick=quick))

    def probe_point(self, tokens: int) -> Point:
        return Point(PREFILL, min(tokens, self._stage.context_tokens), 0, 1)

    def reserve(self, points: Iterable[Point]) -> None:
        self._standing.reserve(points)

    def step_at(self, point: Point) -> Step:
        return self._standing.step_at(point)

    def served(self, most_prefill_tokens: int, *, quick: bool, on_progress: Progress | None) -> Served:
        if self.device == "cpu":
            return Served()
        sizes = [size for size in BUCKETS if size <= CaptureLimits().max_rows]
        plan = recorded_points(self._stage.context_tokens, sizes, most_prefill_tokens=most_prefill_tokens, quick=quick)
        running = Running(self.card.ref.dtype, self.device, self.card.ref.kv_dtype)
        return served_plan(self._config, running, plan, on_progress)

    def _fitting(self, plan: PointPlan) -> PointPlan:
        return PointPlan(tuple(filter(self._standing.fits, plan.learn)), tuple(filter(self._standing.fits, plan.held_out)))


def _free_bytes(device: str) -> int:
    return cpu_memory_bytes()[1] if device == "cpu" else torch.cuda.mem_get_info(torch.device(device))[0]
