"""A profile as text: the bottleneck of every phase in a sentence, the slowest layers, and how far to trust it all."""

from __future__ import annotations

from typing import Any

from engine.commands.output import table
from engine.profile.cost_model import CostModel
from engine.profile.point import Point
from engine.profile.profile import Profile

_MAX_ROWS = 16
_NOISY_CV, _FEW_SAMPLES = 0.15, 3


def as_text(profile: Profile) -> str:
    """Everything a person wants to know first; names may hold anything, so the caller cleans the result."""
    parts = [_head(profile)]
    for phase in () if profile.honesty.doubt else profile.phases:  # shares of noise would look like findings
        parts.append("\n".join((_bottleneck(profile, phase), _slowest(profile, profile.reference_point(phase)))))
    parts += [_points(profile), _trust(profile)]
    return "\n\n".join(parts)


def bottlenecks(profile: Profile) -> dict[str, Any]:
    """The same for scripts, by phase."""
    found = {phase: profile.bottleneck(phase) for phase in profile.phases}
    return {
        phase: {
            "point": b.figures.point.label,
            "layer": b.layer.name,
            "role": b.layer.role.value,
            "share": b.share,
            "self_s": b.figures.self_s,
            "bound": b.figures.bound.value,
            "why": b.figures.why,
        }
        for phase, b in found.items()
    }


def _head(profile: Profile) -> str:
    e = profile.environment
    roof = f"{e.roofline.flops_per_s / 1e9:.0f} GFLOP/s, {e.roofline.bytes_per_s / 1e9:.1f} GB/s measured"
    return (
        f"{profile.model}: {profile.architecture}, {profile.num_parameters / 1e6:.1f} M parameters, {len(profile.layers)} layers, "
        f"{len(profile.items)} items\n{e.device_name} ({e.device}, {e.num_threads} threads, {e.dtype}): {roof}"
    )


def _bottleneck(profile: Profile, phase: str) -> str:
    found = profile.bottleneck(phase)
    name, share = f"{found.layer.name[:60]} ({found.layer.role})", f"{100 * found.share:.1f} % of the step"
    return f"{found.figures.point.label}: the bottleneck is {name} with {share}; {found.figures.bound}-bound: {found.figures.why}"


def _slowest(profile: Profile, point: Point) -> str:
    step_s = profile.step(point).plain_p50_s
    found = [(layer, f) for layer in profile.layers if (f := layer.at(point)) is not None]
    found.sort(key=lambda pair: -pair[1].self_s)
    rows = [
        (layer.name[:60], layer.role.value, _ms(f.self_s), f"{100 * f.self_s / step_s:.1f}", _ms(f.p50_s), _ms(f.p95_s),
         f"{f.bytes_per_s / 1e9:.2f}", f"{f.flops_per_s / 1e9:.2f}", f.bound.value)
        for layer, f in found[:_MAX_ROWS]
    ]  # fmt: skip
    if len(found) > _MAX_ROWS:
        rest_s = sum(f.self_s for _, f in found[_MAX_ROWS:])
        rows.append((f"({len(found) - _MAX_ROWS} more)", "", _ms(rest_s), f"{100 * rest_s / step_s:.1f}", "", "", "", "", ""))
    return table(("LAYER", "ROLE", "SELF ms", "SHARE %", "P50 ms", "P95 ms", "GB/s", "GFLOP/s", "BOUND"), rows)


def _points(profile: Profile) -> str:
    rows = []
    for step in profile.steps:
        predicted = _ms(profile.cost_model.step_s(step.point)) if profile.cost_model and not profile.served else ""
        rows.append((step.point.label, _ms(step.plain_p50_s), _ms(step.hooked_p50_s), predicted, _percent(step.cv)))
    body = table(("STEP", "PLAIN ms", "HOOKED ms", "MODEL ms", "CV %"), rows)
    return f"{body}\n\n{_served(profile, profile.cost_model)}" if profile.served and profile.cost_model else body


def _served(profile: Profile, model: CostModel) -> str:
    """What hooks do not see."""
    rows = [(step.point.label, _ms(step.p50_s), _ms(model.step_s(step.point))) for step in profile.served]
    return "as they are served, with fused blocks, decode steps recorded:\n" + table(("STEP", "SERVED ms", "MODEL ms"), rows)


def _trust(profile: Profile) -> str:
    h = profile.honesty
    lines = [
        f"hooks cost {100 * h.overhead:.1f} +- {_percent(h.overhead_error)} % ({profile.hook_depth} depth); "
        f"items cover {100 * h.coverage:.1f} % of the un-hooked step, layers {100 * h.layer_coverage:.1f} %; "
        f"noise {_percent(h.noise_cv)} % at the worst point; {h.num_steps} steps in {h.spent_s:.0f} s"
    ]
    if h.doubt:
        lines.append(f"too noisy to use: {h.doubt}; take it again when the machine is quiet")
    elif (h.noise_cv or 0.0) > _NOISY_CV or min(step.num_samples for step in profile.steps) < _FEW_SAMPLES:
        lines.append(
            "the figures are rough: other programs used this machine, or too few steps fitted into the time; repeat it when it is quiet"
        )
    for error in profile.cost_model.errors if profile.cost_model else ():
        if error.held_out:
            lines.append(
                f"cost model, {error.phase}: {100 * error.median:.1f} % median, {100 * error.worst:.1f} % worst error at "
                f"{error.num_points} points that it had not seen"
            )
    return "\n".join(lines)


def _percent(share: float | None) -> str:
    """Without its sign; `?` where the samples are too few to tell."""
    return "?" if share is None else f"{100 * share:.1f}"


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.3f}"
