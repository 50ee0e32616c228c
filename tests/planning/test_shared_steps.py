"""Sessions that share steps: every strategy against enumeration, and what a step carries against the scheduler's own rule."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any

import pytest

from engine.control.sessions.batching import num_lanes
from engine.data.errors import InvalidInput
from engine.data.model import Item
from engine.data.plan import NodeSpec
from engine.planning import load
from engine.planning.documents.problem_json import problem_from, problem_to_json, read_problem
from engine.planning.load import Host, lanes_by_stages, steps_of, times_at
from engine.planning.problem import Infeasible, Link, PlanningNode, Problem
from engine.planning.solution import evaluate
from engine.planning.strategies import STRATEGIES, solve
from engine.profile.cost_model import CostModel, ItemLaw, PhaseLaws
from engine.profile.point import DECODE
from tests.planning.fuzz import PATHS, batched_differences
from tests.planning.reference import batched_problem

BATCH = 250


@pytest.mark.parametrize("batch", range(8))
def test_equals_enumeration(batch: int) -> None:
    """2,000 problems, every strategy: the best of all plans, or with shared hosts a bound that none is below."""
    found = [batched_differences(seed, PATHS[seed % 3]) for seed in range(batch * BATCH, (batch + 1) * BATCH)]
    assert [line for _, lines in found for line in lines] == []
    assert sum(still_open for still_open, _ in found) < 0.1 * BATCH * len(STRATEGIES)


@pytest.mark.parametrize("seed", [2745, 6336, 50043, 102381, 140105, 141260])
def test_what_the_long_fuzz_found_stays_right(seed: int) -> None:
    """A plan exactly 1.05 times as slow as the fastest; plans of more stages that are late only where hosts are shared; one node
    alone on a host that reads messages; a stage and a message, and stages of two plans, whose times only rounding tells apart."""
    assert batched_differences(seed, PATHS[seed % 3])[1] == []


def test_the_comparison_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "MOST_ROWS", 5)
    assert [line for seed in range(60) for line in batched_differences(seed, PATHS[0])[1]]


def test_times_at_some_rows_are_those_of_the_cost_model() -> None:
    counts = (1, 2, 4, 8)
    laws = tuple(ItemLaw((3.0, 3.5, 3.25, 6.0 + i), pair_s=0.0) for i in range(3))
    model = CostModel((PhaseLaws(DECODE, counts, laws),))
    by_batch = tuple((n, tuple(model.time_s(i, DECODE, 1, 0, n) for i in range(3))) for n in counts)
    for rows in (1, 2, 3, 5, 8, 11, 64):
        assert times_at(by_batch, rows) == pytest.approx([model.time_s(i, DECODE, 1, 0, rows) for i in range(3)])


def test_lanes_are_counted_as_the_scheduler_counts_them() -> None:
    rng = random.Random(3)
    for _ in range(300):
        able = {f"h{k}": rng.randint(1, 4) for k in range(3)}
        homes = [rng.choice(["h0", "h1", "h2", ""]) for _ in range(rng.randint(1, 7))]
        specs = [_spec(u, home or f"own {u}", able.get(home, 1)) for u, home in enumerate(homes)]
        assert load.num_lanes(homes, able) == num_lanes(specs)
        for count, lanes in lanes_by_stages(homes, able).items():
            drawn = [rng.sample(homes, count) for _ in range(10)]
            assert {load.num_lanes(some, able) for some in drawn} <= lanes


def _spec(u: int, host: str, at_once: int) -> NodeSpec:
    return NodeSpec(f"n{u}", "", host, 0, "cpu", "", num_threads=2, memory_bytes=0, kv_budget_bytes=0, num_cores=2 * at_once)


@pytest.mark.parametrize(
    ("sessions", "lanes", "in_flight", "rows"),
    [(1, 4, 1, 1), (8, 1, 1, 8), (8, 3, 3, 8 / 3), (8, 5, 5, 8 / 5), (9, 8, 8, 9 / 8), (400, 2, 2, 128)],
)
def test_what_a_step_carries(sessions: int, lanes: int, in_flight: int, rows: float) -> None:
    assert steps_of(sessions, lanes) == load.Steps(in_flight, pytest.approx(rows))


def test_one_batch_that_grows_with_its_rows_is_the_problem_without_batches_but_for_the_rounds() -> None:
    """With m rows at m times the time, and no links, sharing a step gains nothing: as one row a step."""
    nodes = tuple(PlanningNode(f"n{u}", time_s=(1.0 + u,) * 4, time_s_by_batch=((1, (1.0 + u,) * 4),)) for u in range(3))
    problem = Problem((Item("i", 1, 0, 0),) * 4, nodes, in_flight=3)
    alone = replace(problem, nodes=tuple(replace(node, time_s_by_batch=()) for node in nodes))
    for strategy in ("auto", "latency_optimized"):
        assert solve(problem, strategy).objective == pytest.approx(solve(alone, strategy).objective)


def test_one_node_is_left_alone_where_a_network_is_far() -> None:
    """Eight sessions over links of 20 ms: rows shared on one node beat a faster bottleneck."""
    slow, fast = (0.6e-3,) * 32, (0.5e-3,) * 32
    nodes = tuple(
        PlanningNode(name, time_s=one, time_s_by_batch=((1, one), (8, tuple(1.5 * t for t in one))))
        for name, one in (("a", fast), ("b", slow))
    )
    problem = Problem((Item("i", 1, 0, 4096),) * 32, nodes, Link(0.02), in_flight=8, link_cost="streamed")
    found = solve(problem, "auto")
    assert [stage.node_id for stage in found.stages] == ["a"] and found.optimal and found.steps == load.Steps(1, 8.0, runs_ahead=True)
    assert found.period_s == pytest.approx(32 * 0.75e-3 / 8) and found.period_s < evaluate(problem, ((0, 0, 26), (1, 26, 32))).period_s


def test_all_steps_come_around_with_the_largest() -> None:
    """Four sessions on three lanes: steps of 2, 1 and 1 rows in a line, of which none overtakes."""
    one, two = (1.0,) * 4, (1.5,) * 4
    nodes = tuple(PlanningNode(f"n{u}", time_s=one, time_s_by_batch=((1, one), (2, two))) for u in range(2))
    problem = Problem((Item("i", 1, 0, 12),) * 4, nodes, Link(0.5, 24.0), in_flight=4, link_cost="streamed", return_hop=False)
    costs = evaluate(problem, ((0, 0, 2), (1, 2, 4)))
    assert costs.steps.most_rows == 2 and [s.time_s for s in costs.stages] == pytest.approx([2 * (1 + 0.5 / 3)] * 2)
    assert costs.round_trip_s == pytest.approx(4 * 1.5 + 0.5 + 2 * 12 / 24)
    assert costs.stages[0].held_s == pytest.approx(4 / 3 * 12 / 24)
    assert costs.period_s == pytest.approx(costs.round_trip_s / 4)
    assert solve(problem, "auto").optimal


def test_messages_take_cores_of_a_host() -> None:
    one = (1.0,) * 4
    nodes = tuple(PlanningNode(f"n{u}", time_s=one, time_s_by_batch=((1, one),), host_id="box") for u in range(2))
    problem = Problem((Item("i", 1, 0, 0),) * 4, nodes, in_flight=2, hosts=(Host("box", 2, message_s=0.5),))
    assert evaluate(problem, ((0, 0, 2), (1, 2, 4))).bottleneck_s == (2 * 2.0 + 2 * 0.5) / 2
    with pytest.raises(InvalidInput, match="message_s -1"):
        Host("box", message_s=-1)


def test_workers_of_one_host_slow_each_other() -> None:
    one = (1.0,) * 4
    nodes = tuple(PlanningNode(f"n{u}", time_s=one, time_s_by_batch=((1, one), (2, one)), host_id="box") for u in range(2))
    problem = Problem((Item("i", 1, 0, 0),) * 4, nodes, in_flight=2, hosts=(Host("box", 1, 0.5),))
    both = evaluate(problem, ((0, 0, 2), (1, 2, 4)))
    assert both.steps == load.Steps(1, 2.0) and both.round_trip_s == 6.0 and both.period_s == 3.0
    roomy = evaluate(replace(problem, hosts=(Host("box", 2, 0.5),)), ((0, 0, 2), (1, 2, 4)))
    assert roomy.steps == load.Steps(2, 1.0) and roomy.period_s == 3.0 and solve(problem, "auto").period_s == 2.0


def test_documents_are_read_and_written() -> None:
    rng = random.Random(11)
    for _ in range(60):
        problem = read_problem(problem_to_json(batched_problem(rng)))
        assert problem.is_batched and read_problem(problem_to_json(problem)) == problem


DOCUMENT: dict[str, Any] = {
    "items": [{"name": "a"}, {"name": "b"}],
    "nodes": [
        {"id": "x", "time_s_by_batch": {"1": [1, 2], "8": [2, None]}},
        {"id": "y", "time_s": [1, 2], "time_s_by_batch": {"4": [2, 3]}},
    ],
    "hosts": [{"id": "h", "stages_at_once": 2}],
    "in_flight": 4,
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "node x can run item 1 in some batches only"),
        ({"x": {"8": [2, 2]}}, r"nodes\[0\].time_s_by_batch has no times of steps with 1 row"),
        ({"x": {"1": [1, 2], "0": [1, 2]}}, "has the key '0': it must be a number of rows from 1"),
        ({"x": {"1": [1, 2], "2": [1]}}, "time_s_by_batch 2 has 1 times, the problem has 2 items"),
        ({"x": []}, "it must be an object of rows: item times"),
        ({"x": None}, "either time_s"),
        ({"home": "z", "x": {"1": [1, 2]}}, "is on host 'z': the hosts are h"),
    ],
)
def test_a_wrong_document_is_refused(change: dict[str, Any], said: str) -> None:
    document = json.loads(json.dumps(DOCUMENT))
    if "x" in change:
        document["nodes"][0]["time_s_by_batch"] = change["x"]
        if change["x"] is None:
            del document["nodes"][0]["time_s_by_batch"]
    if "home" in change:
        document["nodes"][0]["host"] = change["home"]
    with pytest.raises(InvalidInput, match=said):
        problem_from(document)


def test_batches_are_for_every_node_or_for_none() -> None:
    document = json.loads(json.dumps(DOCUMENT))
    document["nodes"][0] = {"id": "x", "time_s": [1, 2]}
    with pytest.raises(InvalidInput, match="node x has no time_s_by_batch and others have"):
        problem_from(document)


def test_with_batches_links_stream_and_every_session_has_its_keys_and_values() -> None:
    document = json.loads(json.dumps(DOCUMENT))
    document["nodes"][0]["time_s_by_batch"]["8"] = [2, 3]
    problem = problem_from(document)
    assert (problem.link_cost, problem.sessions, problem.nodes[1].time_s_by_batch) == ("streamed", 4, ((1, (1.0, 2.0)), (4, (2.0, 3.0))))


def test_no_number_of_stages_fits() -> None:
    one = (1.0, 1.0)
    nodes = (PlanningNode("a", 1.0, one, time_s_by_batch=((1, one),)),)
    with pytest.raises(Infeasible, match="no placement satisfies every limit"):
        solve(Problem((Item("i", 1, 0, 0),) * 2, nodes, in_flight=2), "auto")
