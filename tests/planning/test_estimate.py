"""A plan for machines on which nobody ran the model: who is left out, what is assumed of the others."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from engine.planning.estimating.estimate import Machine, estimate
from engine.planning.problem import Infeasible, Link, MemoryPool
from engine.planning.strategies import STRATEGIES, solve
from engine.profile.hardware import BFLOAT16, FLOAT32, DeviceType
from engine.profile.profile import Roofline
from tests.planning.test_capability import box
from tests.planning.test_profile import profile

MADE = profile(items=(replace(profile().items[0], tied_to=None, tied_bytes=0),))
REFERENCE = box("cpu", rooflines={FLOAT32: MADE.environment.roofline})


def test_the_machine_of_the_profile_keeps_its_times() -> None:
    problem, match = estimate(MADE, [Machine("here", (REFERENCE,))], "balanced", Link(0.1, 1e6), sessions=2, context_tokens=3)
    (node,) = problem.nodes
    assert node.node_id == "here.cpu" and node.time_s == pytest.approx((0.02,)) and node.price_per_s == 65.0
    assert (problem.sessions, problem.context_tokens, problem.links, problem.pools) == (2, 3, Link(0.1, 1e6), ())
    assert problem.items[0].weight_bytes == MADE.items[0].weight_bytes and match.scores == {"here.cpu": 1.0}


def test_a_faster_machine_gets_the_work() -> None:
    fast = replace(REFERENCE, rooflines={FLOAT32: Roofline(1e13, 2e12, 1e-9)})
    problem, match = estimate(MADE, [Machine("slow", (REFERENCE,)), Machine("fast", (fast,))], "latency_optimized", Link())
    assert match.scores["fast.cpu"] == 1.0 > match.scores["slow.cpu"] and problem.nodes[1].time_s[0] <= problem.nodes[0].time_s[0]
    assert [s.node_id for s in solve(problem, "bottleneck_first").stages] in (["fast.cpu"], ["slow.cpu"])


def test_a_machine_that_cannot_compute_it_is_left_out_with_a_reason() -> None:
    other = replace(REFERENCE, rooflines={BFLOAT16: Roofline(1e12, 1e11)})
    problem, match = estimate(MADE, [Machine("a", (REFERENCE,)), Machine("b", (other,))], "balanced", Link())
    assert [node.node_id for node in problem.nodes] == ["a.cpu"]
    assert [r.node_id for r in match.refusals] == ["b.cpu"] and "float32" in match.refusals[0].reason
    with pytest.raises(Infeasible, match=r"no node can hold layers: b\.cpu"):
        estimate(MADE, [Machine("b", (other,))], "balanced", Link())


def test_an_integrated_gpu_draws_from_its_hosts_memory_and_a_dedicated_one_does_not() -> None:
    integrated = replace(REFERENCE, node_id="cuda:0", device_type=DeviceType.CUDA_INTEGRATED, num_sms=16)
    dedicated = replace(integrated, node_id="cuda:1", device_type=DeviceType.CUDA)
    problem, _ = estimate(MADE, [Machine("m", (REFERENCE, integrated, dedicated)), Machine("n", (REFERENCE,))], "balanced", Link())
    assert problem.pools == (MemoryPool("m", REFERENCE.memory_bytes),)
    assert estimate(MADE, [Machine("d", (REFERENCE, dedicated))], "balanced", Link())[0].pools == ()
    assert {node.node_id: node.pool_id for node in problem.nodes} == {"m.cpu": "m", "m.cuda:0": "m", "m.cuda:1": None, "n.cpu": None}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_scores(strategy: str) -> None:
    _, match = estimate(MADE, [Machine("a", (REFERENCE,))], strategy, Link())
    assert match.scores == {"a.cpu": 1.0} and all(math.isfinite(s) for s in match.scores.values())
