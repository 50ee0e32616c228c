"""The verdict as a function of figures, what a migration costs, and the tabu."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from engine.control.adaptation.case import Case
from engine.control.adaptation.cost import ItemMove, MigrationCost, MigrationRates, item_moves
from engine.control.adaptation.history import HISTORY_LENGTH, History, Verdict
from engine.control.adaptation.probation import Outcome, Tabu
from engine.control.adaptation.proposal import Proposal, sure_gain
from engine.control.adaptation.rules import AdaptationSettings, Mode, Situation, judge
from engine.control.adaptation.watching.beliefs import Beliefs, HeterogeneousPlan
from engine.control.adaptation.watching.gates import AdaptationTrigger, TriggerKind
from engine.control.adaptation.watching.view import AdaptationView
from engine.data.errors import NotFound
from engine.data.model import Item
from engine.data.plan import Plan, Stage
from engine.planning.problem import PlanningNode, Problem

BEFORE = (Stage("a", 0, 4), Stage("b", 4, 8))
AFTER = (Stage("a", 0, 6), Stage("b", 6, 8))
ITEMS = tuple(Item(f"h.{i}", 100, 10, 4) for i in range(8))
CALM = Situation(Mode.AUTO, 10.0, 0, float("inf"), False, 0.0, (), 0.0, 0.0, 0.1)


def proposal(gain: float = 0.2, kind: TriggerKind = TriggerKind.SLOWER, cost_s: float = 1.0, changes: bool = True) -> Proposal:
    before = HeterogeneousPlan(BEFORE, (0.010, 0.010), (0.0, 0.0), 2)
    after = HeterogeneousPlan(AFTER, (0.010 * (1 - gain), 0.001), (0.0, 0.0), 2)
    cost = MigrationCost(item_moves(BEFORE, AFTER), 200, 0, 0.1, 0.25, cost_s)
    return Proposal(AdaptationTrigger(kind, "b", "b is slow"), Plan(2, "balanced", AFTER), changes, before, after, cost)


@pytest.mark.parametrize(
    ("now", "made", "verdict", "rule"),
    [
        (CALM, proposal(), Verdict.MIGRATE, "pays"),
        (CALM, proposal(changes=False), Verdict.DECLINE, "best"),
        (CALM, proposal(gain=-0.1), Verdict.DECLINE, "best"),
        (CALM, proposal(gain=0.014), Verdict.DECLINE, "gain"),
        (replace(CALM, model_error=0.41), proposal(), Verdict.DECLINE, "gain"),
        (replace(CALM, sure_gain=0.0), proposal(), Verdict.WAIT, "unsure"),
        (replace(CALM, sure_gain=-0.1, level_error=0.3), proposal(kind=TriggerKind.FAST), Verdict.WAIT, "unsure"),
        (replace(CALM, level_error=0.3), proposal(), Verdict.MIGRATE, "pays"),
        (replace(CALM, level_error=0.11, owed_s=0.14), proposal(), Verdict.WAIT, "regret"),
        (replace(CALM, model_error=0.09, owed_s=0.14), proposal(), Verdict.MIGRATE, "pays"),
        (replace(CALM, model_error=0.11, owed_s=0.14), proposal(), Verdict.WAIT, "regret"),
        (replace(CALM, mode=Mode.OFF), proposal(), Verdict.DECLINE, "off"),
        (replace(CALM, mode=Mode.SUGGEST), proposal(), Verdict.SUGGEST, "confirm"),
        (replace(CALM, tabu_s=30.0), proposal(), Verdict.DECLINE, "tabu"),
        (replace(CALM, on_probation=True), proposal(), Verdict.WAIT, "probation"),
        (replace(CALM, doubtful=("a",)), proposal(), Verdict.WAIT, "doubt"),
        (replace(CALM, doubtful=("a",)), proposal(kind=TriggerKind.FAST), Verdict.MIGRATE, "pays"),
        (replace(CALM, owed_s=0.09), proposal(), Verdict.WAIT, "regret"),
        (replace(CALM, owed_s=0.11), proposal(), Verdict.MIGRATE, "pays"),
        (replace(CALM, owed_s=0.0), proposal(kind=TriggerKind.MEMORY), Verdict.MIGRATE, "pays"),
        (replace(CALM, owed_s=0.14), proposal(gain=0.04), Verdict.WAIT, "regret"),
        (replace(CALM, owed_s=0.16), proposal(gain=0.04), Verdict.MIGRATE, "pays"),
        (replace(CALM, owed_s=0.99, num_recent=1), proposal(), Verdict.WAIT, "regret"),
        (replace(CALM, owed_s=1.01, num_recent=1), proposal(), Verdict.MIGRATE, "pays"),
        (replace(CALM, owed_s=1.99, num_recent=9), proposal(), Verdict.WAIT, "regret"),
        (replace(CALM, owed_s=2.01, num_recent=9), proposal(), Verdict.MIGRATE, "pays"),
        (replace(CALM, owed_s=1.99, num_recent=1, since_migration_s=9.0), proposal(), Verdict.WAIT, "cooldown"),
        (replace(CALM, owed_s=2.01, num_recent=1, since_migration_s=9.0), proposal(), Verdict.MIGRATE, "pays"),
        (replace(CALM, owed_s=0.51, since_migration_s=9.0), proposal(), Verdict.MIGRATE, "pays"),  # on new ground
        (replace(CALM, owed_s=0.6, since_migration_s=11.0), proposal(), Verdict.MIGRATE, "pays"),
        (replace(CALM, mode=Mode.OFF, owed_s=0.0), replace(proposal(), before=None), Verdict.MIGRATE, "forced"),
        (replace(CALM, tabu_s=5.0), replace(proposal(), before=None), Verdict.WAIT, "retry"),
        (replace(CALM, owed_s=0.0), proposal(gain=-0.2, kind=TriggerKind.STRATEGY), Verdict.MIGRATE, "forced"),
    ],
)
def test_the_first_rule_that_applies_decides(now: Situation, made: Proposal, verdict: Verdict, rule: str) -> None:
    ruling = judge(made, now, AdaptationSettings())
    assert (ruling.verdict, ruling.rule) == (verdict, rule)


def test_a_gain_is_sure_if_every_error_may_count_against_it() -> None:
    """One step in flight, b three times slower: two of its items on a save 0.04 of 0.16 s. Where they come from may be faster,
    where they go slower than believed."""
    problem = Problem(ITEMS, (PlanningNode("a", 1e9, (0.01,) * 8), PlanningNode("b", 1e9, (0.01,) * 8)))
    view, beliefs, made = AdaptationView(Plan(1, "balanced", BEFORE), problem, "balanced"), Beliefs(), proposal()
    beliefs.levels["b"] = math.log(3.0)
    assert sure_gain(made, view, beliefs, {}) == pytest.approx(0.04 / 0.16)
    twice_s, once_s = 0.01 * math.exp(2 * 0.2), 0.03 * math.exp(-2 * 0.3)  # what an item takes on a and on b
    expected = 2 * (once_s - twice_s) / (4 * once_s + 4 * twice_s)
    assert sure_gain(made, view, beliefs, {"a": 0.2, "b": 0.3}) == pytest.approx(expected) and expected > 0
    assert sure_gain(made, view, beliefs, {"a": 0.2, "b": 0.4}) < 0.0


def test_regret_grows_with_every_step_and_shrinks_while_nothing_is_better() -> None:
    case, offer = Case(), proposal(gain=0.2)
    case.take(replace(offer, trigger=replace(offer.trigger, num_steps=30)))
    assert case.owed_s == pytest.approx(30 * 0.002), "the steps between the change and its discovery"
    case.accrue(100)
    assert case.owed_s == pytest.approx(130 * 0.002)
    case.take(proposal(changes=False))
    case.accrue(200)
    assert case.owed_s == pytest.approx(30 * 0.002)
    case.accrue(300)
    assert case.owed_s == 0.0


def test_a_standing_verdict_is_said_once_per_proposal() -> None:
    case = Case()
    case.take(proposal())
    assert [case.is_news(Verdict.WAIT, rule) for rule in ("regret", "regret", "doubt", "regret")] == [True, False, True, False]
    case.take(proposal())
    assert case.is_news(Verdict.WAIT, "regret")


def test_the_period_is_the_bottleneck_or_the_shared_round_trip() -> None:
    plan = HeterogeneousPlan(BEFORE, (0.010, 0.020), (0.003, 0.002), 1)
    assert plan.period_s == pytest.approx(0.035)
    assert replace(plan, in_flight=3).period_s == 0.020
    assert replace(plan, hop_s=(0.025, 0.002), in_flight=9).period_s == 0.025
    assert plan.imbalance_s == pytest.approx(0.010)


def test_only_what_changes_hands_is_moved_and_paid_for() -> None:
    rates = MigrationRates(load_bytes_per_s=100.0, kv_bytes_per_s=1000.0, pause_s=0.25, load_share=0.25)
    cost = rates.cost(ITEMS, BEFORE, AFTER, kv_tokens=50)
    assert cost.moves == (ItemMove(4, 6, "b", "a"),) and str(cost.moves[0]) == "items 4-5 from b to a"
    assert (cost.weight_bytes, cost.kv_bytes) == (200, 1000)
    assert cost.load_s == pytest.approx(200 / 100 + 1000 / 1000) and cost.cost_s == pytest.approx(0.25 + 0.25 * 3.0)
    assert rates.cost(ITEMS, BEFORE, BEFORE, 50).moves == ()


def test_nodes_load_side_by_side() -> None:
    rates, thirds = MigrationRates(load_bytes_per_s=100.0), (Stage("a", 0, 3), Stage("c", 3, 5), Stage("b", 5, 8))
    cost = rates.cost(ITEMS, BEFORE, thirds, 0)
    assert [str(m) for m in cost.moves] == ["item 3 from a to c", "item 4 from b to c"] and cost.load_s == pytest.approx(2.0)
    assert rates.cost(ITEMS, BEFORE, (Stage("c", 0, 4), Stage("d", 4, 8)), 0).load_s == pytest.approx(4.0)


def test_costs_are_learnt_from_migrations() -> None:
    rates, truth = MigrationRates(), MigrationRates(load_bytes_per_s=100.0, pause_s=0.05)
    thirds = (Stage("a", 0, 3), Stage("c", 3, 5), Stage("b", 5, 8))  # two nodes load side by side
    for _ in range(40):
        done = truth.cost(ITEMS, BEFORE, thirds, 50)
        rates.learn(done.pause_s, rates.cost(ITEMS, BEFORE, thirds, 50), done.busiest_s)
    rates.learn(0.0, rates.cost(ITEMS, BEFORE, BEFORE, 0), 0.0)
    assert rates.pause_s == pytest.approx(0.05, rel=0.01) and rates.load_bytes_per_s == pytest.approx(100.0, rel=0.01)


def test_the_tabu_grows_and_knows_what_a_node_bears() -> None:
    problem = Problem(ITEMS, tuple(PlanningNode(n, 1e9, (0.001,) * 8) for n in "ab"))
    outcome = Outcome(0.010, 0.008, 0.030, {"a": 1.1, "b": 0.0}, {"a": 1.1, "b": 0.02})
    tabu = Tabu()
    assert tabu.fail(AFTER, BEFORE, outcome, 100.0) == 600.0
    assert tabu.left_s(AFTER, 400.0) == 300.0 and tabu.left_s(AFTER, 701.0) == 0.0 and tabu.left_s(BEFORE, 100.0) == 0.0
    assert tabu.room_bytes(problem, 100.0) == {"a": 400.0} and tabu.room_bytes(problem, 701.0) == {}
    assert tabu.cautious({"a": 0.2, "b": 0.1}, 100.0) == {"a": 1.1, "b": 0.1} and tabu.cautious({"a": 0.2}, 701.0) == {"a": 0.2}
    assert tabu.fail(AFTER, BEFORE, outcome, 800.0) == 2400.0


def test_history_forgets_the_oldest_and_says_so() -> None:
    history = History()
    for number in range(HISTORY_LENGTH + 5):
        history.add(float(number), Verdict.NOTE, None, f"note {number}")
    assert len(history) == HISTORY_LENGTH and next(iter(history)).decision_id == 6
    with pytest.raises(NotFound, match="decision 5 is not in the history"):
        history.get(5)
    assert history.update(6, outcome="seen").sentence == "note: note 5; seen"
    with pytest.raises(NotFound):
        history.update(5, outcome="seen")
