"""A trend is seen where a time goes one way all the time, and nowhere else; what follows from it."""

from __future__ import annotations

import math
import random

import pytest

from engine.control.adaptation.history import Decision, Verdict
from engine.control.adaptation.orders import Orders
from engine.control.adaptation.rules import AdaptationSettings
from engine.control.adaptation.watching.beliefs import Beliefs
from engine.control.adaptation.watching.detector import Detector
from engine.control.adaptation.watching.trend import WINDOWS, trend_of
from engine.data.plan import Plan, Stage
from tests.control.adaptation_driver import Pipeline

SIZE = WINDOWS[0]


def noise(seed: int, deviation: float = 0.02, rho: float = 0.0, size: int = SIZE) -> list[float]:
    rng, values, last = random.Random(seed), [], 0.0
    for _ in range(size):
        last = rho * last + rng.gauss(0.0, deviation * math.sqrt(1.0 - rho * rho))
        values.append(last)
    return values


@pytest.mark.parametrize("slope", [0.006, -0.006, 0.002])
def test_a_line_under_noise_is_found_with_its_slope_and_its_end(slope: float) -> None:
    trend = trend_of([slope * k + x for k, x in enumerate(noise(1))], 0.02)
    assert trend is not None and trend.num_blocks == SIZE
    assert trend.per_block == pytest.approx(slope, rel=0.15)
    assert trend.level == pytest.approx(slope * (SIZE - 1), abs=0.02)
    assert trend.ahead == pytest.approx(trend.level + SIZE / 4 * trend.per_block)


def test_wild_medians_do_not_bend_it() -> None:
    values = [0.006 * k + x for k, x in enumerate(noise(2))]
    wild = [5.0 if k % 5 == 0 else x for k, x in enumerate(values)]
    plain, bent = trend_of(values, 0.02), trend_of(wild, 0.02)
    assert plain is not None and bent is not None and bent.per_block == pytest.approx(plain.per_block, rel=0.25)


@pytest.mark.parametrize("at", range(4, SIZE - 3, 3))
def test_a_step_is_no_trend_wherever_it_lies(at: int) -> None:
    for seed in range(10):
        assert trend_of([0.5 * (k >= at) + x for k, x in enumerate(noise(seed))], 0.02) is None


@pytest.mark.parametrize("rho", [0.0, 0.5])
def test_noise_is_no_trend(rho: float) -> None:
    long_run = 0.02 * math.sqrt((1.0 + rho) / (1.0 - rho))
    assert [seed for seed in range(400) if trend_of(noise(seed, rho=rho), long_run) is not None] == []


def test_a_short_time_is_enough_for_a_steep_trend_and_for_the_way_back() -> None:
    up = [0.02 * k for k in range(SIZE)]
    assert trend_of(up[: WINDOWS[-1] - 1], 0.02) is None
    found = trend_of(up[: WINDOWS[-1]], 0.02)
    assert found is not None and found.num_blocks == WINDOWS[-1]
    back = trend_of([*up, *reversed(up)][: SIZE + 24], 0.02)
    assert back is not None and back.num_blocks == WINDOWS[-1] and back.per_block == pytest.approx(-0.02)


def test_medians_outlive_alarms() -> None:
    detector = Detector()
    alarms = [alarm for k in range(16 * 80) if (alarm := detector.add(0.3 * (k >= 16 * 60)))]
    assert alarms and len(detector.medians) == SIZE and detector.num_medians == 80


def test_a_node_that_slows_down_evenly_loses_items_before_it_has_cost_what_a_step_must_cost() -> None:
    """The plan is made for where the node is going, so few moves are needed, and the evidence says so."""
    pipeline = Pipeline(seed=3)
    pipeline.run(1000)
    for part in range(150):
        pipeline.factors["w2"] = 1.0 + (part + 1) / 100
        pipeline.run(16)
    moves = [d for d in pipeline.decisions if d.verdict is Verdict.MIGRATE]
    assert len(moves) >= 2 and any(" and rises by " in d.sentence for d in moves)
    held = {s.node_id: s.num_items for s in pipeline.plan.stages}
    assert held["w2"] < min(held["w1"], held["w3"])


def plans(*counts: int) -> Plan:
    bounds = [sum(counts[:k]) for k in range(len(counts) + 1)]
    return Plan(1, "balanced", tuple(Stage(f"w{k}", bounds[k], bounds[k + 1]) for k in range(len(counts))))


def test_only_a_move_that_takes_items_back_is_going_to_and_fro() -> None:
    orders = Orders(AdaptationSettings())
    first, second, third = plans(8, 8, 8), plans(9, 7, 8), plans(9, 6, 9)
    order = Decision(1, 0.0, Verdict.MIGRATE, None, "", plan=second)
    orders.give(order, first, Beliefs())
    assert orders.carried_out(second, 1.0)
    assert orders.num_recent(second.stages, third.stages, 2.0) == 0
    assert orders.num_recent(second.stages, first.stages, 2.0) == 1
    assert orders.num_recent(second.stages, first.stages, 1.0 + AdaptationSettings().recent_s) == 0
