"""The cluster as a state machine: journeys first, then random histories with the invariants checked after every event."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.control import commands as do
from engine.control import events as on
from engine.control.cluster import Cluster, ClusterConfig
from engine.control.moves import KvRange
from engine.control.sessions.scheduler import SchedulerLimits
from engine.data.errors import Corrupt, Exhausted, Gap, InvalidInput, NoodleError, NotFound, Refused, Unavailable
from engine.data.generation import FinishReason, GenerateRequest, StageTiming
from engine.data.plan import Stage
from engine.data.status import Gauges, NodeState, Phase
from engine.profile.cost_model import CostModel, CostSample
from engine.profile.point import DECODE, Point
from engine.profile.profile import Profile, doubt_of
from tests.control.harness import CONTEXT_TOKENS, EOS, Driver, card, token_after
from tests.report.profiles import make_profile


def expected_tokens(num_prompt: int, count: int) -> list[int]:
    return [token_after(num_prompt + i) for i in range(count)]


def test_from_gathering_to_serving_with_an_even_plan() -> None:
    driver = Driver().start()
    plan = driver.cluster.plan
    assert driver.cluster.phase is Phase.SERVING and plan is not None
    assert [s.node_id for s in plan.stages] == ["w1", "w2", "w3"] and sorted(s.num_items for s in plan.stages) == [1, 2, 2]
    loads = [c for c in driver.seen if isinstance(c, do.LoadStage)]
    assert [c.next_worker_id for c in loads] == ["w2", "w3", None]


def test_a_slow_worker_gets_fewer_items() -> None:
    driver = Driver(times={"w2": 4.0}).start()
    assert driver.cluster.plan is not None
    sizes = {s.node_id: s.num_items for s in driver.cluster.plan.stages}
    assert sizes == {"w1": 2, "w2": 1, "w3": 2}


def test_a_session_runs_to_its_length_and_its_memory_is_released() -> None:
    driver = Driver().start()
    driver.submit("s1", num_prompt=4, max_new_tokens=5)
    assert driver.tokens["s1"] == expected_tokens(4, 5)
    assert driver.finished["s1"].reason is FinishReason.LENGTH
    assert driver.released == ["s1"]
    assert driver.cluster.scheduler.reserved_tokens == 0
    steps = [c for c in driver.seen if isinstance(c, do.SendStep) and c.segments]
    assert [s.segments[0].position for s in steps] == [0, 4, 5, 6, 7]
    assert steps[0].segments[0].sampling is not None and steps[1].segments[0].sampling is None


def test_a_long_prompt_travels_in_chunks_and_only_the_last_one_samples() -> None:
    driver = Driver(hold=True)
    driver.feed(on.ModelReady(card()))
    for i in range(3):
        driver.join(f"w{i + 1}", kv_budget_bytes=5_000, memory_bytes=20_000)
    driver.cluster.serving.batcher.limits = SchedulerLimits(prompt_chunk_tokens=10)
    driver.submit("s1", num_prompt=25, max_new_tokens=2)
    chunks = [c.segments[0] for c in driver.held]
    assert [(c.position, len(c.token_ids), c.sample_index) for c in chunks] == [(0, 10, None), (10, 10, None), (20, 5, 0)]
    driver.hold = False
    driver.answer_all()
    assert driver.tokens["s1"] == expected_tokens(25, 2)


def test_end_of_sequence_and_stop_strings_end_a_session() -> None:
    driver = Driver(hold=True).start()
    driver.submit("s1")
    step = driver.held.pop()
    outcome = on.SegmentOutcome("s1", 1, 0, EOS)
    driver.feed(on.StepReported("w3", step.plan_version, step.step_id, (outcome,), ()))
    assert driver.finished["s1"].reason is FinishReason.STOP
    driver.submit("s2")
    driver.report(driver.held.pop(), stopped=True)
    assert driver.finished["s2"].reason is FinishReason.STOP and driver.tokens["s2"] == expected_tokens(4, 1)


def test_kv_room_makes_sessions_wait_in_order_and_refuses_the_impossible() -> None:
    driver = Driver(hold=True).start()
    capacity = driver.cluster.scheduler.capacity_tokens
    assert capacity == 2_000 // 20
    driver.submit("s1", num_prompt=40, max_new_tokens=20)
    driver.submit("s2", num_prompt=40, max_new_tokens=20)
    driver.submit("s3", num_prompt=4, max_new_tokens=4)
    assert [s.session_id for s in driver.cluster.scheduler.running()] == ["s1"]
    driver.hold = False
    driver.answer_all()
    assert all(driver.finished[s].reason is FinishReason.LENGTH for s in ("s1", "s2", "s3"))
    small = Driver(num_workers=1)
    small.feed(on.ModelReady(card()))
    small.join("w1", kv_budget_bytes=1_000)
    with pytest.raises(Exhausted, match=r"KV for 30 tokens .* holds 20"):
        small.submit("s4", num_prompt=20, max_new_tokens=10)
    assert list(small.cluster.scheduler) == []


def test_a_prompt_beyond_the_context_is_refused_with_both_numbers() -> None:
    driver = Driver().start()
    with pytest.raises(InvalidInput, match=f"{CONTEXT_TOKENS} tokens, the model's context holds {CONTEXT_TOKENS}"):
        driver.submit("s1", num_prompt=CONTEXT_TOKENS)
    driver.submit("s2", num_prompt=CONTEXT_TOKENS - 2, max_new_tokens=50)
    assert len(driver.tokens["s2"]) == 2


def test_a_lost_worker_costs_no_token_and_no_session() -> None:
    driver = Driver(hold=True).start()
    driver.submit("s1", max_new_tokens=6)
    for _ in range(3):
        driver.report(driver.held.pop())
    stale = driver.held.pop()
    member = driver.cluster.members.get("w2")
    assert member is not None and len(driver.tokens["s1"]) == 3
    driver.feed(on.WorkerLost("w2", member.generation, "its connection broke"))
    assert driver.cluster.phase is Phase.SERVING and driver.cluster.plan_version == 2
    driver.report(stale)
    assert len(driver.tokens["s1"]) == 3
    prefix = [c.segments[0] for c in driver.held]
    assert [(s.epoch, s.position, len(s.token_ids), s.sample_index) for s in prefix] == [(2, 0, 4, None), (2, 4, 2, None), (2, 6, 1, 3)]
    assert prefix[0].sampling is not None and prefix[1].token_ids == tuple(expected_tokens(4, 2))
    driver.hold = False
    driver.answer_all()
    assert driver.tokens["s1"] == expected_tokens(4, 6) and driver.finished["s1"].reason is FinishReason.LENGTH


def test_sessions_wait_visibly_and_boundedly_when_the_survivors_cannot_hold_the_model() -> None:
    driver = Driver(num_workers=2, hold=True)
    driver.feed(on.ModelReady(card()))
    driver.join("w1", memory_bytes=2_300)
    driver.join("w2", memory_bytes=2_300)
    driver.submit("s1", max_new_tokens=3)
    driver.report(driver.held.pop())
    member = driver.cluster.members.get("w2")
    assert member is not None
    driver.feed(on.WorkerLost("w2", member.generation, "gone"))
    assert driver.cluster.phase is Phase.GATHERING and "the model needs" in driver.cluster.state.detail
    driver.hold = False
    driver.held.clear()
    driver.join("w3", memory_bytes=2_300)
    assert driver.tokens["s1"] == expected_tokens(4, 3)
    driver.hold = True
    driver.submit("s2")
    driver.feed(on.WorkerLost("w3", driver.generation, "gone"))
    driver.now_s = 121.0
    driver.feed(on.CoordinatorLagged(121.0))
    driver.feed(on.Tick())
    assert isinstance(driver.finished["s2"].error, Exhausted) and "the model needs" in str(driver.finished["s2"].error)


def test_a_silent_worker_is_lost_within_a_second_if_a_step_waits_for_it() -> None:
    driver = Driver(hold=True).start()
    driver.submit("s1")
    while driver.now_s < 0.95:
        driver.now_s += 0.05
        driver.beat("w1"), driver.beat("w3")
        driver.feed(on.Tick())
    w2 = driver.cluster.members.get("w2")
    assert w2 is not None and not w2.alive and any("while a step waited" in t for t in driver.texts())
    driver.feed(on.HeartbeatArrived("w2", w2.generation, "awake", -1.0))
    assert not w2.alive


def test_a_failed_step_is_sent_again_a_little_later_and_not_for_ever() -> None:
    driver = Driver(hold=True).start()
    driver.submit("s1")
    for _ in range(50):
        if "s1" in driver.finished:
            break
        while driver.held:
            driver.report(driver.held.pop(), error=Gap("holds 0 tokens"))
        driver.now_s += 20.0
        driver.feed(on.CoordinatorLagged(20.0))
        driver.feed(on.Tick())
    assert isinstance(driver.finished["s1"].error, Gap)
    driver.submit("s2", max_new_tokens=3)
    driver.report(driver.held.pop(), error=Corrupt("damaged on the way"))
    assert not driver.held
    driver.hold, driver.now_s = False, driver.now_s + 0.1
    driver.feed(on.Tick())
    assert driver.tokens["s2"] == expected_tokens(4, 3)


def test_broken_links_between_living_workers_are_made_anew() -> None:
    driver = Driver(hold=True).start()
    driver.submit("s1", max_new_tokens=3)
    driver.report(driver.held.pop(), error=Unavailable("cannot reach w3"))
    driver.now_s = 0.6
    for worker_id in ("w1", "w2", "w3"):
        driver.beat(worker_id)
    driver.hold = False
    driver.held.clear()
    driver.feed(on.Tick())
    assert driver.cluster.plan_version == 2 and driver.tokens["s1"] == expected_tokens(4, 3)


def test_silence_is_suspect_then_lost_but_not_when_the_coordinator_stood_still() -> None:
    driver = Driver().start()
    driver.now_s = 1.0
    driver.beat("w1"), driver.beat("w3")
    driver.feed(on.Tick())
    w2 = driver.cluster.members.get("w2")
    assert w2 is not None and w2.shown_state() is NodeState.SUSPECT
    driver.now_s = 10.0
    driver.feed(on.CoordinatorLagged(9.0))
    driver.feed(on.Tick())
    assert w2.alive
    driver.now_s = 13.5
    driver.beat("w1"), driver.beat("w3")
    driver.feed(on.Tick())
    assert w2.shown_state() is NodeState.LOST
    assert any("no heartbeat for" in t for t in driver.texts())
    assert driver.cluster.phase is Phase.SERVING


def test_heartbeats_and_reports_of_a_former_registration_are_dropped() -> None:
    driver = Driver().start()
    old = driver.cluster.members.get("w1")
    assert old is not None
    generation = old.generation
    driver.feed(on.WorkerLost("w1", generation, "its connection broke"))
    driver.join("w1")
    driver.now_s = 2.9
    driver.feed(on.HeartbeatArrived("w1", generation, "old", -1.0, Gauges(1, 1, 1.0)))
    driver.feed(on.WorkerLost("w1", generation, "late"))
    new = driver.cluster.members.get("w1")
    assert new is not None and new.alive and new.detail != "old"


def test_a_worker_that_cannot_load_is_left_out_and_the_last_one_fails_the_cluster() -> None:
    driver = Driver(num_workers=2).start()
    for worker_id in ("w1", "w2"):
        member = driver.cluster.members.get(worker_id)
        assert member is not None
        driver.feed(on.WorkerFailed(worker_id, member.generation, "h.3 is missing from model.safetensors"))
    assert driver.cluster.state.failure == "h.3 is missing from model.safetensors"
    with pytest.raises(Unavailable, match=r"h.3 is missing"):
        driver.submit("s1")
    driver.join("w3")
    assert driver.cluster.state.failure == "" and driver.cluster.phase is Phase.SERVING


def test_a_model_that_does_not_fit_says_what_is_short() -> None:
    driver = Driver(num_workers=1)
    driver.feed(on.ModelReady(card()))
    driver.join("w1", memory_bytes=2_100)
    assert "the model needs" in driver.cluster.state.failure and "--memory" in driver.cluster.state.failure


def test_an_operators_request_is_checked_and_an_unchanged_plan_moves_nothing() -> None:
    driver = Driver(hold=True).start()
    with pytest.raises(Refused, match="#1 now, the request was made for #7"):
        driver.feed(on.ReplanRequested(7, "balanced"))
    with pytest.raises(InvalidInput, match="unknown"):
        driver.feed(on.ReplanRequested(1, "fastest"))
    with pytest.raises(InvalidInput, match="do not cover"):
        driver.feed(on.ReplanRequested(1, "", (Stage("w1", 0, 3),)))
    with pytest.raises(Refused, match="w9, which cannot hold"):
        driver.feed(on.ReplanRequested(1, "", (Stage("w9", 0, 5),)))
    driver.feed(on.ReplanRequested(1, ""))
    assert driver.cluster.plan_version == 1 and any("unchanged" in t for t in driver.texts())


def test_draining_moves_the_items_away() -> None:
    driver = Driver().start()
    driver.feed(on.DrainRequested(("w2",)))
    assert driver.cluster.plan is not None and {s.node_id for s in driver.cluster.plan.stages} == {"w1", "w3"}
    assert driver.cluster.plan_version == 2
    with pytest.raises(NotFound):
        driver.feed(on.DrainRequested(("nobody",)))
    driver.feed(on.DrainRequested(("w1",)))
    with pytest.raises(Refused, match="only worker"):
        driver.feed(on.DrainRequested(("w3",)))


def test_queued_sessions_time_out_with_the_reason() -> None:
    driver = Driver(num_workers=1)
    driver.feed(on.ModelReady(card()))
    driver.submit("s1")
    driver.now_s = 200.0
    driver.feed(on.Tick())
    assert isinstance(driver.finished["s1"].error, Exhausted) and "waiting for 1 workers" in str(driver.finished["s1"].error)


NAMES = ["submit", "cancel", "answer", "fail", "lose", "join", "drain", "tick", "beat", "replan", "move", "duplicate", "undelivered"]
NAMES += ["lag", "missing", "answer_move", "move_fails"]
ACTIONS = st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 5), st.integers(1, 50)), max_size=60)


@settings(max_examples=300, deadline=None)
@given(ACTIONS)
def test_any_history_keeps_the_invariants_and_no_token_is_wrong(actions: list[tuple[str, int, int]]) -> None:
    """`Driver.feed` checks the invariants after every event; the tokens of every session are a prefix of the right ones."""
    driver = Driver(hold=True, hold_moves=True).start()
    prompts: dict[str, int] = {}
    for number, (action, which, size) in enumerate(actions):
        try:
            act(driver, action, which, size, f"s{number}", prompts)
        except NoodleError:
            continue
    settle(driver)
    for session_id, tokens in driver.tokens.items():
        assert tokens == expected_tokens(prompts[session_id], len(tokens))
    assert not list(driver.cluster.scheduler) and driver.cluster.scheduler.reserved_tokens == 0
    for session_id, end in driver.finished.items():
        if end.reason is FinishReason.LENGTH:
            assert len(driver.tokens[session_id]) == min(driver.wanted[session_id], CONTEXT_TOKENS - prompts[session_id])


def settle(driver: Driver) -> None:
    """Nothing fails any more: two fresh workers join, everybody answers and beats, and every session must come to its end."""
    driver.hold = driver.hold_moves = False
    for worker_id in ("w8", "w9"):
        driver.join(worker_id)
    for number in range(400):
        if number > 4 and not list(driver.cluster.scheduler):
            return
        driver.answer_moves()
        driver.answer_all()
        driver.now_s += 0.5
        for member in driver.cluster.members:
            if member.alive:
                driver.beat(member.spec.node_id)
        driver.feed(on.Tick())


def act(driver: Driver, action: str, which: int, size: int, new_id: str, prompts: dict[str, int]) -> None:
    cluster, worker_id = driver.cluster, f"w{which + 1}"
    sessions = [s.session_id for s in cluster.scheduler]
    member = cluster.members.get(worker_id)
    step = driver.held[which % len(driver.held)] if driver.held else None
    if action == "submit":
        prompts[new_id] = size
        driver.submit(new_id, num_prompt=size, max_new_tokens=1 + which)
    elif action == "cancel" and sessions:
        driver.feed(on.SessionCancelled(sessions[which % len(sessions)], "test"))
    elif action == "answer" and step:
        driver.held.remove(step)
        driver.report(step)
    elif action == "duplicate" and step:
        driver.report(step)
    elif action == "fail" and step:
        driver.held.remove(step)
        driver.report(step, error=Exhausted("full"))
    elif action == "undelivered" and step:
        driver.held.remove(step)
        driver.feed(on.StepUndelivered(step.plan_version, step.step_id, "gone"))
    elif action == "lose" and member:
        driver.feed(on.WorkerLost(worker_id, member.generation, "test"))
    elif action == "join":
        driver.join(worker_id)
    elif action == "drain":
        driver.feed(on.DrainRequested((worker_id,)))
    elif action == "beat" and member:
        driver.beat(worker_id)
    elif action == "tick":
        driver.now_s += size / 20
        driver.feed(on.Tick())
    elif action == "replan":
        driver.feed(on.ReplanRequested(cluster.plan_version, ""))
    elif action == "move":
        nodes = [m.spec.node_id for m in cluster.members.eligible()][: 1 + which % 3]
        bounds = sorted({size % 4 + 1, (size // 4) % 4 + 1})[: len(nodes) - 1]
        parts = zip(nodes, [0, *bounds], [*bounds, 5], strict=False)
        driver.feed(on.ReplanRequested(cluster.plan_version, "", tuple(Stage(n, a, b) for n, a, b in parts)))
    elif action == "answer_move" and driver.held_moves:
        driver.feed(driver.held_moves.pop(which % len(driver.held_moves)))
    elif action == "move_fails" and cluster.rebalancer.move:
        driver.feed(on.MoveFailed(cluster.rebalancer.move.new.plan_version, worker_id, "test"))
    elif action == "missing" and driver.held_moves:
        answer = driver.held_moves.pop(which % len(driver.held_moves))
        if isinstance(answer, on.StageCommitted):
            answer = replace(answer, missing=tuple(sessions[:1]))
        driver.feed(answer)
    elif action == "lag":
        driver.now_s += size
        driver.feed(on.CoordinatorLagged(size))


def test_requests_are_validated_when_built() -> None:
    with pytest.raises(InvalidInput, match="either a prompt text, prompt token ids or messages"):
        GenerateRequest()
    with pytest.raises(InvalidInput, match="max_new_tokens 0"):
        GenerateRequest(prompt="x", max_new_tokens=0)


def test_a_restored_session_goes_on_behind_its_last_token_and_a_complete_one_ends() -> None:
    driver = Driver(hold=True).start()
    request = GenerateRequest(prompt_ids=(0, 1, 2, 3), max_new_tokens=5)
    driver.tokens["s1"] = expected_tokens(4, 2)
    driver.feed(on.SessionRestored("s1", (0, 1, 2, 3), request, tuple(expected_tokens(4, 2)), 7 << 20))
    assert {s.epoch for c in driver.held for s in c.segments} == {7 << 20}
    driver.hold = False
    driver.answer_all()
    assert driver.tokens["s1"] == expected_tokens(4, 5)
    driver.feed(on.SessionRestored("s2", (0, 1, 2, 3), request, tuple(expected_tokens(4, 5)), 7 << 20))
    assert driver.finished["s2"].reason is FinishReason.LENGTH and "s2" not in driver.tokens
    too_long = (0,) * (CONTEXT_TOKENS + 1)
    driver.feed(on.SessionRestored("s3", too_long, request, (), 7 << 20))
    assert isinstance(driver.finished["s3"].error, InvalidInput) and driver.cluster.scheduler.get("s3") is None


def test_a_restarted_coordinator_waits_a_moment_for_its_workers_and_outranks_former_plans() -> None:
    driver = Driver(num_workers=3)
    driver.cluster = Cluster(ClusterConfig(num_workers_expected=3), 0.0, last_plan_version=41)
    driver.feed(on.ModelReady(card()))
    driver.join("w1"), driver.join("w2")
    assert driver.cluster.phase is Phase.GATHERING
    driver.now_s = 3.5
    driver.beat("w1"), driver.beat("w2")
    driver.feed(on.Tick())
    assert driver.cluster.phase is Phase.SERVING and driver.cluster.plan_version == 42


def test_a_move_keeps_the_old_plan_until_the_commit_and_copies_only_what_moves() -> None:
    driver = Driver(hold=True, hold_moves=True).start()
    driver.submit("s1", max_new_tokens=9)
    driver.report(driver.held.pop())
    driver.feed(on.ReplanRequested(1, "", (Stage("w1", 0, 3), Stage("w3", 3, 5))))
    assert len(driver.held_moves) == 2 and driver.cluster.plan_version == 1
    driver.report(driver.held.pop())
    driver.answer_moves_once()
    copies = [c for c in driver.seen if isinstance(c, do.CopyKv)]
    assert {(c.transfer.source_id, c.transfer.target_id, c.transfer.start, c.transfer.stop) for c in copies} == {
        ("w2", "w1", 2, 3),
        ("w2", "w3", 3, 4),
    }
    assert all(c.ranges == (KvRange("s1", 1, 0, 5),) for c in copies)
    driver.answer_moves_once()
    assert driver.cluster.rebalancer.holds_steps and len(driver.held) == 1
    driver.report(driver.held.pop())
    assert driver.held == [] and driver.cluster.plan_version == 1
    delta = [c for c in driver.seen if isinstance(c, do.CopyKv)][2:]
    assert all(c.ranges == (KvRange("s1", 1, 5, 6),) for c in delta)
    driver.answer_moves_once()
    assert driver.cluster.plan_version == 2 and driver.held == []
    assert isinstance(driver.seen[-3], do.AdoptPlan) and isinstance(driver.seen[-1], do.CommitStage)
    driver.answer_moves_once()
    assert [(s.epoch, s.position) for c in driver.held for s in c.segments] == [(2, 6)]
    assert any(isinstance(c, do.ReleaseStage) and c.worker_id == "w2" and c.plan_version == 1 for c in driver.seen)
    report = driver.cluster.rebalancer.reports[-1]
    assert (report.num_items, report.kv_bytes, report.outcome) == (2, 12, "done")
    driver.hold = False
    driver.answer_all()
    assert driver.tokens["s1"] == expected_tokens(4, 9)


@pytest.mark.parametrize("num_answers", range(7))
@pytest.mark.parametrize("victim", ["w1", "w2", "w3"])
def test_a_loss_at_any_point_of_a_move_leaves_one_plan_and_every_token(num_answers: int, victim: str) -> None:
    driver = Driver(hold=True, hold_moves=True).start()
    driver.submit("s1", max_new_tokens=9)
    driver.report(driver.held.pop())
    driver.feed(on.ReplanRequested(1, "", (Stage("w1", 0, 3), Stage("w3", 3, 5))))
    for _ in range(num_answers):
        if driver.held_moves:
            driver.feed(driver.held_moves.pop(0))
        elif driver.held:
            driver.report(driver.held.pop())
    member = driver.cluster.members.get(victim)
    assert member is not None
    driver.feed(on.WorkerLost(victim, member.generation, "killed"))
    driver.hold = driver.hold_moves = False
    driver.answer_moves()
    driver.answer_all()
    assert driver.tokens["s1"] == expected_tokens(4, 9)


def test_decoding_sessions_spread_over_the_lanes_and_share_steps() -> None:
    driver = Driver(hold=True)
    driver.feed(on.ModelReady(card()))
    for i in range(3):
        driver.join(f"w{i + 1}", kv_budget_bytes=20_000, memory_bytes=80_000)
    assert driver.cluster.serving.num_lanes == 4
    for i in range(8):
        driver.submit(f"s{i}", num_prompt=2, max_new_tokens=30)
    for _ in range(40):
        driver.report(driver.held.pop(0))
    assert [len(c.segments) for c in driver.held] == [2, 2, 2, 2]
    counts = [len(driver.tokens[f"s{i}"]) for i in range(8)]
    assert max(counts) - min(counts) <= 3


def test_a_long_prompt_takes_no_more_of_a_step_than_its_share_and_starves_nobody() -> None:
    driver = Driver(hold=True, num_workers=1)
    driver.feed(on.ModelReady(card()))
    driver.join("w1", kv_budget_bytes=90_000, memory_bytes=200_000)
    driver.cluster.serving.batcher.limits = SchedulerLimits(unknown_chunk_tokens=8, chunk_s=0.08)
    driver.submit("short", num_prompt=2, max_new_tokens=20)
    driver.report(driver.held.pop(0))
    driver.submit("long", num_prompt=50, max_new_tokens=4)
    driver.submit("other", num_prompt=3, max_new_tokens=4)
    steps = []
    while driver.held:
        step = driver.held.pop(0)
        steps.append({s.session_id: len(s.token_ids) for s in step.segments})
        timings = (StageTiming("w1", 0.01 * sum(steps[-1].values()), 0.0, 0.0, 0.0),)
        driver.report(step, timings=timings)
    mixed = [s for s in steps if "long" in s and s["long"] > 1]
    assert all(s["long"] <= 8 for s in mixed) and len(mixed) >= 6 and sum(s.get("short") == 1 for s in mixed) == len(mixed)
    assert any("other" in s for s in steps[:4])
    assert driver.tokens["long"] == expected_tokens(50, 4) and driver.tokens["short"] == expected_tokens(2, 20)


@pytest.mark.parametrize("num_workers", [1, 3])
def test_a_prompt_is_read_beside_as_many_sessions_as_a_step_has_places_for(num_workers: int) -> None:
    driver = Driver(hold=True, num_workers=num_workers)
    driver.feed(on.ModelReady(card()))
    for number in range(num_workers):
        driver.join(f"w{number + 1}", kv_budget_bytes=90_000, memory_bytes=200_000)
    driver.cluster.serving.batcher.limits = SchedulerLimits(max_rows=4)
    for number in range(8):
        driver.submit(f"s{number}", num_prompt=2, max_new_tokens=60)
    while driver.held and min((len(driver.tokens.get(f"s{number}", [])) for number in range(8)), default=0) < 5:
        driver.report(driver.held.pop(0))
    driver.submit("late", num_prompt=30, max_new_tokens=4)
    while driver.held and "late" not in driver.finished:
        driver.report(driver.held.pop(0))
    assert driver.tokens["late"] == expected_tokens(30, 4)
    assert not [name for name in driver.finished if name != "late"]


def sample_profile(fingerprint: str, noise: float) -> Profile:
    """Three blocks and their ends, five items in all, as the harness's model has."""
    profile = make_profile(3)
    law = CostModel.fit([CostSample(Point(DECODE, 1, context, batch), (1e-3 * batch,) * 5) for context in (8, 90) for batch in (1, 2)])
    doubt = doubt_of([replace(step, cv=noise) for step in profile.steps], 1.0)
    return replace(profile, fingerprint=fingerprint, cost_model=law, honesty=replace(profile.honesty, noise_cv=noise, doubt=doubt))


