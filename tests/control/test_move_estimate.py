"""What a move is said to cost, beside what it then carries; every figure that nobody measured is said to be assumed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from engine.control import events as on
from engine.control.move_estimate import estimate_move, preview_of_drains
from engine.control.nodes.members import Supposed
from engine.data.errors import InvalidInput, NotFound, Refused
from engine.data.measured_link import MeasuredLink
from engine.data.model import Item
from engine.data.plan import Stage
from engine.planning.problem import Infeasible
from tests.control.harness import Driver

OTHER = (Stage("w1", 0, 3), Stage("w3", 3, 5))


def test_a_move_carries_what_was_estimated() -> None:
    driver = Driver(hold=True).start()
    driver.submit("s1", max_new_tokens=9)
    driver.report(driver.held.pop())
    plan = driver.cluster.plan
    assert plan is not None and [s.num_items for s in plan.stages] == [2, 2, 1]
    told = estimate_move(driver.cluster, OTHER)
    assert (told.plan_version, told.num_items, told.num_sessions) == (1, 2, 1)
    assert told.weight_bytes == 200 and told.kv_bytes == 2 * 10 * 4  # items 2 and 3, four tokens of ten bytes each
    assert driver.cluster.plan_version == 1 and driver.cluster.rebalancer.move is None
    driver.feed(on.ReplanRequested(1, "", OTHER))
    driver.answer_all()
    assert driver.cluster.rebalancer.reports[-1].num_items == told.num_items


def test_the_same_stages_cost_nothing_and_leave_nothing_unknown() -> None:
    driver = Driver().start()
    plan = driver.cluster.plan
    assert plan is not None
    told = estimate_move(driver.cluster, plan.stages)
    assert (told.num_items, told.weight_bytes, told.kv_bytes, told.load_s, told.copy_s, told.pause_s) == (0, 0, 0, 0.0, 0.0, 0.0)
    assert told.unknowns == ()
    assert all(node.now_bytes == node.peak_bytes == node.after_bytes for node in told.nodes)


def test_memory_rises_while_a_node_holds_both_stages() -> None:
    driver = Driver().start()
    told = {node.node_id: node for node in estimate_move(driver.cluster, (Stage("w2", 0, 4), Stage("w1", 4, 5))).nodes}
    assert (told["w1"].now_bytes, told["w1"].peak_bytes, told["w1"].after_bytes) == (200, 300, 100)
    assert (told["w2"].now_bytes, told["w2"].peak_bytes, told["w2"].after_bytes) == (200, 400, 400)
    assert (told["w3"].now_bytes, told["w3"].after_bytes, told["w3"].limit_bytes) == (100, 0, 10_000)


def test_copy_time_is_that_of_the_measured_link_and_the_slowest_known_stands_in() -> None:
    driver = Driver(hold=True)
    driver.links = {
        pair: MeasuredLink(*pair, round_trip_s=0.2, bandwidth_bytes_per_s=10.0) for pair in (("w1", "w2"), ("w2", "w1"), ("w2", "w3"))
    }
    driver.start()
    driver.submit("s1", max_new_tokens=9)
    driver.report(driver.held.pop())
    to_w1 = estimate_move(driver.cluster, (Stage("w1", 0, 3), Stage("w2", 3, 4), Stage("w3", 4, 5)))
    assert to_w1.copy_s == pytest.approx(0.1 + 40 / 10.0)  # one item of 40 bytes over w2 > w1
    assert not any("link" in text for text in to_w1.unknowns)
    unmeasured = estimate_move(driver.cluster, (Stage("w1", 0, 2), Stage("w2", 2, 5)))
    assert unmeasured.copy_s == pytest.approx(0.1 + 40 / 10.0)
    assert "the link w3 > w2 was not measured: the slowest known one is assumed" in unmeasured.unknowns


def test_speeds_are_assumed_until_a_move_was_done_and_learnt_from_then_on() -> None:
    driver = Driver(hold_moves=True).start()
    first = estimate_move(driver.cluster, OTHER)
    assert first.num_measured == 0 and first.pause_s == 0.25
    assert "w1, w3 were measured at a short context only: P on screen 2 profiles them" in first.unknowns
    assert any("no move was done here yet: 500 MB/s of loading and 0.25 s of pause are assumed" in text for text in first.unknowns)
    driver.feed(on.ReplanRequested(1, "", OTHER))
    driver.now_s = 2.0
    for worker_id in ("w1", "w2", "w3"):
        driver.beat(worker_id)
    driver.hold_moves = False
    driver.answer_moves()
    assert driver.cluster.plan_version == 2
    back = estimate_move(driver.cluster, (Stage("w1", 0, 2), Stage("w2", 2, 4), Stage("w3", 4, 5)))
    assert back.num_measured == 1 and back.load_s == pytest.approx(2.0) and back.pause_s == 0.0
    assert not any("no move was done" in text for text in back.unknowns)
    assert "w2 serves nothing now: its times are from measuring alone" in back.unknowns


def test_sessions_that_would_not_fit_are_said_to_be_waited_for() -> None:
    driver = Driver(hold=True).start()
    driver.submit("s1", num_prompt=20, max_new_tokens=30)
    on_one = estimate_move(driver.cluster, (Stage("w1", 0, 5),))
    assert "running sessions reserve 50 tokens of KV and the new plan holds 40: it waits until some have ended" in on_one.unknowns


def test_without_a_plan_or_with_stages_of_another_model_it_is_refused() -> None:
    with pytest.raises(Refused, match="no plan serves now"):
        estimate_move(Driver(num_workers=3).cluster, OTHER)
    driver = Driver().start()
    for stages in ((), (Stage("w1", 0, 6),), (Stage("w1", -1, 5),)):
        with pytest.raises(InvalidInput, match="items 0-4 of this model"):
            estimate_move(driver.cluster, stages)


@given(some.data())
def test_memory_counts_every_tensor_once(data: some.DataObject) -> None:
    """Against a slow reference that names every tensor, with random ties between two items."""
    from engine.control.move_estimate import _weight_bytes

    sizes = data.draw(some.lists(some.integers(10, 50), min_size=2, max_size=7))
    head = len(sizes) - 1
    shared = data.draw(some.integers(0, min(sizes[0], sizes[head])))
    tie = {"tied_to": 0, "tied_bytes": shared} if shared else {}
    items = tuple(Item(f"i{n}", size, 0, 0, **(tie if n == head else {})) for n, size in enumerate(sizes))
    held = data.draw(some.sets(some.integers(0, head)))
    tensors = {("own", n): sizes[n] - (shared if n in (0, head) else 0) for n in held}
    tensors |= {"shared": shared} if held & {0, head} else {}
    assert _weight_bytes(items, held) == sum(tensors.values())


def test_what_draining_would_lead_to_is_what_draining_leads_to() -> None:
    driver = Driver().start()
    told = preview_of_drains(driver.cluster, Supposed(drained=("w2",)))
    assert driver.cluster.plan_version == 1 and {s.node_id for s in told.stages} == {"w1", "w3"}
    driver.feed(on.DrainRequested(("w2",)))
    assert driver.cluster.plan is not None and driver.cluster.plan.stages == told.stages
    with pytest.raises(NotFound, match="w9 is not in the cluster"):
        preview_of_drains(driver.cluster, Supposed(drained=("w9",)))
    with pytest.raises(Infeasible):
        preview_of_drains(Driver(num_workers=1).start().cluster, Supposed(drained=("w1",)))
