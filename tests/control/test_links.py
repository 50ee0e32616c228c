"""Links in the cluster: who is asked, what is believed, and that no plan waits for long."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.control import commands as do
from engine.control import events as on
from engine.control.links import WAIT_S, LinkBook
from engine.data import Phase, Severity
from engine.measured_link import COORDINATOR, MeasuredLink
from engine.planning.problem import Link
from tests.control.harness import Driver, card, token_after

SIZE = 2**14  # links are compared at a message of so many bytes


def link(a: str, b: str, round_trip_s: float = 0.002, rate: float = 1e8) -> MeasuredLink:
    return MeasuredLink(a, b, round_trip_s, round_trip_s, round_trip_s, rate, rate, rate, 20, 3, 10**6, 0.03)


def both(a: str, b: str, **figures: float) -> dict[tuple[str, str], MeasuredLink]:
    return {(a, b): link(a, b, **figures), (b, a): link(b, a, **figures)}


def asked(driver: Driver) -> list[tuple[str, tuple[str, ...]]]:
    return [(c.worker_id, c.peer_ids) for c in driver.seen if isinstance(c, do.MeasureLinks)]


def test_a_newcomer_asks_everybody_who_is_ready_and_no_pair_is_left_out() -> None:
    driver = Driver(links={**both("w1", "w2"), **both("w1", "w3"), **both("w2", "w3")}).start()
    assert asked(driver) == [("w1", (COORDINATOR,)), ("w2", (COORDINATOR, "w1")), ("w3", (COORDINATOR, "w1", "w2"))]
    assert [(m.from_id, m.to_id) for m in driver.cluster.members.links] == sorted(driver.links)
    assert any(text.startswith("links measured in 60 ms: w3 > w1 2.00 ms round trip, 100 MB/s; ") for text in driver.texts())


def test_the_planner_gets_what_was_measured() -> None:
    slow = both("w1", "w2", round_trip_s=20.0)
    driver = Driver(num_workers=2, links=slow).start()
    assert driver.cluster.problem().links == Link(10.0, 1e8) and driver.cluster.problem().coordinator == ()
    assert driver.cluster.plan is not None and driver.cluster.plan.round_trip_s == pytest.approx(5.0 + 20.0, rel=1e-6)
    near = Driver(num_workers=2, links=both("w1", "w2", round_trip_s=0.0)).start()
    assert near.cluster.plan is not None and near.cluster.plan.round_trip_s == pytest.approx(5.0, rel=1e-6)


def test_the_first_plan_waits_for_links_but_never_long() -> None:
    driver = Driver(num_workers=2, answers_links=False).start()
    assert driver.cluster.phase is Phase.GATHERING and driver.cluster.plan is None
    driver.now_s = WAIT_S - 0.01
    driver.feed(on.Tick())
    assert driver.cluster.plan is None
    driver.now_s = WAIT_S
    driver.feed(on.Tick())
    assert driver.cluster.plan is not None and driver.cluster.problem().links == Link()


def test_an_answer_after_the_plan_is_kept_for_the_next_one() -> None:
    driver = Driver(num_workers=2, answers_links=False).start()
    driver.now_s = WAIT_S
    driver.feed(on.Tick())
    version = driver.cluster.plan_version
    driver.feed(on.LinksMeasured("w2", 2, tuple(both("w1", "w2").values())))
    assert driver.cluster.plan_version == version and driver.cluster.problem().links == Link(0.001, 1e8)


@pytest.mark.parametrize("event", [on.LinksMeasured("w2", 1, (link("w2", "w1"),)), on.LinksMeasured("w9", 9, (link("w9", "w1"),))])
def test_an_answer_to_another_question_is_dropped(event: on.LinksMeasured) -> None:
    driver = Driver(num_workers=2, answers_links=False).start()
    driver.feed(event)
    assert list(driver.cluster.members.links) == [] and driver.cluster.plan is None


def test_links_of_a_worker_that_left_are_forgotten() -> None:
    driver = Driver(links={**both("w1", "w2"), **both("w1", "w3"), **both("w2", "w3")}).start()
    generation = driver.cluster.members.get("w3").generation  # type: ignore[union-attr]
    driver.feed(on.WorkerLost("w3", generation, "gone"))
    assert {(m.from_id, m.to_id) for m in driver.cluster.members.links} == {("w1", "w2"), ("w2", "w1")}
    driver.feed(on.LinksMeasured("w3", generation, (link("w3", "w1"),)))
    assert {m.from_id for m in driver.cluster.members.links} == {"w1", "w2"}


def test_workers_that_cannot_reach_each_other_are_not_neighbours() -> None:
    broken = {("w1", "w2"): MeasuredLink("w1", "w2", failure="no route"), ("w2", "w1"): MeasuredLink("w2", "w1", failure="no route")}
    driver = Driver(links={**broken, **both("w1", "w3"), **both("w2", "w3")}).start()
    pairs = {(p.from_id, p.to_id) for p in driver.cluster.problem().links}  # type: ignore[union-attr]
    assert pairs == {("w1", "w3"), ("w3", "w1"), ("w2", "w3"), ("w3", "w2")}
    warnings = [c.text for c in driver.seen if isinstance(c, do.Record) and c.severity is Severity.WARN]
    assert warnings == [f"has no link to {other}: no route; plans will not send from one to the other" for other in ("w1", "w2")]


def test_one_direction_that_failed_fails_for_both_unless_the_other_was_measured() -> None:
    book = LinkBook()
    book.ask("a", 1, "abc", 0.0)
    assert book.answer(on.LinksMeasured("a", 1, (MeasuredLink("a", "b", failure="no"), link("a", "c"))), "abc")
    pairs = {(p.from_id, p.to_id) for p in book.for_planning(["a", "b", "c"])}  # type: ignore[union-attr]
    assert pairs == {("a", "c"), ("c", "a"), ("b", "c"), ("c", "b")}


@given(st.sets(st.tuples(st.sampled_from("abcd"), st.sampled_from("abcd")).filter(lambda p: p[0] != p[1])), st.data())
def test_what_nobody_measured_is_assumed_to_be_as_slow_as_the_slowest(pairs: set[tuple[str, str]], data: st.DataObject) -> None:
    book, found = LinkBook(), {}
    for a, b in pairs:
        found[a, b] = link(a, b, data.draw(st.floats(0, 1)), data.draw(st.floats(1e3, 1e9)))
    book.ask("a", 1, "abcd", 0.0)
    book.answer(on.LinksMeasured("a", 1, tuple(found.values())), "abcd")
    planned = book.for_planning("abcd")
    if not found:
        assert planned == Link()
        return
    links = (
        {(p.from_id, p.to_id): p.link for p in planned} if isinstance(planned, tuple) else dict.fromkeys(permutations("abcd", 2), planned)
    )
    assert len(links) == 12
    for pair, planned_link in links.items():
        if pair in found:
            measured = Link(found[pair].round_trip_s / 2, found[pair].bandwidth_bytes_per_s)
            assert planned_link.transfer_s(SIZE) == pytest.approx(measured.transfer_s(SIZE), abs=2.5e-4)
        else:
            assert planned_link.transfer_s(SIZE) >= max(links[known].transfer_s(SIZE) for known in found)


def test_links_that_measuring_cannot_tell_apart_are_one_link() -> None:
    """Their spreads overlap, so the planner sees what it solves fastest and does not follow the noise; a slow pair stays apart."""
    spread = [(0.0010, 0.0008, 0.0030), (0.0018, 0.0009, 0.0040), (0.0025, 0.0010, 0.0030)]
    found = {}
    for (a, b), (middle, low, high) in zip((("a", "b"), ("a", "c"), ("b", "c")), spread, strict=True):
        for ends in ((a, b), (b, a)):
            found[ends] = MeasuredLink(*ends, middle, low, high, 1e9, 9e8, 1.1e9, 20, 3, 10**6, 0.03)
    book = LinkBook()
    for names in ("a", "b"):
        book.ask(names, 1, "abc", 0.0)
        book.answer(on.LinksMeasured(names, 1, tuple(found.values())), "abc")
    assert book.for_planning("abc") == Link(0.0018 / 2, 1e9)
    slow = [
        replace(link, round_trip_s=0.02, round_trip_low_s=0.019, round_trip_high_s=0.021) for ends, link in found.items() if "c" in ends
    ]
    book.ask("c", 1, "abc", 0.0)
    book.answer(on.LinksMeasured("c", 1, tuple(slow)), "abc")
    planned = book.for_planning("abc")
    assert isinstance(planned, tuple)
    assert {p.link.latency_s for p in planned if "c" in (p.from_id, p.to_id)} == {0.01}
    assert {p.link.latency_s for p in planned if "c" not in (p.from_id, p.to_id)} == {0.0005}


def test_the_planner_counts_the_way_of_token_ids_over_the_coordinator() -> None:
    near, far = both(COORDINATOR, "w1", round_trip_s=0.0), both(COORDINATOR, "w2", round_trip_s=4.0)
    driver = Driver(num_workers=2, links={**near, **far, **both("w1", "w2", round_trip_s=0.0)}).start()
    ends = {c.node_id: (c.to_node.latency_s, c.from_node.latency_s) for c in driver.cluster.problem().coordinator}
    assert ends == {"w1": (0.0, 0.0), "w2": (2.0, 2.0)}
    assert driver.cluster.plan is not None and driver.cluster.plan.round_trip_s == pytest.approx(5.0 + 2.0, rel=1e-6)


def test_a_worker_alone_has_its_link_to_the_coordinator_measured() -> None:
    driver = Driver(num_workers=1).start()
    assert asked(driver) == [("w1", (COORDINATOR,))]
    assert driver.cluster.plan is not None and driver.cluster.plan.stages[0].num_items == card().num_items


def test_another_order_is_taken_where_it_pays_and_tokens_stay() -> None:
    """w1 and w2 are far from each other; a newcomer near both goes between them while sessions run."""
    far, near = both("w1", "w2", round_trip_s=6.0), {**both("w1", "w3", round_trip_s=0.0), **both("w2", "w3", round_trip_s=0.0)}
    driver = Driver(num_workers=2, hold=True, links={**far, **near}).start()
    assert driver.cluster.plan is not None and [s.node_id for s in driver.cluster.plan.stages] == ["w1", "w2"]
    driver.submit("s1", max_new_tokens=8)
    for _ in range(3):
        driver.report(driver.held.pop(0))
    driver.join("w3")
    driver.hold = False
    driver.answer_all()
    assert [s.node_id for s in driver.cluster.plan.stages] == ["w1", "w3", "w2"] and driver.cluster.plan.optimal
    assert driver.tokens["s1"] == [token_after(4 + i) for i in range(8)] and driver.cluster.rebalancer.reports[-1].outcome == "done"


def test_equal_workers_keep_their_order_whatever_their_names() -> None:
    driver = Driver(num_workers=2, times={"w1": 1.0, "w2": 1.02}).start()
    driver.times |= {"w0": 0.99}
    driver.join("w0")
    assert driver.cluster.plan is not None and [s.node_id for s in driver.cluster.plan.stages] == ["w1", "w2", "w0"]