@pytest.mark.parametrize(("noise", "uses_it"), [(0.02, True), (0.4, False)])
def test_a_profile_replaces_the_first_measurement_unless_it_is_noisy(noise: float, uses_it: bool) -> None:
    driver = Driver().start()
    member = driver.cluster.members.get("w1")
    assert member is not None
    before, found = member.decode_s, sample_profile(driver.cluster.card.fingerprint, noise)  # type: ignore[union-attr]
    driver.feed(on.WorkerProfiled("w1", member.generation, found, slowdown=2.0))
    assert found.cost_model is not None
    law_s = [2.0 * found.cost_model.time_s(i, DECODE, 1, 16, 1) for i in range(found.cost_model.num_items)]
    assert list(member.decode_s) == (law_s if uses_it else list(before))
    assert any("profiled: decode" in text for text in driver.texts())
    driver.feed(on.WorkerProfiled("w1", member.generation - 1, found))
    driver.feed(on.WorkerProfiled("w1", member.generation, sample_profile("another model", noise)))
    assert len([text for text in driver.texts() if "profiled: decode" in text]) == 1


def test_an_interrupted_session_waits_for_room_where_a_new_one_is_refused() -> None:
    driver = Driver(num_workers=2, hold=True)
    driver.feed(on.ModelReady(card()))
    driver.join("w1", kv_budget_bytes=2_000, memory_bytes=20_000)
    driver.join("w2", kv_budget_bytes=360, memory_bytes=20_000)
    for name in ("s1", "s2"):
        driver.submit(name, num_prompt=4, max_new_tokens=8)
    assert [s.session_id for s in driver.cluster.scheduler.running()] == ["s1"]
    driver.feed(on.WorkerLost("w1", 1, "gone"))
    assert driver.cluster.phase is Phase.SERVING and driver.cluster.scheduler.capacity_tokens == 7
    assert "s1" not in driver.finished and isinstance(driver.finished["s2"].error, Exhausted)
    driver.hold = False
    driver.held.clear()
    driver.join("w0", kv_budget_bytes=2_000, memory_bytes=20_000)
    assert driver.tokens["s1"] == expected_tokens(4, 8)


