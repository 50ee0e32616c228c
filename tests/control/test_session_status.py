"""Sessions as an operator sees them: while they wait, run, and after their end, under a later coordinator too."""

from __future__ import annotations

from engine.control import commands as do
from engine.control import events as on
from engine.control.cluster import Cluster, ClusterConfig
from engine.control.sessions.past_sessions import MAX_FINISHED, PastSessions
from engine.control.sessions.scheduler import Scheduler, SchedulerLimits
from engine.control.sessions.session import STEP_WINDOW
from engine.control.sessions.session_status import MAX_ERROR_CHARS, session_status
from engine.control.status import cluster_status
from engine.data.errors import Exhausted
from engine.data.generation import GenerateRequest
from engine.data.status import EndedSessions, SessionStatus
from tests.control.harness import Driver, card


def test_the_status_tells_why_and_where_sessions_wait() -> None:
    driver = Driver(hold=True).start()
    for name, num_prompt in (("s1", 40), ("s2", 40), ("s3", 4)):
        driver.submit(name, num_prompt=num_prompt, max_new_tokens=20)
    driver.now_s += 3.0
    first, *waiting = cluster_status(driver.cluster, "c", driver.now_s).sessions
    assert (first.state, first.queue_place, first.why) == ("prefill", 0, "")
    assert {s.state for s in waiting} == {"queued"}
    assert [(s.session_id, s.queue_place, s.waiting_s) for s in waiting] == [("s2", 1, 3.0), ("s3", 2, 3.0)]
    assert [s.why for s in waiting] == ["KV budget: needs 60 tokens, 40 of 100 are free", "1 before it in the queue"]


def test_the_status_tells_that_no_plan_serves() -> None:
    driver = Driver(num_workers=1)
    driver.feed(on.ModelReady(card()))
    driver.submit("s1")
    (waiting,) = cluster_status(driver.cluster, "c", 1.0).sessions
    assert waiting.queue_place == 1 and waiting.why == "no plan serves: waiting for 1 workers"


def test_a_sessions_steps_are_measured_between_its_tokens() -> None:
    scheduler = Scheduler(SchedulerLimits())
    session = scheduler.submit(on.SessionSubmitted("s1", (1, 2), GenerateRequest(prompt_ids=(1, 2), max_new_tokens=200)), 100, 0.0)
    now_s = 0.0
    for step_s in [50.0] + [1.0] * 18 + [9.0]:  # the first is the prompt's
        now_s += step_s
        scheduler.accept_token(session, 7, now_s)
    seen = session_status(session, now_s)
    assert (seen.num_generated, seen.ttft_s, seen.step_p95_s) == (20, 50.0, 9.0)
    assert (seen.num_prompt_tokens, seen.max_new_tokens, seen.tokens_per_s) == (2, 98, 19 / 27)  # the context bounds what was asked for
    for _ in range(STEP_WINDOW):
        now_s += 2.0
        scheduler.accept_token(session, 7, now_s)
    assert len(session.times.step_s) == STEP_WINDOW and session_status(session, now_s).step_p95_s == 2.0


def test_a_session_that_was_interrupted_waits_since_then() -> None:
    driver = Driver(hold=True).start()
    driver.submit("s1", num_prompt=4, max_new_tokens=20)
    driver.now_s = 7.0
    for worker_id in ("w1", "w2", "w3"):
        driver.feed(on.WorkerLost(worker_id, driver.cluster.members.named(worker_id).generation, "killed"))
    (waiting,) = cluster_status(driver.cluster, "c", 9.0).sessions
    assert (waiting.state, waiting.queue_place, waiting.waiting_s, waiting.age_s) == ("queued", 1, 2.0, 9.0)
    assert waiting.why.startswith("no plan serves: re-planning: w") and waiting.why.endswith("was lost (killed)")


def test_an_error_is_remembered_boundedly() -> None:
    driver = Driver(hold=True).start()
    driver.submit("s1", num_prompt=4, max_new_tokens=20)
    driver.report(driver.held.pop(), error=Exhausted("x" * 100_000))
    assert cluster_status(driver.cluster, "c", 9.0).ended.latest[0].why == "x" * MAX_ERROR_CHARS


