"""Links in the cluster: who is asked, what is believed, and that no plan waits for long."""

from __future__ import annotations

import itertools
from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.control import commands as do
from engine.control import events as on
from engine.control.nodes.gathering import SETTLE_S
from engine.control.nodes.links import WAIT_S, LinkBook
from engine.control.nodes.members import REMEMBERED_S
from engine.data.measured_link import COORDINATOR, MeasuredLink
from engine.data.status import Phase, Severity
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
    assert driver.cluster.problem().links == Link(10.0, 1e8)
    assert driver.cluster.plan is not None and driver.cluster.plan.round_trip_s == pytest.approx(5.0 + 10.0, rel=1e-6)
    assert driver.cluster.plan.hop_s == pytest.approx((10.0, 0.0), rel=1e-6)
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
    assert book.answer(on.LinksMeasured("a", 1, (MeasuredLink("a", "b", failure="no"), link("a", "c"))), "abc", 0.0)
    pairs = {(p.from_id, p.to_id) for p in book.for_planning(["a", "b", "c"])}  # type: ignore[union-attr]
    assert pairs == {("a", "c"), ("c", "a"), ("b", "c"), ("c", "b")}


@given(st.sets(st.tuples(st.sampled_from("abcd"), st.sampled_from("abcd")).filter(lambda p: p[0] != p[1])), st.data())
def test_what_nobody_measured_is_assumed_to_be_as_slow_as_the_slowest(pairs: set[tuple[str, str]], data: st.DataObject) -> None:
    book, found = LinkBook(), {}
    for a, b in pairs:
        found[a, b] = link(a, b, data.draw(st.floats(0, 1)), data.draw(st.floats(1e3, 1e9)))
    book.ask("a", 1, "abcd", 0.0)
    book.answer(on.LinksMeasured("a", 1, tuple(found.values())), "abcd", 0.0)
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
        book.answer(on.LinksMeasured(names, 1, tuple(found.values())), "abc", 0.0)
    assert book.for_planning("abc") == Link(0.0018 / 2, 1e9)
    slow = [
        replace(link, round_trip_s=0.02, round_trip_low_s=0.019, round_trip_high_s=0.021) for ends, link in found.items() if "c" in ends
    ]
    book.ask("c", 1, "abc", 0.0)
    book.answer(on.LinksMeasured("c", 1, tuple(slow)), "abc", 0.0)
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


def three(**changes: object) -> Driver:
    ends = {pair: link for w in ("w1", "w2", "w3") for pair, link in both(COORDINATOR, w).items()}
    return Driver(links={**ends, **both("w1", "w2"), **both("w1", "w3"), **both("w2", "w3")}, **changes)  # type: ignore[arg-type]


def stages(driver: Driver) -> list[str]:
    return [s.node_id for s in driver.cluster.plan.stages] if driver.cluster.plan else []


def tick(driver: Driver, now_s: float) -> None:
    driver.now_s = now_s
    for member in driver.cluster.members:
        driver.beat(member.spec.node_id)
    driver.feed(on.Tick())


def test_a_link_that_breaks_leaves_the_plan_and_comes_back_when_it_is_whole() -> None:
    driver = three(hold=True).start()
    driver.submit("s1", max_new_tokens=3)
    driver.links |= {pair: MeasuredLink(*pair, failure="silent") for pair in (("w1", "w2"), ("w2", "w1"))}
    driver.feed(on.LinkBroken("w1", "w2", driver.cluster.plan_version, "ping timeout"))
    assert "cannot reach w2: ping timeout" in driver.texts() and stages(driver) == ["w1", "w2", "w3"]
    tick(driver, 0.6)
    assert ("w1", "w2") not in set(itertools.pairwise(stages(driver))) and driver.cluster.phase is Phase.SERVING
    tick(driver, 1.1)
    assert asked(driver)[-1] == ("w1", ("w2",)) and stages(driver) == ["w1", "w3", "w2"], "a trial that failed changes nothing"
    driver.links |= both("w1", "w2")
    tick(driver, 2.2)
    driver.answer_all()
    assert stages(driver) == ["w1", "w3", "w2"], "an order that is as good is kept"
    assert driver.tokens["s1"] == [token_after(4), token_after(5), token_after(6)]


def test_a_broken_link_of_another_plan_says_nothing() -> None:
    driver = three().start()
    driver.feed(on.LinkBroken("w1", "w2", driver.cluster.plan_version - 1, "late"))
    assert not any(link.failure for link in driver.cluster.members.links)


def test_two_workers_without_a_link_are_never_neighbours_even_if_no_other_link_is_known() -> None:
    book = LinkBook()
    book.broke(on.LinkBroken("a", "b", 1, "silent"), 0.0)
    assert book.for_planning(["a", "b"]) == ()


