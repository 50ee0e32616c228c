"""Arrivals and scenarios: what they mean, and that impossible ones are refused by name."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from engine.data.errors import Exhausted, InvalidInput, Refused
from engine.data.plan import Plan, Stage
from engine.simulation.arrivals import Arrival, at_once, poisson, trace
from engine.simulation.scenario import LinkModel, NodeSetup, SoftwareCosts, VirtualHost
from engine.simulation.simulator import StagedSimulator
from tests.simulation.scenarios import plan, scenario

ONE = at_once(1, 4, 4)


def test_poisson_arrivals_have_their_rate_and_depend_on_the_seed_alone() -> None:
    found = poisson(4000, 8.0, 5, 6, random.Random(3))
    assert found == poisson(4000, 8.0, 5, 6, random.Random(3)) != poisson(4000, 8.0, 5, 6, random.Random(4))
    assert found[-1].arrival_s == pytest.approx(500, rel=0.06)
    gaps = [b.arrival_s - a.arrival_s for a, b in pairwise(found)]
    assert sum(gap > math.log(2) / 8.0 for gap in gaps) == pytest.approx(2000, rel=0.1)
    assert {(a.prompt_tokens, a.new_tokens) for a in found} == {(5, 6)}


def test_a_trace_is_sorted_by_arrival() -> None:
    assert trace([(2.0, 3, 4), (0.5, 1, 2)]) == (Arrival(0.5, 1, 2), Arrival(2.0, 3, 4))


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: Arrival(math.nan, 1, 1), "cannot arrive at nan"),
        (lambda: Arrival(-1.0, 1, 1), "cannot arrive at -1"),
        (lambda: Arrival(0.0, 0, 1), "0 prompt and 1 new"),
        (lambda: Arrival(0.0, 1, 10**9), "each must lie in"),
        (lambda: at_once(0, 1, 1), "0 sessions are not allowed"),
        (lambda: at_once(10**9, 1, 1), "1000000000 sessions"),
        (lambda: trace([]), "0 sessions"),
        (lambda: poisson(3, 0.0, 1, 1, random.Random(0)), "rate above 0"),
        (lambda: NodeSetup("a b"), "node 'a b' is not allowed"),
        (lambda: NodeSetup("coordinator"), "cannot be called coordinator"),
        (lambda: NodeSetup("a", slowdown=math.nan), "slowdown of a nan"),
        (lambda: NodeSetup("a", kv_budget_bytes=-1), "KV budget of a -1"),
        (lambda: VirtualHost("h", 0.0), "cores of a host 0"),
        (lambda: LinkModel(-0.1), "latency of a link -0.1"),
        (lambda: LinkModel(0.0, math.nan), "bandwidth of nan"),
        (lambda: SoftwareCosts(hop_s=math.inf), "software cost of a hop inf"),
        (lambda: scenario(2, arrivals=()), "no session to simulate"),
        (lambda: scenario(2, arrivals=at_once(100, 1, 1_000_000)), "the sessions have 100000100 tokens"),
        (lambda: scenario(2, arrivals=ONE, nodes=()), "0 nodes are not allowed"),
        (lambda: scenario(2, arrivals=ONE, nodes=(NodeSetup("n0"), NodeSetup("n0"))), "node n0 stands there twice"),
        (lambda: scenario(2, arrivals=ONE, nodes=(NodeSetup("n0", host_id="x"),)), "host 'x', which is not described"),
        (lambda: scenario(2, arrivals=ONE, links={("n0", "z"): LinkModel()}), "a link names 'z'"),
        (lambda: scenario(2, 2, arrivals=ONE, nodes=(NodeSetup("n0"),)), "the plan uses node 'n1'"),
    ],
)
def test_what_cannot_be_is_refused_by_name(build: Any, match: str) -> None:
    with pytest.raises(InvalidInput, match=match):
        build()


@pytest.mark.parametrize(
    ("stages", "match"),
    [
        ((Stage("n0", 0, 2), Stage("n1", 3, 5)), "starts at item 3, the one before ends at 2"),
        ((Stage("n0", 0, 2), Stage("n0", 2, 4)), "stands there twice"),
        ((Stage("n0", 0, 2),), "are 2 items, the model has 4"),
        ((), "every stage needs 1 or more"),
    ],
)
def test_a_plan_must_cover_the_items_once(stages: tuple[Stage, ...], match: str) -> None:
    nodes = (NodeSetup("n0"), NodeSetup("n1"))
    good = scenario(2, 2, arrivals=ONE, nodes=nodes)

    with pytest.raises(InvalidInput, match=match):
        replace(good, plan=Plan(1, "given", stages))


def test_a_given_plan_is_what_runs_in_whatever_order_its_nodes_are_named() -> None:
    found = scenario(1, 3, arrivals=ONE)

    turned = Plan(1, "given", (Stage("n1", 0, 1), Stage("n0", 1, 4)))
    assert StagedSimulator(replace(found, plan=turned)).run().plan.stages == turned.stages
    assert StagedSimulator(found).run().plan.stages == plan(1, 3).stages


def test_without_a_plan_the_cluster_plans_with_the_nodes_own_speeds() -> None:

    found = replace(scenario(5, 5, arrivals=ONE, nodes=(NodeSetup("n0"), NodeSetup("n1", slowdown=4.0))), plan=None)
    assert [s.num_items for s in StagedSimulator(found).run().plan.stages] == [8, 2]


def test_what_the_cluster_refuses_is_refused_here() -> None:
    small = NodeSetup("n0", kv_budget_bytes=10 * 2 * 7)
    with pytest.raises(Exhausted, match=r"KV for 8 tokens.*the budget holds 7"):
        StagedSimulator(scenario(2, arrivals=ONE, nodes=(small,))).run()
    with pytest.raises(InvalidInput, match="the model's context holds 4"):
        StagedSimulator(scenario(2, arrivals=ONE, context_tokens=4)).run()
    tiny = NodeSetup("n0", memory_bytes=100, kv_budget_bytes=50)
    with pytest.raises(Refused, match="has 0 MB free, the smallest layer"):
        StagedSimulator(scenario(2, arrivals=ONE, nodes=(tiny,))).run()
