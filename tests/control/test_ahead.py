"""One step more than is under way is sent to a stage that holds the whole model: what goes along, and what becomes of it."""

from __future__ import annotations

from dataclasses import replace

from engine.control import events as on
from engine.control.cluster import Cluster
from engine.control.config import ClusterConfig
from engine.data.errors import Gap
from engine.data.generation import UNKNOWN, GenerateRequest, Grammar, GrammarKind
from tests.control.harness import Driver, card
from tests.control.test_cluster import expected_tokens


def single(num_workers: int = 1, **config: str) -> Driver:
    driver = Driver(num_workers=num_workers, hold=True)
    driver.cluster = Cluster(ClusterConfig(num_workers, **config), 0.0)
    driver.feed(on.ModelReady(card()))
    for i in range(num_workers):
        driver.join(f"w{i + 1}", kv_budget_bytes=90_000, memory_bytes=200_000)
    return driver


def parts(driver: Driver, place: int = -1) -> list[tuple[str, int, tuple[int, ...], int | None]]:
    return [(s.session_id, s.position, s.token_ids if s.follows else (), s.sample_index) for s in driver.held[place].segments]


def test_a_step_goes_along_behind_the_one_under_way_until_the_last_token() -> None:
    driver = single()
    driver.submit("s", num_prompt=3, max_new_tokens=4)
    assert parts(driver, 0) == [("s", 0, (), 0)] and parts(driver) == [("s", 3, (UNKNOWN,), 1)]
    for index in (2, 3):
        driver.report(driver.held.pop(0))
        assert len(driver.held) == 2 and parts(driver) == [("s", 2 + index, (UNKNOWN,), index)]
    driver.report(driver.held.pop(0))
    assert len(driver.held) == 1
    driver.answer_all()
    assert driver.tokens["s"] == expected_tokens(3, 4)


def test_several_stages_get_no_step_ahead() -> None:
    driver = single(num_workers=2)
    driver.submit("s", num_prompt=3, max_new_tokens=4)
    assert len(driver.cluster.plan.stages) == 2 and len(driver.held) == 1  # type: ignore[union-attr]


def test_what_comes_behind_an_end_is_nobody_s_and_the_others_go_on() -> None:
    driver = single()
    driver.submit("ends", num_prompt=3, max_new_tokens=9)
    driver.submit("stays", num_prompt=4, max_new_tokens=9)
    while len(driver.tokens.get("ends", ())) < 2:
        driver.report(driver.held.pop(0))
    step = driver.held.pop(0)
    outcomes = [on.SegmentOutcome(s.session_id, 1, s.sample_index, 7, stopped=s.session_id == "ends") for s in step.segments]
    driver.feed(on.StepReported("w1", step.plan_version, step.step_id, tuple(outcomes), ()))
    assert "ends" in [s.session_id for s in driver.held[0].segments] and "ends" not in [s.session_id for s in driver.held[-1].segments]
    driver.answer_all()
    assert len(driver.tokens["ends"]) == 3 and len(driver.tokens["stays"]) == 9 and driver.released.count("ends") == 1


def test_a_new_prompt_is_in_the_next_step_that_is_sent() -> None:
    driver = single()
    driver.submit("s", num_prompt=3, max_new_tokens=9)
    driver.submit("new", num_prompt=4, max_new_tokens=9)
    driver.report(driver.held.pop(0))
    assert [s.session_id for s in driver.held[-1].segments] == ["s", "new"]


def test_nothing_goes_ahead_while_a_session_has_a_grammar() -> None:
    """It would get a token with every other step only."""
    driver = single()
    request = GenerateRequest(prompt_ids=(1, 2), max_new_tokens=5, grammar=Grammar(GrammarKind.REGEX, "a*"))
    driver.feed(on.SessionSubmitted("masked", (1, 2), request))
    assert len(driver.held) == 1
    driver.submit("plain", num_prompt=3, max_new_tokens=5)
    driver.report(driver.held.pop(0))
    assert [s.session_id for s in driver.held[-1].segments] == ["masked", "plain"] and len(driver.held) == 1
    driver.answer_all()
    assert len(driver.tokens["masked"]) == len(driver.tokens["plain"]) == 5


def test_nothing_goes_ahead_of_proposals_or_of_a_text_that_can_be_guessed() -> None:
    driver = single(speculate="always")
    driver.feed(on.SessionSubmitted("s", (5, 6, 5, 6, 5), GenerateRequest(prompt_ids=(5, 6, 5, 6, 5), max_new_tokens=9)))
    assert len(driver.held) == 1
    step = driver.held.pop(0)
    driver.feed(on.StepReported("w1", step.plan_version, step.step_id, (on.SegmentOutcome("s", 1, 0, 6),), ()))
    assert driver.held[0].segments[0].num_proposed and len(driver.held) == 1


def test_a_token_counts_only_behind_the_one_that_it_was_computed_from() -> None:
    """Reports that come in another order: the session is sent again, and no token is lost or taken twice."""
    driver = single()
    driver.submit("s", num_prompt=3, max_new_tokens=6)
    driver.report(driver.held.pop(1))
    assert "s" not in driver.tokens and driver.cluster.scheduler.get("s").epoch == 2  # type: ignore[union-attr]
    driver.report(driver.held.pop(0))
    driver.now_s += 1.0
    driver.feed(on.Tick())
    driver.answer_all()
    assert driver.tokens["s"] == expected_tokens(3, 6)


def test_a_session_that_failed_is_sent_again_alone_and_what_followed_it_is_dropped() -> None:
    driver = single()
    driver.submit("s", num_prompt=3, max_new_tokens=6)
    driver.report(driver.held.pop(0), error=Gap("it holds 0 tokens"))
    behind = driver.held.pop(0)
    driver.report(replace(behind, segments=()))  # as a stage answers that left it out
    session = driver.cluster.scheduler.get("s")
    assert session is not None and (session.epoch, session.num_recoveries) == (2, 1)
    driver.now_s += 1.0
    driver.feed(on.Tick())
    assert len(driver.held) == 1
    driver.answer_all()
    assert driver.tokens["s"] == expected_tokens(3, 6)


def test_figures_of_steps_leave_out_what_they_waited_behind_the_one_before() -> None:
    driver = single()
    driver.submit("s", num_prompt=3, max_new_tokens=40)
    while driver.held:
        driver.now_s += 0.01
        driver.report(driver.held.pop(0))
    assert 0.0099 < driver.cluster.metrics.step_p50_s() < 0.0101