def test_a_session_that_failed_is_remembered_with_its_error() -> None:
    driver = Driver(hold=True).start()
    driver.submit("s1", num_prompt=4, max_new_tokens=20)
    driver.report(driver.held.pop(), error=Exhausted("full"))
    status = cluster_status(driver.cluster, "c", 9.0)
    (failed,) = status.ended.latest
    assert (failed.state, failed.finish_reason, failed.num_generated, failed.why) == ("failed", "error", 0, "full")
    assert (status.ended.num_done, status.ended.num_failed, status.sessions) == (0, 1, ())


def test_sessions_that_ended_are_remembered_newest_first_and_boundedly() -> None:
    driver = Driver(hold=True).start()
    driver.submit("gone", num_prompt=4, max_new_tokens=3)
    driver.now_s += 2.0
    driver.feed(on.SessionCancelled("gone", "an operator said so"))
    driver.hold = False
    driver.submit("s0", num_prompt=4, max_new_tokens=3)
    done, gone = cluster_status(driver.cluster, "c", 99.0).ended.latest
    assert (done.session_id, done.state, done.finish_reason, done.num_generated, done.why) == ("s0", "done", "length", 3, "")
    assert (gone.state, gone.age_s, gone.why) == ("cancelled", 2.0, "an operator said so")
    for i in range(MAX_FINISHED):
        driver.submit(f"t{i}", num_prompt=4, max_new_tokens=1)
    names = [s.session_id for s in cluster_status(driver.cluster, "c", 99.0).ended.latest]
    assert names == [f"t{i}" for i in reversed(range(MAX_FINISHED))]


def test_a_later_coordinator_remembers_what_ended_before_it_and_goes_on_counting() -> None:
    before = SessionStatus("old", "failed", 4, 2, 9, 0.5, 3.0, 7.0, finish_reason="error", why="full")
    driver = Driver()
    driver.cluster = Cluster(ClusterConfig(num_workers_expected=3), 0.0, 3, PastSessions((before,), 7, 2))
    waiting = cluster_status(driver.cluster, "c", 0.0)
    assert waiting.ended == EndedSessions(7, 2, (before,))
    driver.start().submit("s1", num_prompt=4, max_new_tokens=1)
    status = cluster_status(driver.cluster, "c", 0.0)
    assert [s.session_id for s in status.ended.latest] == ["s1", "old"] and status.ended.num_done == 8
    assert driver.finished["s1"].status == status.ended.latest[0]  # what the journal is told


def test_figures_of_a_session_that_was_taken_over_are_of_the_time_that_is_known() -> None:
    """Its first tokens came under the former coordinator, nobody knows when: neither a TTFT nor a rate may count them."""
    driver = Driver(hold=True).start()
    request = GenerateRequest(prompt_ids=(0, 1), max_new_tokens=9)
    driver.now_s, driver.tokens["s1"] = 100.0, [5] * 6
    driver.feed(on.SessionRestored("s1", (0, 1), request, (5,) * 6, 7 << 20, age_s=40.0))
    while driver.held:
        driver.now_s += 2.0 * (driver.held[0].segments[0].sample_index is not None)  # each new token takes 2 s
        driver.report(driver.held.pop(0))
    (end,) = cluster_status(driver.cluster, "c", driver.now_s).ended.latest
    assert (end.num_generated, end.ttft_s, end.age_s) == (9, 0.0, 46.0)
    assert end.tokens_per_s == 0.5


def test_everything_that_ends_at_once_is_remembered_with_why() -> None:
    driver = Driver(num_workers=1)
    driver.feed(on.ModelReady(card()))
    driver.submit("s1")
    driver.feed(on.ModelFailed("the folder is gone"))
    status = cluster_status(driver.cluster, "c", 1.0)
    assert [(s.session_id, s.state, s.why) for s in status.ended.latest] == [("s1", "failed", "the folder is gone")]
    assert [c.status for c in driver.seen if isinstance(c, do.FinishSession)] == [*status.ended.latest] and status.ended.num_failed == 1
