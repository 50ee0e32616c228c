"""What an operator asks for holds for the plan that the operator saw, whoever asks at the same time."""

from __future__ import annotations

import pytest

from engine.control import events as on
from engine.control.moves import RETRY_S
from engine.control.status import cluster_status
from engine.data.errors import NotFound, Refused
from engine.data.plan import Stage
from tests.control.harness import Driver, spec

OTHER = (Stage("w1", 0, 3), Stage("w3", 3, 5))


def test_every_request_is_refused_when_the_plan_is_another_one() -> None:
    driver = Driver(hold=True).start()
    driver.submit("s1")
    for request in (
        on.ReplanRequested(7, ""),
        on.DrainRequested(("w2",), 7),
        on.SessionCancelled("s1", "test", 7),
    ):
        with pytest.raises(Refused, match="#1 now, the request was made for #7: look again"):
            driver.feed(request)
    assert "s1" not in driver.finished and not any(m.draining for m in driver.cluster.members)


def test_requests_for_the_plan_that_serves_are_carried_out() -> None:
    driver = Driver(hold=True).start()
    driver.submit("s1")
    driver.feed(on.SessionCancelled("s1", "test", 1))
    assert "s1" in driver.finished
    driver.answer_all()
    driver.feed(on.DrainRequested(("w2",), 1))
    assert driver.cluster.plan_version == 2
    with pytest.raises(NotFound):
        driver.feed(on.SessionCancelled("s1", "test", 2))


def test_while_a_move_is_under_way_nobody_else_may_begin_one() -> None:
    driver = Driver(hold_moves=True).start()
    driver.feed(on.ReplanRequested(1, "", OTHER))
    assert driver.cluster.plan_version == 1
    for request in (on.ReplanRequested(1, ""), on.DrainRequested(("w1",), 1)):
        with pytest.raises(Refused, match="a move to #2 is under way"):
            driver.feed(request)
    driver.hold_moves = False
    driver.answer_moves()
    assert driver.cluster.plan is not None and driver.cluster.plan.stages == OTHER


def test_a_wish_that_waits_for_its_turn_is_not_overwritten() -> None:
    """A newcomer measures its links: the first operator's plan is due, and the second one must not take its place."""
    driver = Driver(num_workers=2, hold_moves=True).start()
    driver.answers_links = False
    driver.feed(on.WorkerRegistered(spec("w3", pid=9), 9, ready=False))
    driver.cluster.members.links.ask("w1", 1, ["w2"], driver.now_s)
    first = (Stage("w1", 0, 1), Stage("w2", 1, 5))
    driver.feed(on.ReplanRequested(1, "", first))
    assert driver.cluster.rebalancer.move is None
    for request in (on.ReplanRequested(1, "cost"), on.DrainRequested(("w2",), 1)):
        with pytest.raises(Refused, match="another change of plan was requested"):
            driver.feed(request)
    driver.now_s = 5.0
    for worker_id in ("w1", "w2"):
        driver.beat(worker_id)
    driver.feed(on.Tick())
    move = driver.cluster.rebalancer.move
    assert move is not None and move.new.stages == first and driver.cluster.strategy == "balanced"


def test_the_mode_of_adaptation_is_changed_from_the_one_that_was_seen() -> None:
    driver = Driver().start()
    driver.feed(on.AdaptationModeSet("suggest", "off"))
    with pytest.raises(Refused, match="adaptation is suggest now, the request was made when it was off"):
        driver.feed(on.AdaptationModeSet("auto", "off"))
    assert driver.cluster.adapting.mode == "suggest"
    driver.feed(on.AdaptationModeSet("auto"))
    assert driver.cluster.adapting.mode == "auto"


def test_stages_that_a_strategy_found_stay_its_own_and_stages_alone_are_the_operators() -> None:
    driver = Driver().start()
    driver.feed(on.ReplanRequested(1, "cost", OTHER))
    assert driver.cluster.plan is not None
    assert (driver.cluster.plan.stages, driver.cluster.plan.strategy, driver.cluster.strategy) == (OTHER, "cost", "cost")
    back = (Stage("w1", 0, 2), Stage("w2", 2, 5))
    driver.feed(on.ReplanRequested(2, "", back))
    assert (driver.cluster.plan.stages, driver.cluster.plan.strategy) == (back, "given")
    assert cluster_status(driver.cluster, "c", 0.0).strategy == "given", "what serves is what is shown"


def test_a_wish_whose_move_failed_once_is_tried_again_as_it_was_made() -> None:
    """Not as the planner's own plan: the operator saw these stages in the preview and said yes to them."""
    driver = Driver(hold_moves=True).start()
    driver.feed(on.ReplanRequested(1, "", OTHER))
    move = driver.cluster.rebalancer.move
    assert move is not None and move.new.stages == OTHER
    driver.feed(on.MoveFailed(move.new.plan_version, "w3", "its connection broke"))
    assert driver.cluster.rebalancer.move is None
    driver.hold_moves = False
    driver.now_s += 2 * RETRY_S
    for worker_id in ("w1", "w2", "w3"):
        driver.beat(worker_id)
    driver.feed(on.Tick())
    driver.answer_all()
    assert driver.cluster.plan is not None and driver.cluster.plan.stages == OTHER
