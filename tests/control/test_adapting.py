"""The running cluster and its adaptive planner: what is seen, ordered, carried out and written down."""

from __future__ import annotations

import pytest

from engine.control import events as on
from engine.control.adaptation.history import Verdict
from engine.control.adaptation.rules import AdaptationSettings, Mode
from engine.control.cluster import Cluster, ClusterConfig
from engine.control.status import cluster_status
from engine.data.errors import InvalidInput, Refused
from engine.data.generation import StageTiming
from engine.data.plan import Plan, Stage
from engine.data.status import Phase
from tests.control.harness import Driver, card, token_after

NUM_ITEMS = 12
ITEM_S = 0.01


def serving(mode: Mode) -> Driver:
    """Three workers that measured the same, one endless session, every step held until `run` answers it."""
    driver = Driver(num_workers=3, hold=True, times={f"w{i}": ITEM_S for i in (1, 2, 3)})
    driver.cluster = Cluster(ClusterConfig(num_workers_expected=3, adaptation=AdaptationSettings(mode=mode)), 0.0)
    driver.feed(on.ModelReady(card(NUM_ITEMS, kv_bytes=1)))
    for i in range(3):
        driver.join(f"w{i + 1}")
    return driver


def run(driver: Driver, num_steps: int, slow: dict[str, float]) -> None:
    """Steps take what their stages' items take, times the factor of a slow worker; sessions follow one another."""
    for _ in range(num_steps):
        if not driver.held:
            driver.submit(f"s{len(driver.wanted)}", max_new_tokens=50)
        step, plan = driver.held.pop(0), driver.cluster.plan
        assert plan is not None
        timings = tuple(StageTiming(s.node_id, ITEM_S * s.num_items * slow.get(s.node_id, 1.0), 0.0, 0.0, 0.0) for s in plan.stages)
        driver.now_s += sum(t.compute_s for t in timings)
        driver.report(step, timings)
        for i in range(3):
            driver.beat(f"w{i + 1}")
        driver.feed(on.Tick())


def items(driver: Driver) -> dict[str, int]:
    assert driver.cluster.plan is not None
    return {s.node_id: s.num_items for s in driver.cluster.plan.stages}


def assert_tokens_are_right(driver: Driver) -> None:
    for session_id, tokens in driver.tokens.items():
        assert tokens == [token_after(4 + k) for k in range(len(tokens))], session_id


def test_auto_moves_items_off_a_worker_that_became_slow_and_keeps_the_promise() -> None:
    driver = serving(Mode.AUTO)
    run(driver, 200, {})
    assert items(driver) == {"w1": 4, "w2": 4, "w3": 4} and list(driver.cluster.rebalancer.reports) == []
    run(driver, 400, {"w2": 3.0})
    assert items(driver)["w2"] < 4 and driver.cluster.phase is Phase.SERVING
    order = next(d for d in driver.cluster.adapting.planner.history if d.verdict is Verdict.MIGRATE)
    assert order.outcome.startswith("done") and order.realised_pause_s is not None
    assert order.realised_s is not None and order.realised_s < 0.8 * order.before_s
    assert any("w2" in t and "migrate" in t for t in driver.texts())
    assert_tokens_are_right(driver)


def test_every_plan_of_an_adapting_cluster_knows_who_is_slow() -> None:
    driver = serving(Mode.AUTO)
    run(driver, 200, {})
    run(driver, 400, {"w2": 3.0})
    assert items(driver)["w2"] < items(driver)["w1"]
    driver.feed(on.WorkerLost("w3", 3, "pulled"))
    assert items(driver)["w2"] < items(driver)["w1"]


def test_suggest_waits_for_the_operator() -> None:
    driver = serving(Mode.SUGGEST)
    run(driver, 200, {})
    run(driver, 400, {"w2": 3.0})
    assert items(driver) == {"w1": 4, "w2": 4, "w3": 4}
    offer = [d for d in driver.cluster.adapting.planner.history if d.verdict is Verdict.SUGGEST][-1]
    with pytest.raises(Refused, match="not an open suggestion"):
        driver.feed(on.SuggestionConfirmed(offer.decision_id + 1000))
    driver.feed(on.SuggestionConfirmed(offer.decision_id))
    run(driver, 20, {"w2": 3.0})
    assert items(driver)["w2"] < 4
    assert_tokens_are_right(driver)


def test_off_is_the_default_and_does_nothing() -> None:
    assert ClusterConfig().adaptation.mode is Mode.OFF
    driver = serving(Mode.OFF)
    run(driver, 400, {"w2": 3.0})
    assert items(driver) == {"w1": 4, "w2": 4, "w3": 4} and len(driver.cluster.adapting.planner.history) == 0


