"""The native reference: sessions one after the other, each alone."""

from __future__ import annotations

import pytest

from engine.simulation.arrivals import Arrival
from engine.simulation.calibration import Observation, calibrate
from engine.simulation.cost import ItemTimes, StepShape
from engine.simulation.native import simulate_native
from tests.simulation.test_cost import MODEL, NUM_ITEMS, ProfileCosts


def test_sessions_wait_for_each_other() -> None:
    found = simulate_native(ItemTimes((0.01, 0.02), 0.0), [Arrival(0.05, 4, 3), Arrival(0.0, 9, 2), Arrival(9.0, 1, 1)], slowdown=2.0)
    assert found.num_tokens == 6
    assert found.makespan_s == pytest.approx(9.06) and found.tokens_per_s == pytest.approx(6 / 9.06)
    assert found.ttft_s.count == 3 and found.ttft_s.worst == pytest.approx(0.12 - 0.05 + 0.06)
    assert found.ttft_s.p50 == pytest.approx(0.06)
    assert found.inter_token_s.count == 3 and found.inter_token_s.worst == pytest.approx(0.06)


def test_decode_steps_grow_with_their_context() -> None:
    found = simulate_native(ProfileCosts(MODEL), [Arrival(0.0, 5, 3)])
    step = ProfileCosts(MODEL).stage(0, NUM_ITEMS)
    assert found.ttft_s.p50 == pytest.approx(step(StepShape(0, 5, 0, 15)))
    assert found.makespan_s == pytest.approx(found.ttft_s.p50 + step(StepShape(1, 0, 6, 0)) + step(StepShape(1, 0, 7, 0)))


def test_a_calibration_finds_the_costs_that_made_its_observations() -> None:
    costs = ItemTimes((0.002,) * 10, 0.0)
    slowdown, share, hop_s = 1.3, 0.08, 0.0007

    def seen(stages: int, cpu: float) -> Observation:
        compute_s = slowdown * 0.02 * (1.0 + (stages - 1) * share)
        prompt_s = 1.05 * compute_s
        return Observation(stages, 20, compute_s + (stages + 1) * hop_s, compute_s, cpu, prompt_s, 0.002 * stages)

    found = calibrate(costs, seen(1, 1.4), seen(2, 1.6), 8)
    assert found.prompt_slowdown == pytest.approx(1.05) and found.software.open_s == pytest.approx(0.003)
    assert found.slowdown == pytest.approx(slowdown) and found.busy_cores == pytest.approx(1.5)
    assert (found.software.neighbour_share, found.software.hop_s) == (pytest.approx(share), pytest.approx(hop_s))
    assert calibrate(costs, seen(2, 1.4), seen(4, 1.6), 8).software.neighbour_share == pytest.approx(share)
    noisy = calibrate(costs, seen(1, 1.0), Observation(2, 20, 0.020, 0.019, 1.0, 0.02, 0.0), 8)
    assert noisy.software.neighbour_share == 0.0 and noisy.software.hop_s >= 0.0
