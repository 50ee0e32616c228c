"""The cluster as a state machine: journeys first, then random histories with the invariants checked after every event."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.control import commands as do
from engine.control import events as on
from engine.control.scheduler import SchedulerLimits
from engine.data import (
    Exhausted,
    FinishReason,
    GenerateRequest,
    InvalidInput,
    NodeState,
    NoodleError,
    NotFound,
    Phase,
    Refused,
    Unavailable,
)
from tests.control.harness import CONTEXT_TOKENS, EOS, Driver, card, token_after


def expected_tokens(num_prompt: int, count: int) -> list[int]:
    return [token_after(num_prompt + i) for i in range(count)]


def test_from_gathering_to_serving_with_an_even_plan() -> None:
    driver = Driver().start()
    plan = driver.cluster.plan
    assert driver.cluster.phase is Phase.SERVING and plan is not None
    assert [(s.node_id, s.num_items) for s in plan.stages] == [("w1", 2), ("w2", 2), ("w3", 1)]
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
    driver.cluster.scheduler.limits = SchedulerLimits(prompt_chunk_tokens=10)
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


def test_a_lost_worker_ends_its_sessions_with_an_error_and_the_rest_serve_on() -> None:
    driver = Driver(hold=True).start()
    driver.submit("s1")
    member = driver.cluster.members.get("w2")
    assert member is not None
    driver.feed(on.WorkerLost("w2", member.generation, "its connection broke"))
    error = driver.finished["s1"].error
    assert isinstance(error, Unavailable) and "w2 was lost" in str(error)
    assert driver.cluster.phase is Phase.SERVING and driver.cluster.plan_version == 2
    stale = driver.held.pop()
    driver.report(stale)
    assert "s1" not in driver.tokens
    driver.hold = False
    driver.submit("s2")
    assert driver.tokens["s2"] == expected_tokens(4, 5)


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
    driver.join("w1")
    driver.now_s = 2.9
    driver.feed(on.HeartbeatArrived("w1", generation, "old", -1.0, 1, 1, 1.0))
    driver.feed(on.WorkerLost("w1", generation, "late"))
    new = driver.cluster.members.get("w1")
    assert new is not None and new.alive and new.detail != "old"


def test_a_worker_that_cannot_load_is_left_out_and_the_last_one_fails_the_cluster() -> None:
    driver = Driver(num_workers=2).start()
    for worker_id in ("w1", "w2"):
        member = driver.cluster.members.get(worker_id)
        assert member is not None
        driver.feed(on.WorkerFailed(worker_id, member.generation, "h.3 is missing from model.safetensors"))
    assert driver.cluster.failure == "h.3 is missing from model.safetensors"
    with pytest.raises(Unavailable, match=r"h.3 is missing"):
        driver.submit("s1")
    driver.join("w3")
    assert driver.cluster.failure == "" and driver.cluster.phase is Phase.SERVING


def test_a_model_that_does_not_fit_says_what_is_short() -> None:
    driver = Driver(num_workers=1)
    driver.feed(on.ModelReady(card()))
    driver.join("w1", memory_bytes=2_100)
    assert "the model needs" in driver.cluster.failure and "--memory" in driver.cluster.failure


def test_replanning_waits_for_running_sessions_and_checks_the_version() -> None:
    driver = Driver(hold=True).start()
    driver.submit("s1")
    with pytest.raises(Refused, match="#1 now, the request was made for #7"):
        driver.feed(on.ReplanRequested(7, "balanced"))
    with pytest.raises(InvalidInput, match="unknown"):
        driver.feed(on.ReplanRequested(1, "fastest"))
    driver.feed(on.ReplanRequested(1, ""))
    driver.submit("s2")
    assert driver.cluster.plan_version == 1 and len(driver.cluster.scheduler.running()) == 1
    driver.hold = False
    driver.answer_all()
    assert driver.cluster.plan_version == 2
    assert driver.tokens["s1"] == driver.tokens["s2"] == expected_tokens(4, 5)


def test_draining_moves_the_items_away() -> None:
    driver = Driver().start()
    driver.feed(on.DrainRequested("w2"))
    assert driver.cluster.plan is not None and {s.node_id for s in driver.cluster.plan.stages} == {"w1", "w3"}
    with pytest.raises(NotFound):
        driver.feed(on.DrainRequested("nobody"))
    driver.feed(on.DrainRequested("w1"))
    with pytest.raises(Refused, match="only worker"):
        driver.feed(on.DrainRequested("w3"))


def test_queued_sessions_time_out_with_the_reason() -> None:
    driver = Driver(num_workers=1)
    driver.feed(on.ModelReady(card()))
    driver.submit("s1")
    driver.now_s = 200.0
    driver.feed(on.Tick())
    assert isinstance(driver.finished["s1"].error, Exhausted) and "waiting for 1 workers" in str(driver.finished["s1"].error)


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(
            ["submit", "cancel", "answer", "fail", "lose", "join", "drain", "tick", "beat", "replan", "duplicate", "undelivered"]
        ),
        st.integers(0, 5),
        st.integers(1, 50),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(ACTIONS)
def test_any_history_keeps_the_invariants_and_no_token_is_wrong(actions: list[tuple[str, int, int]]) -> None:
    """`Driver.feed` checks the invariants after every event; the tokens of every session are a prefix of the right ones."""
    driver = Driver(hold=True).start()
    prompts: dict[str, int] = {}
    for number, (action, which, size) in enumerate(actions):
        try:
            act(driver, action, which, size, f"s{number}", prompts)
        except NoodleError:
            continue
    driver.hold = False
    driver.answer_all()
    for session_id, tokens in driver.tokens.items():
        assert tokens == expected_tokens(prompts[session_id], len(tokens))
    for session_id, end in driver.finished.items():
        if end.reason is FinishReason.LENGTH:
            assert session_id in driver.released or driver.cluster.plan_version > 1


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
        driver.feed(on.DrainRequested(worker_id))
    elif action == "beat" and member:
        driver.beat(worker_id)
    elif action == "tick":
        driver.now_s += size / 20
        driver.feed(on.Tick())
    elif action == "replan":
        driver.feed(on.ReplanRequested(cluster.plan_version, ""))


def test_requests_are_validated_when_built() -> None:
    with pytest.raises(InvalidInput, match="either a prompt text or prompt token ids"):
        GenerateRequest()
    with pytest.raises(InvalidInput, match="max_new_tokens 0"):
        GenerateRequest(prompt="x", max_new_tokens=0)
