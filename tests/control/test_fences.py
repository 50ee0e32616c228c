"""What arrives for another plan, epoch, round or index counts for nothing: cases that random histories hardly reach.

`tests.simulation.mutants` runs some of these to prove that they notice a fault.
"""

from __future__ import annotations

from engine.control import commands as do
from engine.control import events as on
from engine.control.moves import Carried, KvRange
from engine.control.sessions.stage_sessions import StageSession, StageSessions
from engine.data.errors import Unavailable
from engine.data.plan import Stage
from engine.data.sampling import Sampling
from engine.data.status import Phase
from tests.control.harness import Driver

TO_TWO = (Stage("w1", 0, 3), Stage("w3", 3, 5))


def moving() -> Driver:
    """A session decodes, a move is being prepared, and every answer waits."""
    driver = Driver(hold=True, hold_moves=True).start()
    driver.submit("s1", max_new_tokens=9)
    driver.report(driver.held.pop())
    driver.feed(on.ReplanRequested(1, "", TO_TWO))
    return driver


def held_session(epoch: int, num_tokens: int) -> StageSession:
    return StageSession(epoch, Sampling(), list(range(num_tokens)), 20)


def test_a_stage_carries_on_only_what_is_of_the_epoch_and_whole() -> None:
    here, copied = StageSessions(1), StageSessions(2)
    here.replace("whole", held_session(3, 6))
    here.replace("older", held_session(2, 6))
    here.replace("longer", held_session(3, 7))
    copied.replace("longer", held_session(3, 6))
    copied.replace("shorter", held_session(3, 5))
    names = ("whole", "older", "longer", "shorter")
    following, missing = here.carry(2, [Carried(name, 3, 4, 6) for name in names], copied)
    assert missing == ("older", "shorter") and following.ids() == ("whole", "longer")
    assert [(following.get(name, 4).epoch, len(following.get(name, 4).token_ids)) for name in following.ids()] == [(4, 6), (4, 6)]


def test_an_answer_to_the_first_copy_is_none_to_the_delta() -> None:
    driver = moving()
    driver.answer_moves_once()
    first = [*driver.held_moves]
    driver.answer_moves_once()
    driver.report(driver.held.pop())
    assert len([c for c in driver.seen if isinstance(c, do.CopyKv)]) == 4
    for answer in first:
        driver.feed(answer)
    assert driver.cluster.plan_version == 1 and not any(isinstance(c, do.CommitStage) for c in driver.seen)
    driver.answer_moves_once()
    assert driver.cluster.plan_version == 2


def test_the_delta_of_a_session_that_was_sent_again_begins_at_its_first_token() -> None:
    driver = moving()
    driver.answer_moves_once()
    driver.report(driver.held.pop(), error=Unavailable("its stream broke"))
    driver.now_s = 0.2
    driver.feed(on.Tick())
    driver.report(driver.held.pop())
    driver.answer_moves_once()
    driver.report(driver.held.pop())
    delta = [c for c in driver.seen if isinstance(c, do.CopyKv) and c.round == 2]
    assert [c.ranges for c in delta] == [(KvRange("s1", 2, 0, 5),)] * 2


def test_every_failure_of_a_report_counts_and_not_only_the_first() -> None:
    driver = Driver(hold=True).start()
    for session_id in ("s1", "s2"):
        driver.submit(session_id)
    driver.feed(on.WorkerLost("w3", 3, "its connection broke"))
    driver.hold = False
    (step,) = (s for s in driver.held if len(s.segments) == 2)
    driver.report(step, error=Unavailable("its stream broke"))
    assert {s.epoch for s in driver.cluster.scheduler} == {3}


def test_a_report_that_names_another_index_is_no_answer_and_the_session_goes_on() -> None:
    driver = Driver(hold=True).start()
    driver.submit("s1", max_new_tokens=3)
    step = driver.held.pop()
    (segment,) = step.segments
    wrong = on.SegmentOutcome("s1", segment.epoch, 1, 77)
    driver.feed(on.StepReported("w3", step.plan_version, step.step_id, (wrong,), ()))
    assert "s1" not in driver.tokens
    driver.now_s, driver.hold = 0.2, False
    driver.feed(on.Tick())
    driver.answer_all()
    assert len(driver.tokens["s1"]) == 3 and 77 not in driver.tokens["s1"]


def test_a_stage_that_loaded_for_another_plan_is_not_loaded_for_this_one() -> None:
    driver = Driver(hold=True).start()
    driver.cluster.handle(on.WorkerLost("w3", 3, "its connection broke"), 0.0)
    assert driver.cluster.phase is Phase.LOADING and driver.cluster.plan_version == 2
    for worker_id in ("w1", "w2"):
        driver.cluster.handle(on.StageLoaded(worker_id, 1, 100, 120, 0.1), 0.0)
    assert driver.cluster.phase is Phase.LOADING
    for worker_id in ("w1", "w2"):
        driver.cluster.handle(on.StageLoaded(worker_id, 2, 100, 120, 0.1), 0.0)
    assert driver.cluster.phase is Phase.SERVING
