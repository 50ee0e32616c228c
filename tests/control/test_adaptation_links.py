"""What steps show of single links goes back into planning."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from engine.control.adaptation.cost import MigrationRates
from engine.control.adaptation.watching.beliefs import Beliefs
from engine.control.adaptation.watching.gates import Gates
from engine.control.adaptation.watching.metrics import RuntimeMetrics
from engine.control.adaptation.watching.problem import with_slower_links
from engine.control.adaptation.watching.view import AdaptationView, StepSample
from engine.control.adaptation.watching.watch import Watch
from engine.data.generation import StageTiming
from engine.planning.problem import Link, PairLink
from engine.planning.strategies import make_plan
from engine.profile.point import DECODE, Point
from engine.simulation.adaptation.plant import problem
from engine.simulation.adaptation.traces import link_avoidable


def believed(factors: tuple[float, ...]) -> Beliefs:
    """After 320 steps as measured and 320 whose three hops take `factors` as long, all with a little noise."""
    view = AdaptationView(make_plan(problem(), "balanced", 1), problem(), "balanced")
    metrics, beliefs, rng = RuntimeMetrics(), Beliefs(), random.Random(0)
    metrics.start_plan(view)
    for factor in ((1.0, 1.0, 1.0), factors):
        for _ in range(320):
            timings = tuple(StageTiming(s.node_id, 0.01, 0.0, 0.0, 0.0) for s in view.plan.stages)
            hops = tuple(0.0005 * f * rng.lognormvariate(0.0, 0.1) for f in factor)
            metrics.add_step(StepSample(1, Point(DECODE, 1, 16, 1), timings, hops))
            beliefs.update(metrics)
    return beliefs


def test_one_slow_link_is_known_by_name() -> None:
    assert believed((1.0, 20.0, 1.0)).link_factors() == {"w2>w3": pytest.approx(20.0, rel=0.2)}


def test_what_all_links_show_is_waiting_and_blames_none() -> None:
    assert all(factor < 1.3 for factor in believed((5.0, 5.0, 5.0)).link_factors().values())


def test_a_faster_link_makes_no_other_one_slow() -> None:
    assert believed((1.0, 0.2, 1.0)).link_factors() == {}


def test_only_the_named_direction_gets_slower() -> None:
    uniform = problem()
    slower = with_slower_links(uniform, {"w1>w2": 4.0, "w3>coordinator": 9.0, "w1>gone": 2.0})
    assert isinstance(slower.links, tuple) and isinstance(uniform.links, Link)
    found = {(p.from_id, p.to_id): p.link.latency_s for p in slower.links}
    assert len(found) == 6 and found.pop(("w1", "w2")) == 4 * uniform.links.latency_s
    assert set(found.values()) == {uniform.links.latency_s}
    assert with_slower_links(slower, {"w2>w1": 3.0}).links != slower.links
    assert with_slower_links(uniform, {"w1>w2": 0.5}) is uniform


def test_measured_pairs_keep_their_own_times() -> None:
    pairs = (PairLink("w1", "w2", Link(0.002, 1e6)), PairLink("w2", "w3", Link(0.001)))
    slower = with_slower_links(replace(problem(), links=pairs), {"w2>w1": 2.0})
    assert isinstance(slower.links, tuple)
    found = {(p.from_id, p.to_id): p.link for p in slower.links}
    assert found["w2", "w1"] == Link(0.004, 5e5) and found["w1", "w2"] == Link(0.002, 1e6) and ("w1", "w3") not in found


def test_a_node_that_left_takes_what_was_known_of_its_links_along() -> None:
    """When it joins again its links are measured again; what steps had shown must not count twice."""
    watch, trace = Watch(Gates(), MigrationRates()), link_avoidable()
    view = AdaptationView(make_plan(problem(), trace.strategy, 1), problem(), trace.strategy)
    watch.look(view, 0.0)
    watch.beliefs = believed((20.0, 1.0, 1.0))
    assert set(watch.beliefs.link_factors()) == {"w1>w2"}
    watch.look(replace(view, problem=problem(("w1", "w2"))), 1.0)
    assert set(watch.beliefs.link_s) == {"w1>w2"}
    watch.look(replace(view, problem=problem(("w2", "w3"))), 2.0)
    assert watch.beliefs.link_s == watch.beliefs.link_factors() == {}
