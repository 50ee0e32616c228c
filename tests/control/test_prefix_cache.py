"""Sessions of a cluster that begin with what earlier ones left: what is sent, what is kept, and when all of it is forgotten."""

from __future__ import annotations

from dataclasses import replace

from engine.control import commands as do
from engine.control import events as on
from engine.control.sessions.reuse.digests import token_digest
from engine.control.sessions.reuse.prefix_cache import PrefixSettings
from engine.control.status import cluster_status
from engine.data.errors import NotFound
from engine.data.generation import GenerateRequest, Segment
from engine.data.plan import Stage
from tests.control.harness import Driver, token_after

BLOCK = 4


def driver(num_workers: int = 3) -> Driver:
    return Driver(num_workers, prefix_cache=PrefixSettings(is_on=True, block_tokens=BLOCK)).start()


def submit(driver: Driver, session_id: str, prompt: tuple[int, ...], max_new_tokens: int = 3, caller: bytes = b"one") -> None:
    request = GenerateRequest(prompt_ids=prompt, max_new_tokens=max_new_tokens)
    driver.feed(on.SessionSubmitted(session_id, prompt, request, caller=caller))


def sent(driver: Driver, session_id: str) -> list[Segment]:
    return [s for c in driver.seen if isinstance(c, do.SendStep) for s in c.segments if s.session_id == session_id]


def orders(driver: Driver) -> tuple[list[int], list[int]]:
    """Ids of what the stages were told to keep, and to drop."""
    steps = [c for c in driver.seen if isinstance(c, do.SendStep)]
    return [k.kept_id for c in steps for k in c.kept], [i for c in steps for i in c.dropped]


def first_turn(driver: Driver, num_prompt: int = 10) -> tuple[int, ...]:
    """Run a session to its end; returns what a second turn begins with: its prompt and its answer."""
    prompt = tuple(range(num_prompt))
    submit(driver, "first", prompt)
    return (*prompt, *driver.tokens["first"])


def test_a_second_turn_begins_behind_what_the_first_one_left() -> None:
    cluster = driver()
    whole = first_turn(cluster)
    assert cluster.released == [], "it is kept, so it is not released"
    submit(cluster, "second", (*whole, 50, 51))
    opening = sent(cluster, "second")[0]
    assert (opening.position, opening.token_ids) == (12, (whole[12], 50, 51))  # the newest token has no keys and values yet
    assert opening.taken is not None and opening.sampling is not None
    assert (opening.taken.num_tokens, opening.taken.digest) == (12, token_digest(whole[:12]))
    assert cluster.tokens["second"] == [token_after(p) for p in (15, 16, 17)]
    assert cluster.finished["second"].status.num_cached == 12
    counts = cluster_status(cluster.cluster, "c", 0.0).work.prefix_cache
    assert (counts.prompt_tokens, counts.cached_tokens, counts.num_kept, counts.kept_tokens) == (25, 12, 1, 16)
    assert counts.kept_bytes == 16 * 5 * 10
    assert orders(cluster) == ([1, 2], [1]), "what the second turn leaves begins with what the first one left"


def test_the_same_prompt_again_computes_its_last_token_and_another_caller_computes_all() -> None:
    cluster = driver()
    submit(cluster, "a", tuple(range(8)))
    submit(cluster, "b", tuple(range(8)))
    submit(cluster, "c", tuple(range(8)), caller=b"two")
    submit(cluster, "d", tuple(range(8)), caller=b"")
    assert [sent(cluster, i)[0].position for i in "abcd"] == [0, 4, 0, 0]


