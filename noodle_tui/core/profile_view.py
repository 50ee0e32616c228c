"""What the Profile screen shows of a `profile.json`: the items, their layers, how far to trust them. Pure.

Only the fields that are shown are read, so profiles of later versions open too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from noodle_tui.text.safe_text import safe_text


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


def view_of(path: str, raw: dict[str, Any]) -> ProfileView:
    environment, honesty = raw["environment"], raw["honesty"]
    points = [_point(step["point"]) for step in raw["steps"]]
    phases = tuple(_phase(raw, point) for point in _references(raw, points))
    return ProfileView(
        path=safe_text(path),
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


def _references(raw: dict[str, Any], points: list[PointKey]) -> list[PointKey]:
    """The point that stands for each phase, as the document names it; in older documents the first one."""
    named = raw.get("reference_points")
    if named:
        return [_point(point) for point in named]
    return [next(point for point in points if point.phase == phase) for phase in dict.fromkeys(point.phase for point in points)]


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
