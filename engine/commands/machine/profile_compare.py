"""Two profiles side by side: the same model on two machines, or before and after a change."""

from __future__ import annotations

from typing import Any

from engine.commands.output import print_json, say, table
from engine.data.errors import InvalidInput
from engine.profile.point import Point
from engine.profile.profile import Profile


def compare(a: Profile, b: Profile, *, as_json: bool) -> int:
    """Print the points and items that both have. Raises InvalidInput if they share no point."""
    points = [point for point in a.points if point in set(b.points)]
    if not points:
        raise InvalidInput(f"the profiles share no point: {a.model} has {len(a.points)}, {b.model} has {len(b.points)}")
    document = {
        "a": _who(a),
        "b": _who(b),
        "steps": [_row(p.label, a.step(p).plain_p50_s, b.step(p).plain_p50_s) for p in points],
        "layers": _layers(a, b, points),
    }
    if as_json:
        print_json(document)
    else:
        say(_text(document))
    return 0


def _who(profile: Profile) -> dict[str, Any]:
    e = profile.environment
    machine = {"device": e.device_name, "num_threads": e.num_threads, "dtype": e.dtype, "host": e.host}
    return {"model": profile.model, **machine, "doubt": profile.honesty.doubt}


def _layers(a: Profile, b: Profile, points: list[Point]) -> list[dict[str, Any]]:
    """Layers of the same path at the reference point of each phase that both have, the largest change first."""
    rows = []
    for point in (p for phase in dict.fromkeys(q.phase for q in points) if (p := a.reference_point(phase)) in points):
        others = {layer.path: figures for layer in b.layers if (figures := layer.at(point)) is not None}
        for layer in a.layers:
            if (figures := layer.at(point)) is not None and layer.path in others:
                rows.append({"point": point.label, **_row(layer.name, figures.self_s, others[layer.path].self_s)})
    return sorted(rows, key=lambda row: -abs(row["b_s"] - row["a_s"]))


def _row(name: str, a_s: float, b_s: float) -> dict[str, Any]:
    return {"name": name, "a_s": a_s, "b_s": b_s, "ratio": b_s / a_s if a_s > 0 else 0.0}


def _text(document: dict[str, Any]) -> str:
    sides = {"A": document["a"], "B": document["b"]}
    head = [f"{side}: {who['model']} on {who['device']}, {who['num_threads']} threads, {who['dtype']}" for side, who in sides.items()]
    head += [f"{side} is too noisy to use: {who['doubt']}" for side, who in sides.items() if who["doubt"]]
    steps = table(("STEP", "A ms", "B ms", "B/A"), [_cells(row, row["name"]) for row in document["steps"]])
    layers = [_cells(row, f"{row['name'][:60]}, {row['point']}") for row in document["layers"][:20]]
    return "\n\n".join(("\n".join(head), steps, table(("LAYER (largest change first)", "A ms", "B ms", "B/A"), layers)))


def _cells(row: dict[str, Any], name: str) -> tuple[str, ...]:
    return name, f"{1e3 * row['a_s']:.3f}", f"{1e3 * row['b_s']:.3f}", f"{row['ratio']:.2f}"