def test_what_is_kept_makes_room_for_sessions_before_they_wait() -> None:
    """100 tokens fit: what is kept of the first session goes for the third one, which asks for all of it."""
    cluster = driver()
    submit(cluster, "a", tuple(range(40)))
    assert cluster.cluster.serving.prefixes.num_tokens == 40
    cluster.hold = True
    submit(cluster, "b", tuple(range(30, 60)), max_new_tokens=20)
    submit(cluster, "c", tuple(range(60, 80)), max_new_tokens=30)
    assert all(sent(cluster, i) for i in "bc"), "neither waits"
    assert orders(cluster) == ([1], [1])
    dropping = next(i for i, c in enumerate(cluster.seen) if isinstance(c, do.SendStep) and c.dropped)
    opening = next(i for i, c in enumerate(cluster.seen) if isinstance(c, do.SendStep) and any(s.session_id == "c" for s in c.segments))
    assert dropping < opening


def test_a_session_that_needs_the_room_of_what_it_begins_with_takes_it_over() -> None:
    cluster = driver()
    whole = first_turn(cluster, 50)
    submit(cluster, "second", (*whole, 50), max_new_tokens=10)  # 64 of 100 tokens: no room for a copy beside it
    opening = sent(cluster, "second")[0]
    assert opening.taken is not None and opening.taken.moves and opening.position == 52
    assert orders(cluster) == ([1, 2], [])


def test_a_stage_that_lost_what_was_kept_costs_a_computation_and_nothing_else() -> None:
    cluster = driver()
    whole = first_turn(cluster)
    cluster.hold = True
    submit(cluster, "second", (*whole, 50))
    cluster.report(cluster.held.pop(), error=NotFound("nothing was kept here"))
    cluster.hold = False
    cluster.now_s += 1.0
    cluster.feed(on.Tick())
    again = sent(cluster, "second")[1]
    assert (again.position, again.epoch, again.taken) == (0, 2, None)
    assert [s.position for s in sent(cluster, "second") if s.epoch == 2][:2] == [0, 12], "where it was cut, it is cut again"
    assert cluster.finished["second"].status.num_cached == 0
    assert 1 in orders(cluster)[1]


def test_a_loss_forgets_everything_and_the_answer_goes_on_from_its_first_token() -> None:
    cluster = driver()
    whole = first_turn(cluster)
    cluster.hold = True
    submit(cluster, "second", (*whole, 50), max_new_tokens=5)
    cluster.report(cluster.held.pop(0))
    cluster.held.clear()
    cluster.feed(on.WorkerLost("w2", 2, "it is gone"))
    assert cluster.cluster.serving.prefixes.num_tokens == 0
    cluster.hold = False
    cluster.answer_all()
    cluster.now_s += 0.5
    cluster.feed(on.Tick())
    again = [s for s in sent(cluster, "second") if s.epoch == 2]
    assert (again[0].position, again[0].taken) == (0, None)
    assert cluster.tokens["second"] == [token_after(p) for p in range(14, 19)]
    assert cluster.finished["second"].status.num_cached == 12, "its first token came without computing them"
    submit(cluster, "third", (*whole, 50))
    assert sent(cluster, "third")[0].position == 12, "what the second left under the new plan"


def test_a_move_forgets_what_was_kept_and_what_a_waiting_session_was_to_begin_with() -> None:
    cluster = driver()
    whole = first_turn(cluster)
    cluster.hold_moves = cluster.hold = True
    submit(cluster, "busy", (7, 7, 7))
    cluster.feed(on.ReplanRequested(cluster.cluster.plan_version, "", (Stage("w1", 0, 4), Stage("w2", 4, 5))))
    cluster.answer_moves_once()
    cluster.hold = False
    cluster.answer_all()
    cluster.answer_moves()
    assert cluster.cluster.plan_version == 2
    assert cluster.cluster.serving.prefixes.num_tokens == 4, "what the busy one left under the new plan"
    submit(cluster, "second", (*whole, 50))
    assert sent(cluster, "second")[0].taken is None


def test_a_cancelled_session_leaves_what_landed() -> None:
    cluster = driver()
    cluster.hold = True
    submit(cluster, "a", tuple(range(10)))
    cluster.report(cluster.held.pop())
    cluster.feed(on.SessionCancelled("a", "its reader left"))
    kept = [k for c in cluster.seen if isinstance(c, do.SendStep) for k in c.kept]
    assert [(k.session_id, k.epoch, k.num_tokens) for k in kept] == [("a", 1, 8)]


