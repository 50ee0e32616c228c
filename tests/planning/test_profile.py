"""The profile document: JSON and back without loss, damage refused by name, the bottleneck found."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from engine.commands.machine.profile_text import as_text
from engine.data.errors import Corrupt, InvalidInput, NotSupported, Refused
from engine.planning.estimating.estimate import estimate
from engine.planning.problem import Link
from engine.profile.cost_model import CostModel, CostSample
from engine.profile.point import DECODE, PREFILL, Point
from engine.profile.profile import (
    Bound,
    Environment,
    Honesty,
    ItemFigures,
    ItemProfile,
    LayerFigures,
    LayerProfile,
    Profile,
    Role,
    Roofline,
    StepFigures,
    TensorInfo,
    doubt_of,
    spread_of,
)

SHORT, MIDDLE, LONG = (Point(DECODE, 1, context, 1) for context in (16, 128, 512))
PROMPT = Point(PREFILL, 64, 0, 1)
POINTS = (PROMPT, SHORT, MIDDLE, LONG, Point(DECODE, 1, 16, 4))
HOSTILE = "h.0[/bold]<script>\x1b[31m\u2028" + "x" * 10_000


def figures(point: Point, self_s: float, p50_s: float) -> LayerFigures:
    tensors = (TensorInfo((1, point.tokens, 8), "float32"),)
    sizes, rates = (32, 64, 100, 200), (1e3, 2e3)
    return LayerFigures(point, p50_s, p50_s, self_s, 3 * p50_s, 3, 0.01, *sizes, *rates, Bound.MEMORY, "because", tensors, tensors)


def layer(index: int, path: str, role: Role, self_s: float, p50_s: float, parent: str | None = None) -> LayerProfile:
    rows = tuple(figures(point, self_s, p50_s) for point in POINTS)
    return LayerProfile(index, path, path, role, "Module", 0 if parent is None else 1, parent, 0, "cpu", 1000, 0, 64, rows)


def profile(**changes: Any) -> Profile:
    made = Profile(
        model="gpt2 (random weights, seed 0)",
        architecture="GPT2LMHeadModel",
        fingerprint="f" * 64,
        random_weights=True,
        num_parameters=124_000_000,
        hook_depth="layer",
        wall_s=1.75e9,
        environment=Environment("cpu", "a CPU", "a CPU", 2, 2, "float32", "host", "Linux", Roofline(1e11, 2e10), {"torch": "2.13"}),
        honesty=Honesty(0.01, 0.002, 1.0, 0.98, 0.02, 100, 12.0),
        steps=tuple(StepFigures(point, 0.02, 0.0202, 0.0201, 3, 0.02, (0.02, 0.021)) for point in POINTS),
        layers=(
            layer(0, "h.0", Role.BLOCK, 0.001, 0.012),
            layer(1, "h.0.attn", Role.ATTENTION, 0.004, 0.004, "h.0"),
            layer(2, HOSTILE, Role.MLP, 0.007, 0.007, "h.0"),
            layer(3, "lm_head", Role.HEAD, 0.008, 0.008),
        ),
        items=(ItemProfile(0, "embed", 100, 0, 32, 1, 50, tuple(ItemFigures(p, 0.02, 0.02, 0.03, 0.1, 3) for p in POINTS)),),
        cost_model=CostModel.fit([CostSample(point, (0.02,)) for point in POINTS]),
    )
    return replace(made, **changes)


def test_json_and_back_without_loss() -> None:
    made = profile()
    text = made.to_json()
    assert text.isascii()
    assert Profile.from_json(text) == made
    assert Profile.from_json(text).layers[2].name == HOSTILE
    assert Profile.from_json(profile(cost_model=None).to_json()).cost_model is None


def test_scripts_find_the_figures_on_top() -> None:
    document = json.loads(profile().to_json())
    assert {"layers", "items", "overhead", "coverage", "environment", "schema_version"} <= set(document)
    assert document["overhead"] == 0.01 and document["coverage"] == 1.0


def test_the_bottleneck_is_the_layer_with_the_most_time_of_its_own() -> None:
    found = profile().bottleneck(DECODE)
    assert found.layer.path == "lm_head", "the block around it takes longer, but what it takes lies in its children"
    assert found.share == pytest.approx(0.4)
    assert found.figures.point == MIDDLE


def test_reference_points_are_one_session_at_the_middle_context_or_the_longest_prompt() -> None:
    assert profile().reference_point(DECODE) == MIDDLE
    assert profile().reference_point(PREFILL) == PROMPT
    with pytest.raises(InvalidInput, match="no phase 'forward'"):
        profile().reference_point("forward")


def test_points_that_were_not_measured_are_refused() -> None:
    with pytest.raises(InvalidInput, match="no point 'decode ctx 999'"):
        profile().step(Point(DECODE, 1, 999, 1))
    for wrong in ({"phase": "thinking"}, {"tokens": 0}, {"context": -1}, {"batch": 0}):
        with pytest.raises(InvalidInput):
            Point(**{"phase": DECODE, "tokens": 1, "context": 0, "batch": 1, **wrong})  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_figures_that_are_not_finite_are_never_written(value: float) -> None:
    with pytest.raises(InvalidInput, match="not finite"):
        profile(wall_s=value).to_json()


def changed(**changes: Any) -> str:
    return json.dumps({**json.loads(profile().to_json()), **changes})


def costing(**law: Any) -> str:
    """With a cost model whose first item has other numbers."""
    document = json.loads(profile().to_json())
    document["cost_model"]["phases"][0]["items"][0] |= law
    return json.dumps(document)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a profile"),
        ("[]", "no JSON object"),
        ("{}", "no schema_version"),
        ("[" * 100_000, "not a profile"),
        (changed(schema_version="1"), "no schema_version"),
        (changed(model=7), "profile.model is '7'"),
        (changed(layers={}), "profile.layers"),
        (changed(num_parameters=True), "profile.num_parameters"),
        (changed(wall_s="soon"), "profile.wall_s"),
        (changed(honesty={"overhead": 0.1}), "profile.honesty lacks overhead_error, coverage"),
        (changed(steps=[{"point": {"phase": "decode", "tokens": 0, "context": 0, "batch": 1}}]), "profile.steps"),
        (costing(pair_s=-0.001), "cost_model.phases.0..items.0. cannot be: a time of -0.001 s is below 0"),
        (costing(work_s=[0.1, 0.1]), "phases.0. cannot be: 'prefill' needs items with one time for each of its 1 token counts"),
        (changed(cost_model={"phases": []}), "cost_model cannot be: a cost model needs phases"),
        (changed(cost_model={"phases": [{"phase": "decode", "num_tokens": [2, 1], "items": []}]}), "do not rise"),
        (profile().to_json()[:-100], "not a profile"),
        (profile().to_json().replace('"memory"', '"magic"'), "bound"),
        (profile().to_json().replace("0.0202", "NaN"), "hooked_p50_s"),
    ],
)
def test_damage_is_refused_by_name(text: str, message: str) -> None:
    with pytest.raises(Corrupt, match=message):
        Profile.from_json(text)


def test_a_later_schema_is_named() -> None:
    with pytest.raises(NotSupported, match="version 2"):
        Profile.from_json(changed(schema_version=2))


def step(cv: float | None, point: Point = POINTS[0]) -> StepFigures:
    return StepFigures(point, 0.02, 0.02, 0.02, 5, cv)


def test_a_spread_needs_five_samples() -> None:
    assert [spread_of([1.0] * k + [9.0]) for k in range(4)] == [None] * 4
    assert spread_of([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx(1.5811 / 3, rel=1e-4)


def test_figures_are_in_doubt_by_their_worst_point_and_not_by_the_median() -> None:
    lone = [step(None) for _ in range(7)]
    assert doubt_of([*lone, step(0.87, POINTS[1])], 1.0) == f"a step varies by 87 % at {POINTS[1].label}"
    assert "no point has 5 samples" in doubt_of(lone, 1.0)
    assert doubt_of([step(0.02)], 1.55) == "the items add up to 155 % of a step"
    assert doubt_of([step(0.02), *lone], 1.0) == ""


def test_nothing_is_planned_from_figures_in_doubt() -> None:
    doubtful = profile(honesty=replace(profile().honesty, doubt="a step varies by 87 % at decode ctx 16"))
    assert Profile.from_json(doubtful.to_json()).honesty.doubt == doubtful.honesty.doubt
    with pytest.raises(Refused, match="too noisy to use: a step varies by 87 %"):
        estimate(doubtful, [], "balanced", Link())


def test_the_text_says_so_before_anybody_reads_a_share() -> None:
    text = as_text(profile(honesty=replace(profile().honesty, doubt="a step varies by 87 %", noise_cv=None, overhead_error=None)))
    assert "too noisy to use: a step varies by 87 %; take it again when the machine is quiet" in text
    assert "noise ? % at the worst point" in text and "noise 0" not in text
    assert "SHARE" not in text and "the bottleneck is" not in text and "SHARE" in as_text(profile())
