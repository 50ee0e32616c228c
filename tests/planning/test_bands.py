"""How far a plan's figures can be trusted: the band of its period, and the plan that may be as good."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.data.errors import InvalidInput
from engine.data.model import Item
from engine.data.plan import Stage, ranges_text
from engine.planning.documents.problem_json import problem_to_json, read_problem
from engine.planning.estimating.bands import SCALED_ERROR, band_of, error_of, rival_of
from engine.planning.estimating.estimate import Machine, estimate
from engine.planning.problem import Link, PlanningNode, Problem
from engine.planning.solution import evaluate
from engine.planning.strategies import STRATEGIES, solve
from engine.profile.hardware import FLOAT32
from engine.profile.profile import Roofline
from tests.planning.test_capability import box
from tests.planning.test_estimate import MADE, REFERENCE

ITEMS = tuple(Item(f"h.{i}", 100, 0, 4) for i in range(8))


def two_nodes(error: float) -> Problem:
    """A measured node, and one whose times are only known within a factor of 1 + `error`."""
    nodes = PlanningNode("a", 600.0, (0.010,) * 8), PlanningNode("b", 600.0, (0.010,) * 8, time_error=error)
    return Problem(ITEMS, nodes, in_flight=2)


def test_the_band_holds_what_the_plan_takes_at_both_ends() -> None:
    problem = two_nodes(0.25)
    cuts = solve(problem, "bottleneck_first").cuts
    assert cuts == ((0, 0, 4), (1, 4, 8))
    band = band_of(problem, cuts)
    assert band is not None and band.most_period_s == pytest.approx(0.040 * 1.25)
    assert band.least_period_s == pytest.approx(0.040)  # the other stage is measured, and takes as long as before


def test_there_is_no_band_and_no_rival_where_all_times_were_measured() -> None:
    problem = two_nodes(0.0)
    for strategy in STRATEGIES:
        cuts = solve(problem, strategy).cuts
        assert band_of(problem, cuts) is None and rival_of(problem, strategy, cuts) is None


def test_a_rival_is_better_by_what_is_said_of_it() -> None:
    problem = two_nodes(0.5)
    cuts = solve(problem, "bottleneck_first").cuts
    rival = rival_of(problem, "bottleneck_first", cuts)
    assert rival is not None and (rival.if_node, rival.takes_times) == ("b", pytest.approx(1 / 1.5))
    faster = replace(problem, nodes=(problem.nodes[0], PlanningNode("b", 600.0, (0.010 / 1.5,) * 8)))
    better = solve(faster, "bottleneck_first")
    assert rival.stages == tuple(Stage(s.node_id, s.start, s.stop) for s in better.stages) and better.cuts != cuts
    ours, theirs = (evaluate(faster, each).bottleneck_s for each in (cuts, better.cuts))
    assert rival.gain == pytest.approx(ours / theirs - 1) and rival.gain > 0.03
    ours, theirs = (evaluate(problem, each).bottleneck_s for each in (cuts, better.cuts))
    assert rival.else_loss == pytest.approx(theirs / ours - 1) and rival.else_loss > 0
    said = rival.sentence("a 0-3 | b 4-7")
    assert said.startswith(f"uncertain: these two plans cannot be told apart: a 0-3 | b 4-7, and {ranges_text(rival.stages)}; ")
    assert "if b is 50 % faster than was taken here" in said


def test_a_node_that_rests_may_be_what_the_choice_depends_on() -> None:
    nodes = PlanningNode("a", 900.0, (0.010,) * 8), PlanningNode("b", 900.0, (0.080,) * 8, time_error=9.0)
    problem = Problem(ITEMS, nodes)
    cuts = solve(problem, "auto").cuts
    assert cuts == ((0, 0, 8),)
    rival = rival_of(problem, "auto", cuts)
    assert rival is not None and rival.if_node == "b" and rival.takes_times == pytest.approx(0.1)
    assert "if b is 900 % faster" in rival.sentence("a 0-7")


def test_a_small_error_decides_nothing() -> None:
    problem = two_nodes(0.01)
    cuts = solve(problem, "bottleneck_first").cuts
    assert band_of(problem, cuts) is not None and rival_of(problem, "bottleneck_first", cuts) is None


def test_the_shares_of_memory_do_not_depend_on_times() -> None:
    problem = two_nodes(0.5)
    assert rival_of(problem, "memory_aware", solve(problem, "memory_aware").cuts) is None


def test_a_machine_is_as_uncertain_as_its_profile_is_rough_and_as_it_is_far() -> None:
    rough = replace(MADE, honesty=replace(MADE.honesty, noise_cv=0.1, coverage=1.0))
    assert error_of(rough, 1.0, 1.0) == pytest.approx(0.1)
    assert error_of(rough, 3.0, 1.0) == pytest.approx(1.1 * (1 + SCALED_ERROR) - 1)
    assert error_of(rough, 1.1, 1.0) == error_of(rough, 1 / 1.1) == pytest.approx(1.1 * (1 + 0.1 * SCALED_ERROR) - 1)
    uncovered = replace(MADE, honesty=replace(MADE.honesty, noise_cv=0.01, coverage=0.9))
    assert error_of(uncovered) == pytest.approx(0.1)


def test_an_estimated_problem_says_how_far_its_nodes_are_known() -> None:
    roof = MADE.environment.roofline
    far = box("cpu", rooflines={FLOAT32: Roofline(roof.flops_per_s / 4, roof.bytes_per_s / 4, roof.dispatch_s)})
    problem, _ = estimate(MADE, [Machine("here", (REFERENCE,)), Machine("far", (far,))], "auto", Link())
    here, there = problem.nodes
    assert there.time_error == pytest.approx((1 + here.time_error) * (1 + SCALED_ERROR) - 1)
    assert read_problem(problem_to_json(problem)) == problem


def test_an_error_that_cannot_be_is_refused() -> None:
    document = '{"items": [{}], "nodes": [{"id": "a", "time_s": [1], "time_error": 11}]}'
    with pytest.raises(InvalidInput, match=r"nodes\[0\]\.time_error"):
        read_problem(document)
    with pytest.raises(InvalidInput, match="time_error"):
        Problem(ITEMS[:1], (PlanningNode("a", time_s=(1.0,), time_error=-0.1),))