def test_a_beginning_that_is_declared_shared_is_taken_from_another_caller() -> None:
    cluster = driver()
    ready = on.ModelReady(replace(cluster.cluster.card), (tuple(range(9)),))  # type: ignore[type-var]
    cluster.feed(ready)
    submit(cluster, "a", (*range(9), 20, 21, 22, 23, 24))
    submit(cluster, "b", (*range(9), 20, 21, 22, 23, 24), caller=b"two")
    assert [sent(cluster, i)[0].position for i in "ab"] == [0, 8]


def running(cluster: Driver, prompt: tuple[int, ...]) -> None:
    """A session whose prompt landed and that goes on; what it sends next is held back."""
    cluster.hold = True
    submit(cluster, "runs", prompt, max_new_tokens=20)
    cluster.report(cluster.held.pop(0))


def fill_lanes(cluster: Driver) -> None:
    """No further step goes out while those before it are held."""
    for number in range(cluster.cluster.serving.num_lanes - len(cluster.held)):
        submit(cluster, f"other {number}", (90 + number,))
    assert len(cluster.held) == cluster.cluster.serving.num_lanes


def test_a_session_begins_with_the_prompt_of_one_that_still_runs() -> None:
    cluster = driver()
    prompt = tuple(range(10))
    running(cluster, prompt)
    submit(cluster, "second", (*prompt, 50, 51))
    submit(cluster, "stranger", prompt, caller=b"two")
    cluster.hold = False
    cluster.answer_all()
    opening = sent(cluster, "second")[0]
    assert opening.position == 8 and opening.taken is not None
    assert (opening.taken.kept_id, opening.taken.session_id, opening.taken.epoch) == (0, "runs", 1)
    assert opening.taken.digest == token_digest(prompt[:8])
    assert cluster.finished["second"].status.num_cached == 8
    assert sent(cluster, "stranger")[0].position == 0
    assert orders(cluster)[1] == [], "nothing had to be kept for it"


def begun_after(end: on.ClusterEvent, prompt: tuple[int, ...]) -> tuple[Driver, Segment]:
    """How a session begins that was admitted to begin with a running one's prompt, which ended before."""
    cluster = driver()
    running(cluster, prompt)
    fill_lanes(cluster)
    submit(cluster, "second", (*prompt, 50, 51))
    assert sent(cluster, "second") == []
    cluster.feed(end)
    cluster.hold = False
    cluster.answer_all()
    return cluster, sent(cluster, "second")[0]


def test_where_the_running_one_ends_first_what_it_left_is_taken() -> None:
    prompt = tuple(range(10))
    _, opening = begun_after(on.SessionCancelled("runs", "its reader left"), prompt)
    assert opening.taken is not None and (opening.taken.kept_id, opening.taken.session_id) == (1, "")
    assert (opening.position, opening.taken.digest) == (8, token_digest(prompt[:8]))


def test_where_the_running_one_fails_everything_is_computed() -> None:
    cluster, opening = begun_after(on.SessionFailed("runs", NotFound("its journal is gone")), tuple(range(10)))
    assert (opening.position, opening.taken) == (0, None)
    assert cluster.finished["second"].status.num_cached == 0


def test_a_stage_where_the_running_one_is_no_longer_costs_a_computation() -> None:
    cluster = driver()
    prompt = tuple(range(10))
    running(cluster, prompt)
    submit(cluster, "second", (*prompt, 50))
    cluster.report(cluster.held.pop(0))
    cluster.report(cluster.held.pop(0), error=NotFound("session runs is not here"))
    cluster.hold = False
    cluster.answer_all()
    cluster.now_s += 1.0
    cluster.feed(on.Tick())
    again = [s for s in sent(cluster, "second") if s.epoch == 2]
    assert (again[0].position, again[0].taken) == (0, None)
    assert cluster.tokens["second"] == [token_after(p) for p in (11, 12, 13)]
    assert orders(cluster)[1] == [], "there was nothing to drop"
