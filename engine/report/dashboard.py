"""A profile as one interactive HTML file: bars, treemaps, prefill against decode, roofline, samples, a table.

This file turns the profile into columns of plain figures; `page` makes the file, and the scripts in `web/` draw it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine.files import replace_whole
from engine.profile.point import Point
from engine.profile.profile import LayerFigures, LayerProfile, Profile
from engine.report.page import render_page

_SCRIPTS = ("names.js", "chart.js", "table.js", "tree.js", "layers.js", "phases.js", "dashboard.js")
_FIGURES = (
    "p50_s", "p95_s", "self_s", "cv", "num_samples", "activation_bytes", "peak_memory_change_bytes", "flops", "moved_bytes",
    "flops_per_s", "bytes_per_s",
)  # fmt: skip
MAX_WHY = 400


def write_dashboard(profile: Profile, path: Path) -> None:
    """Write the file, whole or not at all; raises NoodleError when the disk refuses."""
    replace_whole(path, dashboard_page(profile))


def dashboard_page(profile: Profile) -> bytes:
    return render_page("dashboard.html", f"{profile.model}: profile", dashboard_document(profile), _SCRIPTS)


def dashboard_document(profile: Profile) -> dict[str, Any]:
    """What the page draws: columns per layer, and per point; times in seconds, sizes in bytes."""
    reference = {phase: profile.reference_point(phase) for phase in profile.phases}
    points = list(profile.points)
    return {
        "model": profile.model,
        "where": _where(profile),
        "about": _about(profile),
        "roofline": {"flops_per_s": profile.environment.roofline.flops_per_s, "bytes_per_s": profile.environment.roofline.bytes_per_s},
        "num_parameters": profile.num_parameters,
        "honesty": asdict(profile.honesty),
        "reference": {phase: points.index(point) for phase, point in reference.items()},
        "layers": _layers(profile.layers),
        "points": [_point(profile, p, with_samples=p in reference.values()) for p in points],
        "tied": any(item.tied_to is not None for item in profile.items),
        "items": [{"name": item.name, "weight_bytes": item.weight_bytes} for item in profile.items],
    }


def _layers(layers: tuple[LayerProfile, ...]) -> dict[str, list[Any]]:
    row_of = {layer.path: row for row, layer in enumerate(layers)}
    names = ("name", "path", "class_name", "depth", "item", "device", "param_bytes", "buffer_bytes", "kv_bytes_per_token")
    columns: dict[str, list[Any]] = {name: [getattr(layer, name) for layer in layers] for name in names}
    columns["role"] = [str(layer.role) for layer in layers]
    columns["parent"] = [row_of.get(layer.parent, -1) if layer.parent is not None else -1 for layer in layers]
    return columns


def _point(profile: Profile, point: Point, with_samples: bool) -> dict[str, Any]:
    step = profile.step(point)
    found = [layer.at(point) for layer in profile.layers]
    return {
        "label": point.label,
        "phase": point.phase,
        "batch": point.batch,
        "tokens": point.tokens,
        "context": point.context,
        "step_s": _short(step.plain_p50_s),
        "figures": {name: [_short(getattr(f, name)) if f else None for f in found] for name in _FIGURES},
        "bound": [str(f.bound) if f else "" for f in found],
        "why": [f.why[:MAX_WHY] if f else "" for f in found],
        "shapes": [_shapes(f) if f and with_samples else "" for f in found],
        "samples": [_shorts(f.samples_s) if f else [] for f in found] if with_samples else None,
        "step_samples": _shorts(step.plain_samples_s) if with_samples else [],
        "items": [_short(f.time_s) if (f := item.at(point)) else None for item in profile.items],
    }


def _shapes(figures: LayerFigures) -> str:
    sides = [", ".join(f"{t.dtype}{list(t.shape)}" for t in side[:4]) for side in (figures.inputs, figures.outputs)]
    return " -> ".join(sides)[:MAX_WHY]


def _short(value: float | None) -> float | None:
    """Five digits are more than a measurement has; a thousand layers of them fit into a file that opens at once."""
    return value if value is None or isinstance(value, int) else float(f"{value:.5g}")


def _shorts(values: Iterable[float]) -> list[float]:
    return [float(f"{v:.4g}") for v in values]


# --- words --------------------------------------------------------------------------------------------------------
def _where(profile: Profile) -> str:
    e = profile.environment
    machine = f"{e.device_name} ({e.device}), {e.num_threads} of {e.num_cores} cores"
    return f"{machine}, {e.dtype}; {profile.architecture}, {len(profile.layers)} layers"


def _about(profile: Profile) -> list[tuple[str, str]]:
    """Label and value of everything that says how far to trust the figures."""
    e, h = profile.environment, profile.honesty
    rows = [
        ("Hook overhead", f"{100 * h.overhead:.1f} +- {_percent(h.overhead_error)} of a step (with hooks against without, interleaved)"),
        ("Coverage by items", f"{100 * h.coverage:.1f} % of the step without hooks"),
        ("Coverage by layers", f"{100 * h.layer_coverage:.1f} % (the rest ran between the layers)"),
        ("Noise", f"{_percent(h.noise_cv)} coefficient of variation of a step, at the worst point"),
        *([("Too noisy to use", h.doubt)] if h.doubt else []),
        ("Steps taken", f"{h.num_steps} in {h.spent_s:.1f} s, hooks at {profile.hook_depth} depth"),
        ("Roofline", f"{e.roofline.flops_per_s / 1e9:.1f} GFLOP/s, {e.roofline.bytes_per_s / 1e9:.1f} GB/s, measured here"),
        ("Processor", e.cpu_name),
        ("Machine", f"{e.host}, {e.platform}"),
        ("Libraries", ", ".join(f"{name} {version}" for name, version in e.libraries.items())),
        ("Weights", f"{'random' if profile.random_weights else 'trained'}, fingerprint {profile.fingerprint[:16]}"),
        ("Taken", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(profile.wall_s))),
    ]
    if profile.served:
        rows.append(("As served", "blocks fused, decode steps recorded; hooks see neither, so layers are slower here than in service"))
    if profile.cost_model is not None:
        rows += [(f"Cost model, {error.phase}", _error(error)) for error in profile.cost_model.errors]
    return rows


def _percent(share: float | None) -> str:
    return "not known (too few samples)" if share is None else f"{100 * share:.1f} %"


def _error(error: Any) -> str:
    seen = "held-out points" if error.held_out else "the points it was fitted to"
    return f"{100 * error.median:.1f} % median, {100 * error.worst:.1f} % worst on {error.num_points} {seen}"