def test_interrupted_sessions_come_before_those_that_wait() -> None:
    driver = Driver(hold=True).start()
    for name in ("s1", "s2", "s3"):
        driver.submit(name, num_prompt=30, max_new_tokens=20)
    assert [s.session_id for s in driver.cluster.scheduler.running()] == ["s1", "s2"]
    driver.feed(on.WorkerLost("w3", 3, "gone"))
    assert driver.cluster.scheduler.capacity_tokens == 66
    assert [s.session_id for s in driver.cluster.scheduler.running()] == ["s1"]
    driver.held.clear()
    driver.feed(on.SessionCancelled("s1", "test"))
    assert [s.session_id for s in driver.cluster.scheduler.running()] == ["s2"]


def test_prompts_that_fit_share_a_step_and_more_than_a_chunk_waits_for_the_next() -> None:
    driver = Driver(hold=True, num_workers=1)
    driver.feed(on.ModelReady(card()))
    driver.join("w1", kv_budget_bytes=90_000, memory_bytes=200_000)
    driver.cluster.serving.batcher.limits = SchedulerLimits(prompt_chunk_tokens=10)
    driver.submit("s0", num_prompt=1, max_new_tokens=30)
    for i in range(1, 4):
        driver.submit(f"s{i}", num_prompt=4)
    driver.report(driver.held.pop(0))
    assert [(s.session_id, len(s.token_ids)) for s in driver.held[-1].segments] == [("s0", 1), ("s1", 4), ("s2", 4), ("s3", 2)]
    driver.report(driver.held.pop(0))
    assert [(s.session_id, s.position, len(s.token_ids)) for s in driver.held[-1].segments if s.session_id == "s3"] == [("s3", 2, 2)]
    driver.hold = False
    driver.answer_all()
    assert all(driver.tokens[f"s{i}"] == expected_tokens(4, 5) for i in range(1, 4))