def test_a_broken_link_is_tried_less_and_less_often_and_never_too_seldom() -> None:
    book = LinkBook()
    book.broke(on.LinkBroken("a", "b", 1, "silent"), 0.0)
    tried_s = []
    for tenth in range(10 * 3600):
        if book.try_again({"a": 1, "b": 2}, tenth / 10):
            tried_s.append(tenth / 10)
            book.answer(on.LinksMeasured("a", 1, (MeasuredLink("a", "b", failure="silent"),)), "ab", tenth / 10)
    gaps = [b - a for a, b in itertools.pairwise(tried_s)]
    assert tried_s[0] == 1.0 and gaps[-1] == pytest.approx(30.0, abs=0.11)
    assert all(max(0.99, t / 5) <= gap or gap > 29 for t, gap in zip(tried_s, gaps, strict=False))
    assert all(gap <= max(1.1, t / 4 + 0.11) for t, gap in zip(tried_s, gaps, strict=False))
    assert book.try_again({"a": 1}, 10**6) == [], "a worker that is away is not asked about"


def test_a_process_that_comes_back_need_not_measure_its_links_again_and_another_must() -> None:
    driver = three().start()
    before = len(asked(driver))
    member = driver.cluster.members.get("w3")
    assert member is not None
    driver.now_s = 10.0
    for other in ("w1", "w2", "w3"):
        driver.beat(other)
    driver.feed(on.WorkerLost("w3", member.generation, "silent"))
    driver.now_s = 15.0
    driver.feed(on.WorkerRegistered(member.spec, 100, ready=True))
    assert len(asked(driver)) == before and len({m.from_id for m in driver.cluster.members.links}) == 4
    driver.feed(on.WorkerLost("w3", 100, "killed"))
    driver.generation = 100
    driver.join("w3")
    assert asked(driver)[before:] == [("w3", (COORDINATOR, "w1", "w2"))]


def test_a_process_that_was_away_for_long_measures_again() -> None:
    driver = three().start()
    member, before = driver.cluster.members.get("w3"), len(asked(driver))
    assert member is not None
    driver.feed(on.WorkerLost("w3", member.generation, "silent"))
    driver.now_s = REMEMBERED_S + 1
    driver.feed(on.WorkerRegistered(member.spec, 100, ready=True))
    assert len(asked(driver)) == before + 1


def test_when_all_were_away_the_first_back_waits_a_moment_for_the_others() -> None:
    driver = three().start()
    members = [driver.cluster.members.get(w) for w in ("w1", "w2", "w3")]
    for member in members:
        assert member is not None
        driver.feed(on.WorkerLost(member.spec.node_id, member.generation, "silent"))
    versions = driver.cluster.plan_version
    for generation, member in enumerate(members[:2], 100):
        assert member is not None
        driver.feed(on.WorkerRegistered(member.spec, generation, ready=True))
        assert driver.cluster.phase is Phase.GATHERING
    driver.now_s = SETTLE_S
    driver.feed(on.Tick())
    assert stages(driver) == ["w1", "w2"] and driver.cluster.plan_version == versions + 1


def test_a_link_that_heals_is_used_again_although_another_stays_broken() -> None:
    """A pair that a firewall separates for ever must not keep others out."""
    firewall = {pair: MeasuredLink(*pair, failure="no route") for pair in (("w1", "w3"), ("w3", "w1"))}
    others = {**both("w1", "w2"), **both("w2", "w3"), **both("w3", "w4"), **both("w1", "w4"), **both("w2", "w4")}
    driver = Driver(num_workers=4, links={**others, **firewall}).start()
    assert stages(driver) == ["w1", "w2", "w3", "w4"]
    whole = dict(driver.links)
    driver.links |= {pair: MeasuredLink(*pair, failure="silent") for pair in (("w1", "w2"), ("w2", "w1"))}
    driver.feed(on.LinkBroken("w1", "w2", driver.cluster.plan_version, "silent"))
    tick(driver, 0.6)
    assert ("w1", "w2") not in set(itertools.pairwise(stages(driver)))
    driver.links = whole
    for tenth in range(7, 40):
        tick(driver, tenth / 10)
    assert len(stages(driver)) == 4 and driver.cluster.members.links.num_broken == len(firewall)


def test_a_link_that_breaks_before_a_move_is_committed_drops_the_move() -> None:
    driver = three(hold_moves=True).start()
    before = driver.cluster.plan
    member = driver.cluster.members.get("w2")
    assert member is not None and before is not None
    driver.feed(on.DrainRequested(("w2",)))
    move = driver.cluster.rebalancer.move
    assert move is not None
    driver.feed(on.LinkBroken("w1", "w3", move.new.plan_version, "silent"))
    assert driver.cluster.rebalancer.move is None and driver.cluster.plan is before


def test_a_broken_link_to_a_silent_worker_is_the_workers_fault_even_if_no_step_waits() -> None:
    driver = three().start()
    for now_s in (1.5, 2.1):
        driver.now_s = now_s
        driver.beat("w1")
        driver.beat("w3")
        driver.feed(on.Tick())
        if now_s == 1.5:
            driver.feed(on.LinkBroken("w1", "w2", driver.cluster.plan_version, "ping timeout"))
    assert stages(driver) == ["w1", "w3"] and driver.cluster.members.links.num_broken == 0
    assert any(text.startswith("lost: silent for 2.1 s") for text in driver.texts())


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
