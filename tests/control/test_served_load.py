"""A live cluster plans for the load that it sees: when the load counts as changed, what it makes of times, and what follows."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise, permutations
from types import SimpleNamespace
from typing import Any

import pytest

from engine.control import commands as do
from engine.control import events as on
from engine.control.adaptation.history import Verdict
from engine.control.adaptation.rules import AdaptationSettings, Mode
from engine.control.adaptation.watching.gates import TriggerKind
from engine.control.cluster import Cluster, ClusterConfig
from engine.control.nodes.load_law import LoadLaw
from engine.control.sessions.served_load import SEEN_S, Load, ServedLoad
from engine.data.generation import StageTiming
from engine.data.measured_link import MeasuredLink
from engine.data.model import Item
from engine.data.plan import GIVEN, Stage
from engine.planning.load import Host
from engine.planning.problem import Link, PlanningNode, Problem
from engine.planning.solution import evaluate
from engine.profile.cost_model import CostModel, ItemLaw, PhaseLaws
from engine.profile.point import DECODE
from engine.profile.row_law import RowLaw
from tests.control.harness import Driver, card, spec, token_after

NODES = ("w1", "w2", "w3")
ITEM_S, ROW_SHARE, NUM_ITEMS = 0.01, 0.9, 12


# ---------------------------------------------------------------------------------------------- what counts as a change
def looks(seen: ServedLoad, counts: list[int], start_s: float, context: int = 16) -> float:
    """One look a second; returns the time after the last."""
    for k, count in enumerate(counts):
        seen.look([SimpleNamespace(is_decoding=True, num_landed=context)] * count, start_s + k)  # type: ignore[list-item]
    return start_s + len(counts)


def test_a_load_that_lasts_is_followed_and_one_that_passes_is_not() -> None:
    seen = ServedLoad()
    now_s = looks(seen, [1] * 60, 0.0)
    now_s = looks(seen, [8] * 6, now_s)
    now_s = looks(seen, [1] * 60, now_s)
    assert seen.load == Load(1, 16)
    looks(seen, [8] * 60, now_s)
    assert seen.load == Load(8, 16)


def test_a_load_that_wanders_about_a_limit_changes_once_at_most() -> None:
    seen, rng, loads = ServedLoad(), random.Random(4), []
    for second in range(4000):
        looks(seen, [rng.choice((4, 5, 6, 7))], float(second))
        loads.append(seen.load)
    assert len([1 for a, b in pairwise(loads) if a != b]) == 1


def test_pauses_and_prompts_say_nothing_of_the_load() -> None:
    seen = ServedLoad()
    now_s = looks(seen, [4] * 60, 0.0)
    now_s = looks(seen, [0] * 500, now_s)
    assert seen.load.sessions == 4
    looks(seen, [1] * int(SEEN_S / 3), now_s)
    assert seen.load.sessions == 4


def test_contexts_are_followed_by_doubling() -> None:
    seen = ServedLoad()
    now_s = looks(seen, [2] * 60, 0.0, context=100)
    assert seen.load == Load(2, 100)
    now_s = looks(seen, [2] * 60, now_s, context=150)
    assert seen.load == Load(2, 100)
    looks(seen, [2] * 60, now_s, context=230)
    assert seen.load == Load(2, 230)


# ---------------------------------------------------------------------------------------------- what it makes of times
def problem(**node: Any) -> Problem:
    items = tuple(Item(f"h.{i}", 100, 10, 4) for i in range(6))
    return Problem(items, tuple(PlanningNode(n, 1e4, (0.002,) * 6, **node) for n in "ab"), Link(1e-3))


def test_one_session_leaves_the_problem_as_it_is() -> None:
    asked = problem()
    assert LoadLaw(Load(1, 16)).problem(asked) is asked


def test_rows_cost_what_the_worker_measured_or_what_the_cost_model_says() -> None:
    shares = (("a", RowLaw.of_share(0.5)), ("b", RowLaw()))
    loaded = LoadLaw(Load(4, 16), rows_of=shares).problem(problem())
    assert loaded.in_flight == 4 and loaded.is_batched
    assert dict(loaded.nodes[0].time_s_by_batch)[4] == pytest.approx((0.002 * 2.5,) * 6)
    assert dict(loaded.nodes[1].time_s_by_batch)[4] == (0.002,) * 6
    shape = CostModel((PhaseLaws(DECODE, (1, 4), (ItemLaw((1.0, 3.0), 0.01),) * 6),))
    shaped = LoadLaw(Load(4, 99), rows_of=shares, cost_model=shape).problem(problem())
    assert dict(shaped.nodes[1].time_s_by_batch)[4] == pytest.approx((0.002 * (3.0 + 4 * 0.01 * 100) / (1.0 + 0.01 * 17),) * 6)


def test_the_period_of_a_placement_is_what_the_planner_says_of_it() -> None:
    law = LoadLaw(Load(8, 16), 2.0, tuple((n, RowLaw.of_share(0.3)) for n in "ab"), (("a", "box"), ("b", "box")), (Host("box", 1),))
    asked, cuts = problem(base_s=1e-4), ((0, 0, 2), (1, 2, 6))
    loaded = law.problem(asked)
    assert law.period_s(asked, cuts, (1e-3, 1e-3)) == pytest.approx(2.0 * evaluate(loaded, cuts).period_s)


def test_a_large_problem_is_for_one_number_of_rows_so_that_it_is_solved_at_once() -> None:
    items = tuple(Item(f"h.{i}", 100, 10, 4) for i in range(120))
    asked = Problem(items, tuple(PlanningNode(n, 1e9, (0.002,) * 120) for n in "abc"), Link(1e-3))
    law = LoadLaw(Load(8, 16), 2.0, tuple((n, RowLaw.of_share(0.5)) for n in "abc"))
    loaded = law.problem(asked)
    assert not loaded.is_batched and loaded.in_flight == 4 and loaded.nodes[0].time_s[0] == pytest.approx(0.002 * 1.5)
    cuts = ((0, 0, 40), (1, 40, 80), (2, 80, 120))
    assert law.period_s(asked, cuts, (1e-3,) * 3) == pytest.approx(40 * 0.003)


# ---------------------------------------------------------------------------------------------- what follows
@dataclass
class Loaded(Driver):
    """Three workers alike, on which a row more costs nearly as much as the first."""

    def _answer(self, command: do.Command) -> None:
        if isinstance(command, do.MeasureWorker):
            self.feed(on.WorkerMeasured(command.worker_id, command.generation, (ITEM_S,) * NUM_ITEMS, 0.0, RowLaw.of_share(ROW_SHARE)))
        else:
            super()._answer(command)

    def run(self, num_sessions: int, num_steps: int, slow: Iterable[str] = ()) -> None:
        """So many sessions decode all the time, and some nodes are slower than they measured."""
        for _ in range(num_steps):
            while len(self.wanted) - len(self.finished) < num_sessions:
                self.submit(f"s{len(self.wanted)}", max_new_tokens=50)
            step, plan = self.held.pop(0), self.cluster.plan
            assert plan is not None
            growth = 1.0 + ROW_SHARE * (len(step.segments) - 1)
            flight = self.cluster.serving.flights.get(step.step_id)
            waited_s = self.now_s - flight.sent_s if flight is not None and len(plan.stages) == 1 else 0.0  # behind the step before
            timings = tuple(
                StageTiming(s.node_id, ITEM_S * s.num_items * growth * (3.7 if s.node_id in slow else 1.0), waited_s, 0.0, 0.0)
                for s in plan.stages
            )
            self.now_s += max(t.compute_s for t in timings)
            self.report(step, timings)
            for i in range(3):
                self.beat(f"w{i + 1}")
            self.feed(on.Tick())


def serving(mode: Mode, host: str = "", **config: Any) -> Loaded:
    """Each worker on a host of its own, or all on one of two cores."""
    links = {pair: MeasuredLink(*pair, round_trip_s=0.004, bandwidth_bytes_per_s=1e9) for pair in permutations(NODES, 2)}
    driver = Loaded(num_workers=3, hold=True, links=links)
    settings = AdaptationSettings(mode=mode)
    driver.cluster = Cluster(ClusterConfig(num_workers_expected=3, strategy="auto", adaptation=settings, **config), 0.0)
    driver.feed(on.ModelReady(card(NUM_ITEMS, kv_bytes=1)))
    for i in range(3):
        known = spec(f"w{i + 1}", pid=i + 1)
        driver.feed(on.WorkerRegistered(replace(known, host=host or known.host, num_cores=2), i + 1, ready=True))
    return driver


def num_stages(driver: Loaded) -> int:
    assert driver.cluster.plan is not None
    return len(driver.cluster.plan.stages)


def test_auto_rests_nodes_for_one_session_and_uses_them_for_eight() -> None:
    driver = serving(Mode.AUTO)
    driver.run(1, 600)
    assert num_stages(driver) == 1 and not driver.cluster.rebalancer.reports
    driver.run(8, 1500)
    assert num_stages(driver) == 3
    planner = driver.cluster.adapting.planner
    moved = [d for d in planner.history if d.verdict is Verdict.MIGRATE]
    assert [d.trigger.kind for d in moved if d.trigger] == [TriggerKind.LOAD] and planner.num_loads >= 1
    assert any("the load is 8 sessions" in text for text in driver.texts())
    for session_id, tokens in driver.tokens.items():
        assert tokens == [token_after(4 + k) for k in range(len(tokens))], session_id


def test_what_a_step_should_take_grows_with_its_rows_so_more_sessions_slow_nobody() -> None:
    driver = serving(Mode.AUTO)
    driver.run(1, 300)
    driver.run(4, 300)
    watch = driver.cluster.adapting.planner.watch
    assert watch.metrics.num_alarms == 0 and all(abs(level) < 0.05 for level in watch.beliefs.levels.values())


def test_without_adaptation_the_next_plan_that_is_made_is_for_the_load() -> None:
    driver = serving(Mode.OFF)
    driver.run(8, 1500)
    assert num_stages(driver) == 1
    driver.feed(on.WorkerLost("w1", 1, "pulled"))
    assert num_stages(driver) == 2
    stages = driver.cluster.plan.stages if driver.cluster.plan else ()
    assert driver.cluster.plan is not None and driver.cluster.plan.stage_s == pytest.approx([ITEM_S * s.num_items for s in stages])


def test_a_host_that_another_program_slows_moves_nothing_to_a_worker_that_rests_there() -> None:
    driver = serving(Mode.AUTO, "box")
    for _ in range(4):
        driver.run(1, 300)
        driver.run(1, 300, slow=NODES)
    assert num_stages(driver) == 1 and not driver.cluster.rebalancer.reports
    assert driver.cluster.adapting.planner.watch.metrics.num_alarms >= 4


def test_a_node_that_rests_elsewhere_takes_over_from_one_that_is_slow() -> None:
    driver = serving(Mode.AUTO)
    driver.run(1, 300)
    driver.run(1, 600, slow=("w1",))
    assert len(driver.cluster.rebalancer.reports) == 1


def test_a_plan_by_hand_stays_whatever_the_load_is() -> None:
    driver = serving(Mode.AUTO)
    driver.feed(on.ReplanRequested(driver.cluster.plan_version, "", (Stage("w1", 0, 6), Stage("w2", 6, NUM_ITEMS))))
    driver.run(8, 1500)
    assert driver.cluster.plan is not None and driver.cluster.plan.strategy == GIVEN and num_stages(driver) == 2
