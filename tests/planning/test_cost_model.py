"""The cost model: recovers the laws it can express, never falls below zero, rises with the context, says its error."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.errors import InvalidInput
from engine.profile.cost_model import CostModel, CostSample, num_pairs
from engine.profile.least_squares import non_negative
from engine.profile.point import DECODE, FORWARD, PREFILL, Point
from engine.profile.points import causal_points, encoder_points

seconds = st.floats(1e-6, 1e-2)
points = st.builds(
    Point,
    phase=st.sampled_from([PREFILL, DECODE]),
    tokens=st.integers(1, 600),
    context=st.integers(0, 2000),
    batch=st.integers(1, 20),
)


def measured(points: tuple[Point, ...], *laws: object) -> list[CostSample]:
    return [CostSample(point, tuple(law(point) for law in laws)) for point in points]  # type: ignore[operator]


@given(a=seconds, b=seconds, c=st.floats(1e-9, 1e-6))
@settings(max_examples=40, deadline=None)
def test_a_decode_law_is_recovered_at_unseen_points(a: float, b: float, c: float) -> None:
    def law(point: Point) -> float:
        return a + b * point.batch + c * point.batch * (point.context + 1)

    plan = causal_points(1024)
    learn = tuple(p for p in plan.learn if p.phase == DECODE)
    model = CostModel.fit(measured(learn, law, lambda p: 2 * law(p)))
    for point in (Point(DECODE, 1, 300, 5), Point(DECODE, 1, 4000, 7), Point(DECODE, 1, 10, 40)):
        assert model.step_s(point, 0, 1) == pytest.approx(law(point), rel=1e-6)
        assert model.time_s(1, DECODE, 1, point.context, point.batch) == pytest.approx(2 * law(point), rel=1e-6)
        assert model.step_s(point) == pytest.approx(3 * law(point), rel=1e-6)


@given(a=seconds, b=seconds, c=st.floats(1e-9, 1e-6), behind=st.sampled_from([0.0, 0.3, 2.0]))
@settings(max_examples=40, deadline=None)
def test_a_prefill_law_is_recovered_at_unseen_points(a: float, b: float, c: float, behind: float) -> None:
    def law(point: Point) -> float:
        later_s = behind * a if point.context else 0.0
        return a + b * point.tokens + c * (point.tokens * point.context + point.tokens * (point.tokens + 1) / 2) + later_s

    model = CostModel.fit(measured(tuple(p for p in causal_points(1024).learn if p.phase == PREFILL), law))
    for point in (Point(PREFILL, 100, 300, 1), Point(PREFILL, 384, 0, 1), Point(PREFILL, 1000, 0, 1)):
        assert model.step_s(point) == pytest.approx(law(point), rel=1e-5)


def test_jumps_between_batches_stay_where_they_were_measured() -> None:
    jumps = {1: 0.015, 2: 0.025, 3: 0.031, 4: 0.036, 6: 0.033, 8: 0.037}
    learn = tuple(p for p in causal_points(1024).learn if p.phase == DECODE)
    model = CostModel.fit(measured(learn, lambda p: jumps[p.batch] + 2e-6 * p.batch * p.context))
    for batch, work_s in jumps.items():
        assert model.step_s(Point(DECODE, 1, 500, batch)) == pytest.approx(work_s + 2e-6 * batch * 500, rel=0.02)


@given(noise=st.lists(st.floats(0.2, 5.0), min_size=30, max_size=30), point=points)
@settings(max_examples=60, deadline=None)
def test_never_negative_and_never_falling_with_the_context(noise: list[float], point: Point) -> None:
    plan = causal_points(1024)
    samples = [CostSample(p, (1e-3 * factor,)) for p, factor in zip(plan.learn, noise, strict=False)]
    model = CostModel.fit(samples)
    near = model.time_s(0, point.phase, point.tokens, point.context, point.batch)
    far = model.time_s(0, point.phase, point.tokens, point.context + 500, point.batch)
    assert 0.0 <= near <= far


def test_the_error_at_held_out_points_is_that_of_points_it_did_not_see() -> None:
    learn = [CostSample(Point(DECODE, 1, c, b), (1.0 * b,)) for b in (1, 2, 4) for c in (10, 100)]
    held_out = [CostSample(Point(DECODE, 1, 50, 3), (3.3,)), CostSample(Point(DECODE, 1, 50, 2), (2.0,))]
    by_kind = {error.held_out: error for error in CostModel.fit(learn, held_out).errors}
    assert by_kind[False].worst < 1e-6
    assert by_kind[True].num_points == 2
    assert by_kind[True].worst == pytest.approx(1 - 3.0 / 3.3, rel=1e-3)


def test_what_was_not_measured_is_refused() -> None:
    model = CostModel.fit([CostSample(Point(DECODE, 1, 10, 1), (1.0,))])
    with pytest.raises(InvalidInput, match="no phase 'prefill'"):
        model.time_s(0, PREFILL, 1, 0, 1)
    with pytest.raises(InvalidInput, match="item 1"):
        model.time_s(1, DECODE, 1, 0, 1)
    with pytest.raises(InvalidInput, match="same items"):
        CostModel.fit([])
    with pytest.raises(InvalidInput, match="same items"):
        CostModel.fit([CostSample(Point(DECODE, 1, 1, 1), (1.0,)), CostSample(Point(DECODE, 1, 2, 1), (1.0, 2.0))])


@pytest.mark.parametrize("point", [Point(PREFILL, 5, 7, 2), Point(DECODE, 1, 9, 3), Point(FORWARD, 6, 0, 2)])
def test_pairs_are_those_that_attention_visits(point: Point) -> None:
    if point.phase == FORWARD:
        visited = point.batch * point.tokens * point.tokens
    else:
        visited = point.batch * sum(point.context + query + 1 for query in range(point.tokens))
    assert num_pairs(point) == visited


@given(
    rows=st.lists(st.lists(st.floats(0, 10), min_size=3, max_size=3), min_size=3, max_size=8),
    x=st.lists(st.floats(-3, 3), min_size=3, max_size=3),
)
@settings(max_examples=150, deadline=None)
def test_least_squares_meet_the_conditions_of_an_optimum(rows: list[list[float]], x: list[float]) -> None:
    """Karush-Kuhn-Tucker: x >= 0, and the gradient is zero where x > 0 and not negative where x = 0."""
    targets = [sum(r * v for r, v in zip(row, x, strict=True)) for row in rows]
    found = non_negative(rows, targets)
    residual = [sum(r * v for r, v in zip(row, found, strict=True)) - t for row, t in zip(rows, targets, strict=True)]
    size = max([1.0, *(abs(t) for t in targets)]) * max([1.0, *(max(row) for row in rows)]) * len(rows)
    for j, value in enumerate(found):
        slope = sum(row[j] * r for row, r in zip(rows, residual, strict=True))
        assert value >= 0.0
        assert slope >= -1e-4 * size
        assert value < 1e-9 or slope <= 1e-4 * size


@pytest.mark.parametrize("context_tokens", [1, 2, 16, 100, 1024, 100_000])
@pytest.mark.parametrize("quick", [True, False])
def test_points_fit_into_the_context_and_held_out_ones_are_unseen(context_tokens: int, quick: bool) -> None:
    for plan in (causal_points(context_tokens, quick=quick), encoder_points(context_tokens, quick=quick)):
        assert plan.learn and len(set(plan.all)) == len(plan.all)
        assert all(p.tokens <= max(2, context_tokens) for p in plan.all)
        assert all(p.context <= context_tokens for p in plan.all)
    full = causal_points(1024)
    seen = {(p.context, p.batch) for p in full.learn if p.phase == DECODE}
    held_out = [p for p in full.held_out if p.phase == DECODE]
    assert len(held_out) >= 4 and not {(p.context, p.batch) for p in held_out} & seen


def test_slow_machines_get_short_prompts() -> None:
    assert max(p.tokens for p in causal_points(1024, most_prefill_tokens=40).learn) <= 40
