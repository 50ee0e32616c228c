"""Reads a `profile.json` of `noodle-engine profile` for the Profile screen: the items, their layers, how far to trust them.

Only the fields that are shown are read, so profiles of later versions open too. Nothing of the engine is imported.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.data.errors import Corrupt, NoodleError, NotFound
from noodle_tui.safe_text import safe_text

MAX_FILE_BYTES = 256 * 2**20


@dataclass(frozen=True, slots=True, order=True)
class PointKey:
    """A point of the profile, with the fields and the order of `engine.profile.point.Point`."""

    phase: str
    tokens: int
    context: int
    batch: int

    @property
    def label(self) -> str:
        return f"{self.phase}  {self.batch} session{'s' if self.batch != 1 else ''}  {self.tokens} new tokens  context {self.context}"


@dataclass(frozen=True, slots=True)
class ItemTime:
    """One item at one point; `share` is of the whole step."""

    index: int
    name: str
    p50_s: float
    p95_s: float
    cv: float | None
    weight_bytes: int
    share: float


@dataclass(frozen=True, slots=True)
class LayerTime:
    """One hooked module at one point, with what limits it and why."""

    item: int | None
    name: str
    role: str
    self_s: float
    bound: str
    why: str


@dataclass(frozen=True, slots=True)
class PhaseView:
    """The reference point of one phase."""

    point: PointKey
    step_s: float
    items: tuple[ItemTime, ...]
    layers: tuple[LayerTime, ...]


@dataclass(frozen=True, slots=True)
class ProfileView:
    """What the Profile screen shows."""

    path: str
    model: str
    random_weights: bool
    device: str
    num_threads: int
    dtype: str
    host: str
    wall_s: float
    num_steps: int
    overhead: float
    coverage: float
    noise_cv: float | None
    doubt: str
    phases: tuple[PhaseView, ...]


def newest_profile(folder: Path) -> Path | None:
    """The youngest `profile*/profile.json` or `profile.json` below a folder."""
    return max(_profiles(folder), key=lambda path: path.stat().st_mtime, default=None)


def profile_after(folder: Path, present: str) -> Path | None:
    """The one that follows `present` by name, around the end; None without any."""
    found = sorted(_profiles(folder))
    index = next((i for i, path in enumerate(found) if present and path.resolve() == Path(present).resolve()), -1)
    return found[(index + 1) % len(found)] if found else None


def _profiles(folder: Path) -> list[Path]:
    return [path for pattern in ("profile.json", "profile*/profile.json") for path in folder.glob(pattern) if path.is_file()]


def save_profile(worker_id: str, document: str) -> Path:
    """Write a node's profile to `profile-NODE/profile.json` below the working folder, whole or not at all."""
    path = Path(f"profile-{worker_id}") / "profile.json"
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(document, encoding="ascii")
    temporary.replace(path)
    return path


def read_profile(path: Path) -> ProfileView:
    """Raises NotFound, or Corrupt naming what is missing."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise Corrupt(f"{path} has {path.stat().st_size} bytes, a profile has at most {MAX_FILE_BYTES}")
        raw = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise NotFound(f"there is no profile at {path}: write one with `noodle-engine profile MODEL --out DIR`") from None
    except OSError as problem:
        raise NoodleError(f"cannot read {path}: {problem.strerror or problem}") from None
    except (ValueError, RecursionError):
        raise Corrupt(f"{path} is not JSON: take the profile again") from None
    try:
        return _view(path, raw)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as problem:
        raise Corrupt(f"{path} is not a profile of noodle-engine ({type(problem).__name__}: {problem}): take it again") from None


def _view(path: Path, raw: dict[str, Any]) -> ProfileView:
    environment, honesty = raw["environment"], raw["honesty"]
    points = [_point(step["point"]) for step in raw["steps"]]
    phases = tuple(_phase(raw, _reference(points, phase)) for phase in dict.fromkeys(point.phase for point in points))
    return ProfileView(
        path=safe_text(str(path)),
        model=safe_text(str(raw["model"])),
        random_weights=bool(raw["random_weights"]),
        device=safe_text(str(environment["device_name"] or environment["device"])),
        num_threads=int(environment["num_threads"]),
        dtype=safe_text(str(environment["dtype"])),
        host=safe_text(str(environment["host"])),
        wall_s=_number(raw["wall_s"]),
        num_steps=int(honesty["num_steps"]),
        overhead=_number(honesty["overhead"]),
        coverage=_number(honesty["coverage"]),
        noise_cv=_spread(honesty["noise_cv"]),
        doubt=safe_text(str(honesty.get("doubt", ""))),
        phases=phases,
    )


def _point(raw: dict[str, Any]) -> PointKey:
    return PointKey(safe_text(str(raw["phase"]), 20), int(raw["tokens"]), int(raw["context"]), int(raw["batch"]))


def _reference(points: list[PointKey], phase: str) -> PointKey:
    """The point that stands for a phase, as the engine picks it: one session; decode at the middle context, else the most tokens."""
    mine = sorted(p for p in points if p.phase == phase)
    alone = [p for p in mine if p.batch == min(q.batch for q in mine)]
    return alone[len(alone) // 2] if phase == "decode" else alone[-1]


def _phase(raw: dict[str, Any], point: PointKey) -> PhaseView:
    step = _at({"figures": raw["steps"]}, point)
    step_s = _number(step["plain_p50_s"]) if step else 0.0
    items = [(item, figures) for item in raw["items"] if (figures := _at(item, point)) is not None]
    layers = [(layer, figures) for layer in raw["layers"] if (figures := _at(layer, point)) is not None]
    total_s = sum(_number(figures["time_s"]) for _, figures in items)
    return PhaseView(
        point, step_s, tuple(_item(i, f, total_s) for i, f in items), tuple(_layer(layer, figures) for layer, figures in layers)
    )


def _at(owner: dict[str, Any], point: PointKey) -> dict[str, Any] | None:
    return next((figures for figures in owner["figures"] if _point(figures["point"]) == point), None)


def _item(item: dict[str, Any], figures: dict[str, Any], total_s: float) -> ItemTime:
    share = _number(figures["time_s"]) / total_s if total_s > 0 else 0.0
    name = safe_text(str(item["name"]))
    times = (_number(figures["p50_s"]), _number(figures["p95_s"]), _spread(figures["cv"]))
    return ItemTime(int(item["index"]), name, *times, int(item["weight_bytes"]), share)


def _layer(layer: dict[str, Any], figures: dict[str, Any]) -> LayerTime:
    item = layer["item"]
    texts = (safe_text(str(layer["name"])), safe_text(str(layer["role"]), 20))
    bound, why = safe_text(str(figures["bound"]), 20), safe_text(str(figures["why"]))
    return LayerTime(None if item is None else int(item), *texts, _number(figures["self_s"]), bound, why)


def _spread(raw: Any) -> float | None:
    """None where the samples were too few to tell."""
    return None if raw is None else _number(raw)


def _number(raw: Any) -> float:
    value = float(raw)
    return value if math.isfinite(value) else 0.0
