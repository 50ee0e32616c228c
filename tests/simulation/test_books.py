"""The books of a simulation: KV bytes, step functions of time, links, percentiles."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.simulation.machines.kv_cache import VirtualKVCache
from engine.simulation.machines.timeline import Timeline
from engine.simulation.machines.transfer import SimulatedTensorTransfer
from engine.simulation.result import percentiles
from engine.simulation.scenario import LinkModel


def test_kv_counts_what_sessions_hold_and_refuses_what_was_not_reserved() -> None:
    kv = VirtualKVCache(bytes_per_token=10, budget_bytes=200)
    kv.open("a", 12)
    kv.append("a", 5)
    kv.at(1.0)
    kv.open("b", 8)
    kv.append("b", 8)
    kv.at(2.0)
    assert (kv.used_bytes, kv.reserved_bytes, kv.peak_bytes) == (130, 200, 130)
    with pytest.raises(AssertionError, match="9 tokens, 8 were reserved"):
        kv.append("b", 1)
    with pytest.raises(AssertionError, match="the budget is 200"):
        kv.open("c", 1)
    kv.close("b")
    kv.close("unknown")
    kv.at(3.0)
    assert kv.used_bytes == 50 and kv.peak_bytes == 130
    assert kv.timeline.integral == 50 * 1.0 + 130 * 1.0


steps = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 1000)), min_size=1, max_size=2500)


@given(steps)
def test_a_timeline_keeps_its_integral_its_peak_and_its_end_in_bounded_memory(changes: list[tuple[float, int]]) -> None:
    timeline, now_s, integral, before = Timeline(), 0.0, 0.0, 0
    for gap_s, value in changes:
        integral += before * gap_s
        now_s, before = now_s + gap_s, value
        timeline.add(now_s, value)
    points = timeline.finish()
    assert timeline.integral == pytest.approx(integral, rel=1e-9, abs=1e-9)
    assert max(value for _, value in points) == max(value for _, value in changes)
    assert points[-1] == (now_s, before) or points[-1][1] >= before
    assert len(points) <= 514
    assert [time_s for time_s, _ in points] == sorted(time_s for time_s, _ in points)


def test_a_long_timeline_is_thinned_without_losing_its_spikes() -> None:
    timeline = Timeline()
    for k in range(20_000):
        timeline.add(0.01 * k, 10_000 if k in (7, 9_999, 19_000) else k % 50)
    points = timeline.finish()
    assert 200 < len(points) <= 514
    assert sum(value == 10_000 for _, value in points) == 3
    assert timeline.integral == pytest.approx(0.01 * (sum(k % 50 for k in range(19_999)) + 30_000 - 7 - 49 - 0))


def test_messages_leave_a_link_one_after_the_other() -> None:
    link = SimulatedTensorTransfer("a", "b", LinkModel(latency_s=0.5, bytes_per_s=100.0))
    assert link.send(1.0, 200) == pytest.approx(1.0 + 2.0 + 0.5)
    assert link.send(1.5, 100) == pytest.approx(3.0 + 1.0 + 0.5)
    assert link.send(9.0, 100) == pytest.approx(9.0 + 1.0 + 0.5)
    assert (link.num_messages, link.num_bytes, link.busy_s) == (3, 400, pytest.approx(4.0))


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=300))
def test_percentiles_are_values_that_so_many_do_not_exceed(values: list[float]) -> None:
    found = percentiles(values)
    for share, value in ((0.5, found.p50), (0.95, found.p95), (0.99, found.p99), (1.0, found.worst)):
        assert value in values
        assert sum(v <= value for v in values) >= share * len(values) - 1e-9
        assert sum(v < value for v in values) < share * len(values)
    assert found.count == len(values) and min(values) <= found.mean * (1 + 1e-12) + 1e-12


def test_percentiles_of_nothing_are_zero() -> None:
    assert percentiles([]).worst == 0.0 and percentiles([]).count == 0
