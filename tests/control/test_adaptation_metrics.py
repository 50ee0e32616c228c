"""What becomes of steps and heartbeats: predictions by the cost model, channels, beliefs, gates, memory."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest

from engine.control.adaptation.cost import MigrationRates
from engine.control.adaptation.watching.beliefs import Beliefs, HeterogeneousPlan
from engine.control.adaptation.watching.gates import Gates, TriggerKind, imbalance_trigger, latency_triggers, link_triggers, memory_triggers
from engine.control.adaptation.watching.law import stage_law
from engine.control.adaptation.watching.memory import MemoryTrend
from engine.control.adaptation.watching.metrics import Channel, RuntimeMetrics
from engine.control.adaptation.watching.problem import corrected, measured_s
from engine.control.adaptation.watching.room import MemoryRoom
from engine.control.adaptation.watching.view import AdaptationView, MemorySample, StepSample, even_hops
from engine.data.errors import InvalidInput
from engine.data.generation import StageTiming
from engine.data.model import Item
from engine.data.plan import Plan, Stage
from engine.planning.problem import Link, PlanningNode, Problem
from engine.profile.cost_model import CostModel, ItemLaw, PhaseLaws
from engine.profile.point import DECODE, PREFILL, Point

STAGES = (Stage("a", 0, 2), Stage("b", 2, 6))
SHORT = Point(DECODE, 1, 16, 1)
COST = CostModel(
    (
        PhaseLaws(DECODE, (1, 8), (ItemLaw((1.0, 3.0), 0.01),) * 6),
        PhaseLaws(PREFILL, (16, 256), (ItemLaw((2.0, 20.0), 0.001),) * 6),
    )
)


def view(cost_model: CostModel | None = None, version: int = 1) -> AdaptationView:
    items = tuple(Item(f"h.{i}", 100, 10, 4) for i in range(6))
    problem = Problem(items, tuple(PlanningNode(n, 1e4, (0.002,) * 6) for n in "ab"))
    return AdaptationView(Plan(version, "balanced", STAGES), problem, "balanced", cost_model=cost_model)


def feed(metrics: RuntimeMetrics, a_s: float, b_s: float, num: int = 64, hop_s: tuple[float, ...] = (), point: Point = SHORT) -> None:
    rng = random.Random(1)
    for _ in range(num):
        noise = [math.exp(rng.gauss(0.0, 0.02)) for _ in range(2)]
        timings = (StageTiming("a", a_s * noise[0], 0.001, 0.0, 0.0), StageTiming("b", b_s * noise[1], 0.0, 0.0, 0.0))
        metrics.add_step(StepSample(metrics.plan_version, point, timings, hop_s))


def started(cost_model: CostModel | None = None) -> RuntimeMetrics:
    metrics = RuntimeMetrics()
    metrics.start_plan(view(cost_model))
    return metrics


def test_a_node_that_is_slower_is_so_with_any_number_of_rows() -> None:
    items = tuple(Item(f"h.{i}", 1, 1, 1) for i in range(3))
    by_batch = ((1, (0.25, 0.5, math.inf)), (4, (0.5, 0.75, math.inf)))
    node = PlanningNode("a", 1e9, by_batch[0][1], base_s=0.125, time_s_by_batch=by_batch, trip_time_s=(1.0, 2.0, math.inf))
    (found,) = corrected(Problem(items, (node,), Link(0.0)), {"a": math.log(2.0)}).nodes
    assert found.time_s_by_batch == ((1, pytest.approx((0.5, 1.0, math.inf))), (4, pytest.approx((1.0, 1.5, math.inf))))
    assert (found.time_s, found.trip_time_s) == (pytest.approx((0.5, 1.0, math.inf)), pytest.approx((2.0, 4.0, math.inf)))
    assert found.base_s == pytest.approx(0.25)


def test_the_law_carries_measured_times_to_other_points() -> None:
    law = stage_law(view().problem, STAGES[1], COST)
    assert law.predict_s(SHORT) == pytest.approx(0.008)
    for point in (Point(DECODE, 1, 900, 4), Point(DECODE, 1, 16, 8), Point(PREFILL, 64, 0, 1)):
        assert law.predict_s(point) == pytest.approx(0.008 * COST.step_s(point, 2, 6) / COST.step_s(SHORT, 2, 6))
    assert stage_law(view().problem, STAGES[1], None).predict_s(Point(DECODE, 1, 900, 4)) == pytest.approx(0.008)
    assert stage_law(view().problem, Stage("gone", 0, 2), COST).predict_s(SHORT) == 0.0


def test_the_base_of_a_stage_does_not_grow_with_its_step() -> None:
    problem = view().problem
    slow_start = replace(problem, nodes=tuple(replace(n, base_s=0.003) for n in problem.nodes))
    grown = Point(DECODE, 1, 900, 4)
    for point in (SHORT, grown):
        without_s = stage_law(problem, STAGES[1], COST).predict_s(point)
        assert stage_law(slow_start, STAGES[1], COST).predict_s(point) == pytest.approx(0.003 + without_s)
    assert stage_law(slow_start, STAGES[1], None).predict_s(grown) == pytest.approx(0.011)


def test_a_node_left_with_one_item_is_not_slow_for_its_base() -> None:
    """The base of a slow node is slow too, and what is believed of it says so."""
    problem, stages = view().problem, (Stage("a", 0, 1), Stage("b", 1, 6))
    slow_start = replace(problem, nodes=tuple(replace(n, base_s=0.003) for n in problem.nodes))
    for factor in (1.0, 3.0):
        metrics, beliefs = RuntimeMetrics(), Beliefs()
        metrics.start_plan(AdaptationView(Plan(1, "balanced", stages), slow_start, "balanced"))
        feed(metrics, 0.005 * factor, 0.013, 128)
        beliefs.update(metrics)
        assert beliefs.factor("a") == pytest.approx(factor, rel=0.03)
        assert measured_s(corrected(slow_start, beliefs.levels), stages[0]) == pytest.approx(0.005 * factor, rel=0.03)


def test_longer_contexts_and_larger_batches_are_no_slowdown() -> None:
    metrics = started(COST)
    feed(metrics, 0.004, 0.008)
    grown = Point(DECODE, 1, 900, 4)
    factor = COST.step_s(grown, 0, 1) / COST.step_s(SHORT, 0, 1)
    feed(metrics, 0.004 * factor, 0.008 * factor, point=grown)
    assert factor > 2 and not metrics.take_alarms()
    assert not Beliefs().update(metrics)


def test_prefill_and_decode_are_watched_apart() -> None:
    metrics = started(COST)
    chunk = Point(PREFILL, 64, 0, 1)
    usual_s = 0.004 * COST.step_s(chunk, 0, 1) / COST.step_s(SHORT, 0, 1)
    for _ in range(10):
        feed(metrics, 0.004, 0.008, 32)
        feed(metrics, usual_s * 2, usual_s * 4, 32, point=chunk)
    ratios = {f.channel: f.ratio for f in metrics.figures()}
    assert ratios[Channel("stage", "a", DECODE)] == pytest.approx(1.0, rel=0.02)
    assert ratios[Channel("stage", "a", PREFILL)] == pytest.approx(2.0, rel=0.02)
    assert metrics.stage_track("a").channel.phase == DECODE and metrics.num_decode_steps == 320
    beliefs = Beliefs()
    beliefs.update(metrics)
    assert beliefs.factor("a") == 1.0, "planning is about decode steps"


def test_steps_of_other_plans_and_odd_times_are_dropped() -> None:
    metrics = started()
    good = (StageTiming("a", 0.004, 0.0, 0.0, 0.0), StageTiming("b", 0.008, 0.0, 0.0, 0.0))
    metrics.add_step(StepSample(7, SHORT, good))
    metrics.add_step(StepSample(1, SHORT, good[:1]))
    metrics.add_step(StepSample(1, SHORT, good[::-1]))
    metrics.add_step(StepSample(1, SHORT, (StageTiming("a", 0.0, 0.0, 0.0, 0.0), good[1])))
    assert metrics.num_decode_steps == 2 and [c.name for c in metrics.tracks()] == ["b"]


def test_a_link_is_compared_with_its_own_beginning() -> None:
    metrics, beliefs = started(), Beliefs()
    feed(metrics, 0.004, 0.008, 320, hop_s=(0.0005, 0.0005))
    beliefs.update(metrics)
    assert beliefs.link_s == {"a>b": pytest.approx(0.0005), "b>coordinator": pytest.approx(0.0005)}
    feed(metrics, 0.004, 0.008, 64, hop_s=(0.020, 0.0005))
    assert [channel.name for channel, _ in metrics.take_alarms()] == ["a>b"]
    assert beliefs.update(metrics) and beliefs.hop_s("a>b", 0.0) == pytest.approx(0.020)
    assert beliefs.hop_s("b>a", 0.0) == pytest.approx(0.020), "a link never used: the median of the known ones"


def test_a_new_plan_keeps_what_is_known_of_a_node_and_measures_again_what_measured_again() -> None:
    metrics, beliefs = started(), Beliefs()
    feed(metrics, 0.004, 0.016)
    beliefs.update(metrics)
    assert beliefs.factor("b") == pytest.approx(2.0, rel=0.02)
    metrics.start_plan(view(version=2))
    assert metrics.num_decode_steps == 0 and metrics.stage_track("b").recent == []
    assert math.exp(metrics.stage_track("b").detector.level) == pytest.approx(2.0, rel=0.02)
    problem = view().problem
    faster = Problem(problem.items, (problem.nodes[0], PlanningNode("b", 1e4, (0.004,) * 6)))
    assert metrics.measured_anew(faster) == ("b",)


def test_hops_share_what_is_neither_compute_nor_queue() -> None:
    timings = (StageTiming("a", 0.004, 0.001, 0.0, 0.0), StageTiming("b", 0.008, 0.0, 0.0, 0.0))
    assert even_hops(timings, 0.016) == pytest.approx((0.001, 0.001))
    assert even_hops(timings, 0.010) == (0.0, 0.0)


def test_a_view_that_cannot_be_is_refused() -> None:
    with pytest.raises(InvalidInput, match="in_flight 0"):
        AdaptationView(view().plan, view().problem, "balanced", 0)
    with pytest.raises(InvalidInput, match="no stages"):
        AdaptationView(Plan(1, "balanced", ()), view().problem, "balanced")


@pytest.mark.parametrize(
    ("ratio", "kinds"),
    [(1.14, []), (1.16, [TriggerKind.SLOWER]), (0.86, []), (0.84, [TriggerKind.FASTER]), (4.0, [TriggerKind.SLOWER])],
)
def test_latency_is_material_beyond_fifteen_percent(ratio: float, kinds: list[TriggerKind]) -> None:
    planned = HeterogeneousPlan(STAGES, (0.010, 0.010), (0.0, 0.0), 2)
    now = HeterogeneousPlan(STAGES, (0.010, 0.010 * ratio), (0.0, 0.0), 2)
    assert [t.kind for t in latency_triggers(now, planned, RuntimeMetrics(), Gates())] == kinds


def test_imbalance_is_material_beyond_a_tenth_of_a_second_and_of_the_period() -> None:
    def trigger(slow_s: float, fast_s: float, in_flight: int = 2) -> bool:
        return imbalance_trigger(HeterogeneousPlan(STAGES, (slow_s, fast_s), (0.0, 0.0), in_flight), Gates()) is not None

    assert not trigger(0.150, 0.051) and trigger(0.151, 0.050)
    assert not trigger(1.150, 1.040, in_flight=1) and trigger(1.150, 0.900, in_flight=1)


def test_a_slower_link_is_material_only_if_the_period_feels_it() -> None:
    planned = HeterogeneousPlan(STAGES, (0.010, 0.010), (0.0005, 0.0005), 2)
    small = HeterogeneousPlan(STAGES, (0.010, 0.010), (0.0009, 0.0005), 2)
    large = HeterogeneousPlan(STAGES, (0.010, 0.010), (0.0200, 0.0005), 2)
    assert list(link_triggers(small, planned, Gates())) == []
    assert [t.subject for t in link_triggers(large, planned, Gates())] == ["a>b"]


def trend(start_bytes: int, per_s: float, cap: int = 1000, seconds: int = 120, kv: int = 0) -> MemoryTrend:
    found = MemoryTrend()
    for second in range(seconds + 1):
        used = int(start_bytes + per_s * second) + kv * (second % 40 > 20)
        found.add(MemorySample("a", used, cap, kv * (second % 40 > 20), 2 * kv), float(second))
    return found


def test_memory_is_material_above_its_share_or_soon_full() -> None:
    def kinds(found: MemoryTrend) -> list[str]:
        return [t.text for t in memory_triggers({"a": found}, {"a": 120.0}, Gates())]

    assert kinds(trend(920, 0.0)) == [] and kinds(trend(921, 0.0)) == ["a uses 0 of 0 MB (92 %)"]
    leaking = trend(500, 2.0)
    assert leaking.growth_bytes_per_s == pytest.approx(2.0) and leaking.exhaustion_s() == pytest.approx(130.0, abs=1)
    assert kinds(leaking) == [] and len(kinds(trend(540, 2.0))) == 1
    assert "its KV" in kinds(trend(921, 0.0, kv=10))[0]


def test_keys_and_values_that_come_and_go_are_no_leak() -> None:
    assert trend(400, 0.0, kv=200).growth_bytes_per_s == 0.0
    assert trend(400, 1.0, kv=200).growth_bytes_per_s == pytest.approx(1.0, rel=0.1)
    assert trend(400, 0.02).growth_bytes_per_s == 0.0, "too small to matter"
    assert trend(400, 2.0, seconds=40).growth_bytes_per_s == 0.0, "too few samples"


def test_a_leak_is_known_over_a_move_until_samples_say_otherwise() -> None:
    found = trend(400, 2.0)
    found.restart()
    found.add(MemorySample("a", 500, 1000), 121.0)
    assert found.growth_bytes_per_s == pytest.approx(2.0) and found.exhaustion_s() == pytest.approx(250.0, rel=0.01)
    for second in range(122, 200):
        found.add(MemorySample("a", 500, 1000), float(second))
    assert found.growth_bytes_per_s == 0.0


def test_a_node_may_hold_what_others_on_it_leave() -> None:
    """What leaks goes on until the next move could have loaded its whole stage elsewhere."""
    room, gates = MemoryRoom(Gates(), MigrationRates(load_bytes_per_s=10.0)), Gates()
    calm = room.room_bytes(view(), {"a": trend(500, 0.0)})
    assert calm == {"a": 0.92 * 1000 - (500 - 200)}
    leaking = trend(540, 2.0)
    used = leaking.newest.used_bytes
    left_bytes = 920 - (used - 200) - leaking.growth_bytes_per_s * (gates.exhaustion_s + 200 / 10.0)
    assert 0 < left_bytes == room.room_bytes(view(), {"a": leaking})["a"]
    assert room.room_bytes(view(), {"a": trend(900, 0.0)}) == {"a": 220.0}


def test_trouble_is_reported_once_a_minute_and_its_end_once() -> None:
    room, memory = MemoryRoom(Gates(), MigrationRates()), {"a": trend(930, 0.0)}
    shown = view()

    def kinds(now_s: float) -> list[TriggerKind]:
        return [t.kind for t in room.triggers(shown, memory, now_s)]

    assert [kinds(t) for t in (-60.0, -1.0, 0.0)] == [[TriggerKind.MEMORY], [], [TriggerKind.MEMORY]]
    shown = view(version=2)
    assert [kinds(t) for t in (5.0, 14.0, 15.0, 60.0)] == [[], [], [TriggerKind.MEMORY], []], (
        "another plan that was not enough is said sooner"
    )
    memory["a"] = trend(500, 0.0)
    assert [kinds(t) for t in (100.0, 314.0, 316.0, 900.0)] == [[], [], [TriggerKind.LOAD], []]