def test_the_mode_changes_live_and_a_wrong_one_is_refused() -> None:
    driver = serving(Mode.OFF)
    with pytest.raises(InvalidInput, match="choose one of"):
        driver.feed(on.AdaptationModeSet("maybe"))
    driver.feed(on.AdaptationModeSet("auto"))
    run(driver, 200, {})
    run(driver, 400, {"w2": 3.0})
    assert items(driver)["w2"] < 4


def test_a_move_that_is_dropped_is_not_tried_again_at_once() -> None:
    driver = serving(Mode.AUTO)
    run(driver, 200, {})
    driver.hold_moves = True
    for _ in range(400):
        if driver.cluster.rebalancer.move is None:
            run(driver, 1, {"w2": 3.0})
    assert driver.cluster.rebalancer.move is not None
    version = driver.cluster.rebalancer.move.new.plan_version
    driver.feed(on.MoveFailed(version, "w1", "no room"))
    assert driver.cluster.state.wish is None and driver.cluster.rebalancer.move is None
    order = next(d for d in driver.cluster.adapting.planner.history if d.verdict is Verdict.MIGRATE)
    assert order.outcome == "abandoned: w1: no room"
    assert items(driver) == {"w1": 4, "w2": 4, "w3": 4}


def test_an_operators_own_cut_is_left_alone() -> None:
    driver = serving(Mode.AUTO)
    run(driver, 20, {})
    plan = driver.cluster.plan
    assert plan is not None
    driver.feed(on.ReplanRequested(plan.plan_version, "", (Stage("w1", 0, 2), Stage("w2", 2, 10), Stage("w3", 10, 12))))
    run(driver, 400, {"w2": 3.0})
    assert items(driver) == {"w1": 2, "w2": 8, "w3": 2}


def test_a_suggestion_that_new_measurements_renewed_can_be_confirmed_by_its_earlier_number() -> None:
    driver = serving(Mode.SUGGEST)
    run(driver, 200, {})
    run(driver, 400, {"w2": 3.0})
    planner, present = driver.cluster.adapting.planner, driver.cluster.plan_version
    first = planner.suggestion_for(present)
    assert first is not None and first.plan is not None
    run(driver, 400, {"w2": 4.5})
    renewed = planner.suggestion_for(present)
    assert renewed is not None and renewed.plan is not None and renewed.decision_id != first.decision_id
    assert renewed.plan.stages == first.plan.stages
    driver.feed(on.SuggestionConfirmed(first.decision_id))
    assert driver.cluster.plan is not None and driver.cluster.plan.stages == renewed.plan.stages
    assert planner.history.get(renewed.decision_id).outcome.startswith("confirmed")


def test_a_suggestion_goes_with_the_plan_that_it_was_made_for() -> None:
    driver = serving(Mode.SUGGEST)
    run(driver, 200, {})
    run(driver, 400, {"w2": 3.0})
    cluster = driver.cluster
    present = cluster.plan_version
    offered = cluster.adapting.suggestion_id(present)
    entry = next(e for e in cluster.adapting.status(driver.now_s).history if e.decision_id == offered)
    assert offered and entry.for_version == present
    driver.feed(on.ReplanRequested(present, "", (Stage("w1", 0, 2), Stage("w2", 2, 10), Stage("w3", 10, 12))))
    run(driver, 5, {"w2": 3.0})
    assert cluster.plan_version > present and cluster_status(cluster, "c", driver.now_s).adaptation.suggestion_id == 0
    with pytest.raises(Refused):
        driver.feed(on.SuggestionConfirmed(offered))


def test_a_suggestion_to_go_back_is_bound_to_its_plan_too() -> None:
    former, present = Plan(3, "balanced", (Stage("w1", 0, 12),)), Plan(7, "balanced", (Stage("w2", 0, 12),))
    assert (former.after(present).plan_version, former.after(present).for_version) == (8, 7)


def test_a_preview_and_the_status_carry_hops_and_the_plan_that_they_are_for() -> None:
    driver = serving(Mode.OFF)
    cluster, status = driver.cluster, cluster_status(driver.cluster, "c", driver.now_s)
    assert cluster.plan is not None
    preview = cluster.preview("", cluster.plan.stages)
    assert preview.for_version == cluster.plan_version and len(preview.hop_s) == len(preview.stages)
    assert (status.speed.predicted_step_s, status.speed.predicted_bottleneck_s) == (cluster.plan.round_trip_s, cluster.plan.bottleneck_s)
    assert tuple(stage.predicted_hop_s for stage in status.stages) == cluster.plan.hop_s
