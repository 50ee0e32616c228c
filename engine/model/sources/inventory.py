"""What `noodle-engine models` lists: models that are here already, and architectures that can have random weights.

Reads configs and file sizes only; imports no torch, so a listing takes a fraction of a second.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.data.errors import NoodleError
from engine.data.model import ModelRef
from engine.model.families import REFUSED, TEXT_CLASSES, VERIFIED, WRAPPERS
from engine.model.sources import hub
from engine.model.sources.architectures import TINY
from engine.model.sources.source import check_folder

_RANDOM_FOLDER = re.compile(r"(?P<name>.+)\.(?P<size>tiny|full)\.seed-(?P<seed>\d+)\.(?P<dtype>\w+)\.v\d+")


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One model on this machine: what to type for it, and whether it can run."""

    model: str
    random_weights: int | None
    dtype: str  # of the stored weights; "" where the config does not say
    model_type: str
    size_bytes: int
    folder: str
    supported: bool
    reason: str  # why not, else empty

    @property
    def label(self) -> str:
        return ModelRef(self.model, self.random_weights).label


def list_models(cache_dir: Path) -> list[ModelEntry]:
    """Models with random weights in our cache, then those in the local hub cache, each in order of name."""
    return [*_random_models(cache_dir), *_hub_models()]


def list_architectures() -> list[str]:
    """Names that `--random-weights SEED` takes; each also as `NAME:tiny`."""
    return list(VERIFIED)


def _random_models(cache_dir: Path) -> Iterator[ModelEntry]:
    root = cache_dir / "random"
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        match = _RANDOM_FOLDER.fullmatch(folder.name)
        if match and folder.is_dir():
            model = match["name"] + (TINY if match["size"] == "tiny" else "")
            yield _entry(folder, model, int(match["seed"]))


def _hub_models() -> Iterator[ModelEntry]:
    root = hub.hub_cache_dir()
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        repo_id = hub.repo_id_of(folder.name)
        snapshot = hub.cached_snapshot(repo_id) if repo_id else None
        if repo_id and snapshot is not None:
            yield _entry(snapshot, repo_id, None)


def _entry(folder: Path, model: str, seed: int | None) -> ModelEntry:
    config: dict[str, Any] = {}
    try:
        config = check_folder(folder)
        reason = _refusal(config)
    except NoodleError as error:
        reason = str(error)
    return ModelEntry(
        model=model,
        random_weights=seed,
        dtype=str(config.get("dtype") or config.get("torch_dtype") or ""),
        model_type=str(config.get("model_type", "")),
        size_bytes=sum(path.stat().st_size for path in folder.glob("*.safetensors") if path.is_file()),
        folder=str(folder),
        supported=not reason,
        reason=reason,
    )


def _refusal(config: dict[str, Any]) -> str:
    """Why a config cannot run, by what can be told without building it; loading decides the rest."""
    model_type = config["model_type"]
    if model_type in (*VERIFIED, *WRAPPERS, *TEXT_CLASSES):
        return ""
    return REFUSED.get(model_type, f"model family {model_type!r} is not supported")
