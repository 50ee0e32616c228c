"""The plan as a document: JSON without loss, damage refused by name, differences, comparison with what runs."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.errors import Corrupt, InvalidInput, NotSupported
from engine.data.model import Item
from engine.data.plan import Stage
from engine.planning.documents.comparison import compare
from engine.planning.documents.partition_plan import PartitionPlan
from engine.planning.documents.plan_diff import diff, diff_ranges
from engine.planning.documents.plan_drawing import draw
from engine.planning.documents.plan_json import plan_from_json
from engine.planning.problem import Link, PlanningNode, Problem
from engine.planning.strategies import STRATEGIES, make_plan, solve
from tests.planning.plans import chains, plan, plans, plans_of

TWO = plan(("a", 0, 3, 0.003, 0.001), ("b", 3, 5, 0.002, 0.0))


@settings(max_examples=150)
@given(plans)
def test_json_and_back_without_loss(made: PartitionPlan) -> None:
    text = made.to_json()
    assert text.isascii() and plan_from_json(text) == made


def test_the_document_has_the_names_that_scripts_rely_on() -> None:
    document = json.loads(TWO.to_json())
    names = {"strategy", "stages", "bottleneck_s", "round_trip_s", "period_s", "objective", "lower_bound", "optimal", "solve_ms"}
    assert names | {"schema_version"} <= document.keys()
    stage = {"node": "b", "start": 3, "stop": 5, "time_s": 0.002, "hop_s": 0.0, "memory_bytes": 1e9, "room_bytes": 2e9}
    assert document["stages"][1] == stage


def changed(**values: object) -> str:
    return json.dumps({**TWO.document(), **values})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a plan"),
        ("[]", "no JSON object"),
        ("{}", "no schema_version"),
        (changed(schema_version=True), "no schema_version"),
        (changed(strategy=1), "plan.strategy is '1'"),
        (changed(bottleneck_s="NaN"), "plan.bottleneck_s"),
        (changed(stages=[]), "do not cover"),
        (changed(stages=[{"node": "a", "start": 0, "stop": 4, "time_s": 1.0, "memory_bytes": 1.0}]), r"cover the items \[0, 5\)"),
        (changed(stages=[{"node": "a", "start": 0, "stop": 5, "time_s": 1.0}]), r"stages\[0\] lacks memory_bytes"),
        (TWO.to_json().replace('"b"', '"a"'), "twice"),
        (TWO.to_json().replace("0.002", "1e999"), "time_s"),
        (TWO.to_json().replace("0.002", "1" + "0" * 400), "time_s"),
        (TWO.to_json()[:-9], "not a plan"),
    ],
)
def test_damage_is_refused_by_name(text: str, message: str) -> None:
    with pytest.raises(Corrupt, match=message):
        plan_from_json(text)


def test_a_later_schema_is_not_read_as_this_one() -> None:
    with pytest.raises(NotSupported, match="schema version 2, this program reads 1"):
        plan_from_json(changed(schema_version=2))


def test_a_plan_that_cannot_run_is_not_written() -> None:
    with pytest.raises(InvalidInput, match="not finite"):
        replace(TWO, bottleneck_s=math.inf).to_json()


def test_a_stage_without_items_cannot_be() -> None:
    with pytest.raises(InvalidInput, match="without items"):
        plan(("a", 0, 3, 0.1, 0.0), ("b", 3, 3, 0.1, 0.0), items=TWO.items[:3])


# --- differences ----------------------------------------------------------------------------------------------------
@settings(max_examples=150)
@given(chains().flatmap(lambda items: st.tuples(plans_of(items), plans_of(items))))
def test_moves_lead_from_one_plan_to_the_other(pair: tuple[PartitionPlan, PartitionPlan]) -> None:
    before, after = pair
    found = diff(before, after)
    owner = [stage.node_id for stage in before.stages for _ in range(stage.start, stage.stop)]
    for move in found.moves:
        assert owner[move.item] == move.from_node != move.to_node and move.name == before.items[move.item].name
        owner[move.item] = move.to_node
    assert owner == [stage.node_id for stage in after.stages for _ in range(stage.start, stage.stop)]
    assert found.num_bytes == _read_bytes(before, after), "what a node must read, counted tensor by tensor"
    assert diff(before, before).moves == ()
    assert [(m.from_node, m.to_node) for m in diff(after, before).moves] == [(m.to_node, m.from_node) for m in found.moves]


def _read_bytes(before: PartitionPlan, after: PartitionPlan) -> int:
    """The slow way: the set of tensors that each node holds before and after; at most the first and the last item share one."""
    last = len(after.items) - 1
    shared_bytes = max(after.items[0].tied_bytes, after.items[last].tied_bytes)

    def held(made: PartitionPlan) -> set[tuple[str, object, int]]:
        tensors: set[tuple[str, object, int]] = set()
        for stage in made.stages:
            for i in range(stage.start, stage.stop):
                shared = shared_bytes if i in (0, last) else 0
                tensors |= {(stage.node_id, i, made.items[i].weight_bytes - shared), (stage.node_id, "table", shared)}
        return tensors

    return sum(size for _, _, size in held(after) - held(before))


def test_a_tied_tensor_is_read_once_and_not_where_it_lies_already() -> None:
    items = (Item("embed", 1000, 0, 4), Item("h.0", 50, 0, 4), Item("head", 1010, 0, 4, tied_to=0, tied_bytes=1000))
    whole, ends = (Stage("a", 0, 3),), (Stage("a", 0, 2), Stage("b", 2, 3))
    assert diff_ranges(items, whole, ends).num_bytes == 1010, "b has none of it"
    assert diff_ranges(items, ends, whole).num_bytes == 10, "a holds the table already"


def test_nodes_that_come_and_go_are_named() -> None:
    items = tuple(Item(f"h.{i}", 100, 0, 4) for i in range(4))
    found = diff_ranges(items, (Stage("a", 0, 2), Stage("b", 2, 4)), (Stage("c", 0, 1), Stage("a", 1, 4)))
    assert (found.joining, found.leaving) == (("c",), ("b",))
    assert [(m.item, m.from_node, m.to_node) for m in found.moves] == [(0, "a", "c"), (2, "b", "a"), (3, "b", "a")]
    with pytest.raises(InvalidInput, match="different items"):
        diff(TWO, plan(("a", 0, 4, 0.1, 0.0)))
    with pytest.raises(InvalidInput, match="cover 3 items, there are 4"):
        diff_ranges(items, (Stage("a", 0, 3),), (Stage("a", 0, 4),))


# --- comparison -----------------------------------------------------------------------------------------------------
def problem(memory_bytes: float = 1e9, **changes: object) -> Problem:
    items = tuple(Item(f"h.{i}", 100, 10, 4000) for i in range(6))
    nodes = (
        PlanningNode("a", memory_bytes, (0.001,) * 6, price_per_s=3.0),
        PlanningNode("b", memory_bytes, (0.002,) * 6, price_per_s=1.0),
        PlanningNode("c", memory_bytes, (0.004,) * 6, price_per_s=1.0),
    )
    return Problem(items, nodes, Link(0.0005, 1e8), **changes)  # type: ignore[arg-type]


def test_every_strategy_is_compared_with_what_runs() -> None:
    asked = problem()
    running = PartitionPlan.of_running(asked, (Stage("b", 0, 3), Stage("c", 3, 6)), 4, "gpt2")
    clock = iter(range(100))
    rows = compare(asked, running, lambda: float(next(clock)))
    assert [row.strategy for row in rows] == ["current", *STRATEGIES] and not any(row.failure for row in rows)
    assert rows[0].plan is running and rows[0].moves is None and running.bottleneck_s == pytest.approx(0.012)
    assert running.plan_version == 4 and not running.optimal and math.isinf(running.gap)
    for row in rows[1:]:
        assert row.plan is not None and row.moves == diff(running, row.plan)
        assert row.plan.plan() == replace(make_plan(asked, row.strategy, 0), plan_version=0)
        assert row.plan.search.solve_ms == 1000.0 and row.plan.model == "gpt2"


def test_a_strategy_without_a_plan_says_why() -> None:
    rows = compare(problem(memory_bytes=50.0), None, lambda: 0.0)
    assert len(rows) == len(STRATEGIES) and all(row.plan is None and row.failure and row.moves is None for row in rows)


def test_a_running_plan_that_the_problem_does_not_know_is_refused() -> None:
    with pytest.raises(InvalidInput, match="node 'z'"):
        PartitionPlan.of_running(problem(), (Stage("z", 0, 6),), 1)
    with pytest.raises(InvalidInput, match="no stage"):
        PartitionPlan.of_running(problem(), (), 1)
    with pytest.raises(InvalidInput, match="do not cover"):
        PartitionPlan.of_running(problem(), (Stage("a", 0, 5),), 1)


def test_rates_follow_from_round_trip_and_bottleneck() -> None:
    asked = problem()
    made = PartitionPlan.of(asked, solve(asked, "balanced"))
    assert made.tokens_per_s(1) == pytest.approx(1.0 / made.round_trip_s)
    assert made.tokens_per_s(1000) == pytest.approx(1.0 / made.bottleneck_s)
    assert TWO.bottleneck == (0, False) and plan(("a", 0, 1, 0.001, 0.005), ("b", 1, 2, 0.002, 0.0)).bottleneck == (0, True)


def test_the_load_balance_is_one_where_all_stages_take_equally_long() -> None:
    assert plan(("a", 0, 2, 0.2, 0.0), ("b", 2, 4, 0.2, 0.0)).load_balance == 1.0
    assert plan(("a", 0, 2, 0.3, 0.0), ("b", 2, 4, 0.1, 0.0)).load_balance == pytest.approx(2 / 3)
    assert plan(("a", 0, 2, 0.0, 0.0)).load_balance == 1.0


@given(plans)
def test_the_load_balance_lies_between_zero_and_one(made: PartitionPlan) -> None:
    assert 0.0 < made.load_balance <= 1.0 and made.document()["load_balance"] == made.load_balance
    assert made.visualize(60) == draw(made, 60)
