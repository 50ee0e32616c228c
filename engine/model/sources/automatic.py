"""What `--dtype auto` stands for on one device of this machine, for commands that need no cluster."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from engine.data.errors import InvalidInput, NotSupported
from engine.data.model import ModelRef
from engine.data.precision import AUTO, automatic_dtype
from engine.model.hardware.limits import cpu_memory_bytes
from engine.model.progress import Progress
from engine.model.sources.card import prepare_choices


def decided(ref: ModelRef, cache_dir: Path, *, device: str = "cpu", on_progress: Progress | None = None) -> ModelRef:
    """`ref` with a dtype that is none but `auto`. Raises what `prepare` raises, but for a model that is no decoder: that is float32."""
    if ref.dtype != AUTO:
        return ref
    try:
        cards = {card.ref.dtype: card for card in prepare_choices(ref, cache_dir, on_progress, to_load=False)}
    except (NotSupported, InvalidInput):
        return replace(ref, dtype="float32")  # whoever loads it says why it cannot be, or takes it as it is
    dtype, _ = automatic_dtype(
        cards["float32"].stored_dtype,
        {device.partition(":")[0]},
        lambda dtype: dtype in cards and _computes(device, dtype),
        lambda dtype: dtype in cards and cards[dtype].precision.weight_bytes < _free_bytes(device),
    )
    return replace(ref, dtype=dtype)


def _computes(device: str, dtype: str) -> bool:
    from engine.model.hardware.probes import probe

    return probe(device, dtype).works


def _free_bytes(device: str) -> int:
    if device == "cpu":
        return cpu_memory_bytes()[1]
    import torch

    return torch.cuda.mem_get_info(torch.device(device))[0]
