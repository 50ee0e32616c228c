"""Processor sharing against an exact simulation in fractions, and what it must never do."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.simulation.clock import VirtualClock
from engine.simulation.machines.processor import SharedProcessor
from engine.simulation.scenario import VirtualHost

Job = tuple[int, int, int]  # arrives, work, cores; in sixteenths of a second and of a core


def exact(jobs: list[Job], num_cores: Fraction) -> list[Fraction]:
    """When each job ends: from event to event, with every quantity a fraction."""
    left = {k: Fraction(work, 16) for k, (_, work, _) in enumerate(jobs)}
    arrives = [Fraction(a, 16) for a, _, _ in jobs]
    now, ends = Fraction(0), {}
    while left:
        running = [k for k in left if arrives[k] <= now]
        wanted = sum(Fraction(jobs[k][2], 16) for k in running)
        rate = Fraction(1) if wanted <= num_cores else num_cores / wanted
        nexts = [arrives[k] for k in left if arrives[k] > now] + [now + left[k] / rate for k in running]
        after = min(nexts)
        for k in running:
            left[k] -= (after - now) * rate
        now = after
        for k in [k for k in running if left[k] == 0]:
            ends[k] = now
            del left[k]
    return [ends[k] for k in range(len(jobs))]


def simulated(jobs: list[Job], host: VirtualHost) -> list[float]:
    clock, ends = VirtualClock(), [0.0] * len(jobs)
    processor = SharedProcessor(host, clock)

    def end(k: int) -> None:
        ends[k] = clock.now_s

    for k, (arrives, work, cores) in enumerate(jobs):
        clock.at(arrives / 16, lambda job: processor.run(job[1] / 16, job[2] / 16, end, job[0]), (k, work, cores))
    clock.run()
    return ends


@settings(max_examples=300, deadline=None)
@given(
    jobs=st.lists(st.tuples(st.integers(0, 64), st.integers(1, 64), st.integers(1, 48)), min_size=1, max_size=12),
    num_cores=st.integers(8, 64),
)
def test_it_equals_the_exact_simulation(jobs: list[Job], num_cores: int) -> None:
    expected = exact(jobs, Fraction(num_cores, 16))
    assert simulated(jobs, VirtualHost("h", num_cores / 16)) == pytest.approx([float(e) for e in expected], abs=1e-9)


def test_jobs_that_fit_do_not_slow_each_other_and_more_of_them_do() -> None:
    two = VirtualHost("h", 2.0)
    assert simulated([(0, 16, 16), (0, 32, 16)], two) == pytest.approx([1.0, 2.0])
    assert simulated([(0, 16, 32), (0, 16, 32)], two) == pytest.approx([2.0, 2.0])
    assert simulated([(0, 16, 24), (0, 16, 24), (0, 16, 24)], two) == pytest.approx([2.25, 2.25, 2.25])


def test_jobs_without_work_end_at_once() -> None:
    assert simulated([(0, 0, 16), (0, 16, 16)], VirtualHost("h", 1.0)) == pytest.approx([0.0, 1.0])
