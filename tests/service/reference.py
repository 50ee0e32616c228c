"""Single-process `generate()`: what every cluster must reproduce, token by token."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from engine.data.model import ModelRef
from engine.model.profiling.native import native_generator
from engine.model.sources.card import prepare
from engine.model.sources.source import default_cache_dir


@cache
def folder_of(model: str, seed: int = 0) -> Path:
    return Path(prepare(ModelRef(model, seed), default_cache_dir()).folder)


@cache
def _generator(folder: Path) -> object:
    return native_generator(folder, dtype="float32", num_threads=1)


def reference(model: str, prompt_ids: Sequence[int], num_tokens: int) -> list[int]:
    """Greedy tokens of one prompt, exactly `num_tokens` of them."""
    generate = _generator(folder_of(model))
    return generate(prompt_ids, num_tokens)[0]  # type: ignore[operator]
