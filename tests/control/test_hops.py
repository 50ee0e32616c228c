"""Where the time between stages goes is found without synchronised clocks: against hops that are known."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from engine.control.sessions.hops import Hops, planned_hops
from engine.control.sessions.window import over_time
from engine.data.generation import StageTiming

PLANNED_S = (0.0005, 0.001, 0.002, 0.0005)
TIMES_S = (0.010, 0.020, 0.015)


def step(hop_s: tuple[float, ...], sent_s: float, clocks_s: tuple[float, ...]) -> tuple[tuple[StageTiming, ...], float]:
    """A step through three stages, each of which tells the time by its own clock; when it came back."""
    at_s, timings = sent_s, []
    for k, (hop, time_s, clock_s) in enumerate(zip(hop_s, TIMES_S, clocks_s, strict=False)):
        at_s += hop
        timings.append(StageTiming(f"w{k}", time_s, 0.0, 0.0, 0.0, clock_s + at_s, clock_s + at_s + time_s))
        at_s += time_s
    return tuple(timings), at_s + hop_s[-1]


offsets = st.floats(-1e5, 1e5)
slow = st.floats(0.01, 1.0)


@given(clocks_s=st.tuples(offsets, offsets, offsets), index=st.integers(0, 3), late_s=slow)
def test_a_hop_that_becomes_slow_is_told_from_the_others(clocks_s: tuple[float, float, float], index: int, late_s: float) -> None:
    clocks_s = tuple(1e6 + c for c in clocks_s)  # type: ignore[assignment]
    hops = Hops(PLANNED_S)
    for k in range(5):
        timings, now_s = step(PLANNED_S, float(k), clocks_s)
        found = hops.split(timings, float(k), now_s)
        assert all(math.isclose(a, b, abs_tol=1e-6) for a, b in zip(found, PLANNED_S, strict=True))
    late = tuple(s + late_s * (k == index) for k, s in enumerate(PLANNED_S))
    timings, now_s = step(late, 9.0, clocks_s)
    found = hops.split(timings, 9.0, now_s)
    assert all(math.isclose(a, b, abs_tol=1e-6) for a, b in zip(found, late, strict=True))


@given(hop_s=st.tuples(slow, slow, slow, slow), drift_s=st.floats(-5.0, 5.0))
def test_all_hops_together_are_exact_whatever_the_clocks_do(hop_s: tuple[float, float, float, float], drift_s: float) -> None:
    hops = Hops(PLANNED_S)
    hops.split(*_arguments(PLANNED_S, 0.0, (1e6, 2e6, 3e6)))
    timings, sent_s, now_s = _arguments(hop_s, 50.0, (1e6, 2e6 + drift_s, 3e6))
    found = hops.split(timings, sent_s, now_s)
    assert math.isclose(math.fsum(found), math.fsum(hop_s), abs_tol=1e-6) and min(found) >= 0.0


def test_a_clock_that_drifts_makes_no_link_slow() -> None:
    hops = Hops(PLANNED_S)
    for k in range(100):
        found = hops.split(*_arguments(PLANNED_S, 60.0 * k, (1e6, 2e6 + 0.003 * k, 3e6)))
        assert max(found) < 0.003


def test_without_clocks_the_rest_is_shared_as_planned() -> None:
    timings, now_s = step((0.004,) * 4, 0.0, (0.0,) * 3)
    silent = tuple(StageTiming(t.worker_id, t.compute_s, 0.0, 0.0, 0.0) for t in timings)
    assert Hops().split(silent, 0.0, now_s) == (0.004,) * 4 or max(Hops().split(silent, 0.0, now_s)) < 0.00401
    assert math.isclose(Hops((1.0, 3.0, 1.0, 3.0)).split(silent, 0.0, now_s)[1], 0.006, abs_tol=1e-9)


def test_the_ends_of_a_plan_share_what_is_left_of_its_round_trip() -> None:
    assert all(map(math.isclose, planned_hops(0.050, (0.02, 0.02), (0.004, 0.0)), (0.003, 0.004, 0.003)))
    assert planned_hops(0.05, (0.02, 0.02), ()) == ()


def test_a_median_over_time_counts_slow_steps_for_as_long_as_they_take() -> None:
    steps = [(0.01, 0.01)] * 400 + [(0.5, 0.5)] * 10
    assert over_time(steps) == 0.5
    assert over_time(steps[:402]) == 0.01 and over_time(steps[:402], 0.95) == 0.5 and over_time([]) == 0.0


def _arguments(hop_s: tuple[float, ...], sent_s: float, clocks_s: tuple[float, ...]) -> tuple[tuple[StageTiming, ...], float, float]:
    timings, now_s = step(hop_s, sent_s, clocks_s)
    return timings, sent_s, now_s
