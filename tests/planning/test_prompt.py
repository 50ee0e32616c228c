"""Plans of a cluster that must go on serving: what is found by arrays, what is proved of it, and that it takes a bounded effort."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from engine.commands.bench.plan import shared, unlike
from engine.control.placement import describe
from engine.planning import live_plan
from engine.planning.constraints import PlanningConstraints
from engine.planning.live_plan import solve_stable, stable_plan
from engine.planning.problem import Infeasible, Link, Problem, TooHard
from engine.planning.route import DEFAULT, Limits, LiveLimits
from engine.planning.solving.label_search import Work
from engine.planning.solving.objectives import OBJECTIVES
from engine.planning.solving.orders import chains as order_chains
from engine.planning.solving.orders.certificate import Certificate, certificate_of
from engine.planning.solving.orders.chains import CALL
from engine.planning.solving.orders.search import prompt_plans
from engine.planning.solving.structure import without_pools
from engine.planning.strategies import STRATEGIES, TOO_MUCH, exact_answer, solve
from tests.bench.longest_solve import measured_cluster
from tests.planning.reference import Reference, batched_problem, random_problem
from tests.planning.test_ordering import optimum_of


def cluster_problem(seed: int, most_items: int = 7, most_nodes: int = 4) -> Problem:
    """Any mixture of features that a running cluster may have."""
    problem = random_problem(random.Random(seed), most_items, most_nodes)
    return replace(problem, free_order=True, use_all_nodes=False, link_cost="overlapped", constraints=PlanningConstraints())


def shared_problem(seed: int) -> Problem:
    """The same with sessions that share steps, and in half of the problems with hosts that share nodes."""
    problem = batched_problem(random.Random(seed), 6, 4)
    return replace(problem, free_order=True, use_all_nodes=False, link_cost="streamed", constraints=PlanningConstraints())


@pytest.mark.parametrize(("draw", "count"), [(cluster_problem, 250), (shared_problem, 120)])
@pytest.mark.parametrize("strategy", OBJECTIVES)
def test_what_is_found_is_allowed_and_no_placement_is_below_the_bound(strategy: str, draw: Callable[[int], Problem], count: int) -> None:
    """Against the enumeration of all orders, subsets and cuts."""
    compared = best = missed = 0
    for seed in range(count):
        problem = draw(seed)
        optimum, rows = optimum_of(problem, strategy), {row[0] for row in Reference(problem).rows}
        certificate = certificate_of(problem, None, DEFAULT)
        if not certificate.is_feasible:
            assert optimum is None, seed
            continue
        plans = prompt_plans(problem, strategy, certificate)
        for found in (plans.kept, plans.other):
            if found is None:
                continue
            assert found.cuts in rows, seed
            assert found.lower_bound <= optimum * (1 + 1e-9), seed
            if found.optimal:
                assert found.objective == pytest.approx(optimum, rel=1e-9), seed
        if optimum is not None:
            compared, missed = compared + 1, missed + (plans.other is None)
            best += plans.other is not None and plans.other.objective <= optimum * (1 + 1e-9) + 1e-12
    assert compared > 0.6 * count and missed <= 0.03 * compared and best > 0.8 * compared, (compared, missed, best)


def test_bounds_of_price_and_memory_are_met_by_a_plan_that_is_best_without_links() -> None:
    """Links that cost nothing, one item a node's worth: the relaxation is the problem, and its bounds are the figures."""
    plain = unlike(12, 3, 3)
    free = replace(plain, links=Link(), nodes=tuple(replace(n, memory_bytes=9e15, price_per_s=1.0) for n in plain.nodes))
    certificate = Certificate(free, None)
    for strategy in ("cost", "memory_aware"):
        truth = Reference(free).best(strategy)[0]
        bound = certificate.bound(strategy, 3, certificate.bottleneck_s)
        assert bound <= truth * (1 + 1e-12)
        assert bound > 0.999 * truth


@pytest.mark.parametrize("strategy", ["bottleneck_first", "latency_optimized"])
def test_the_present_order_is_solved_exactly_where_no_memory_is_shared(strategy: str) -> None:
    compared = 0
    for seed in range(1000, 1200):
        problem = cluster_problem(seed, most_items=12, most_nodes=6)
        problem = replace(problem, pools=(), nodes=tuple(replace(n, pool_id=None) for n in problem.nodes), in_flight=1)
        if not problem.coordinator and problem.return_hop and strategy == "latency_optimized":
            continue  # the way back from each last node to each first one is left out of the search
        try:
            exact = solve(replace(problem, free_order=False), strategy)
        except Infeasible:
            continue
        kept = prompt_plans(problem, strategy, Certificate(problem, None)).kept
        assert kept is not None and kept.objective == pytest.approx(exact.objective, rel=1e-12), seed
        compared += 1
    assert compared > 60


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(("num_items", "num_nodes", "sessions"), [(40, 8, 1), (130, 16, 1), (130, 4, 1), (40, 8, 8), (130, 8, 8)])
def test_no_solve_of_a_running_cluster_does_more_than_its_limits(
    num_items: int, num_nodes: int, sessions: int, strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted, not timed: labels of exact searches, and array elements."""
    spent, read = [0.0], [0]
    spend, best = Work.spend, order_chains.best_chain

    def spending(work: Work, amount: float) -> None:
        spent[0] += amount
        spend(work, amount)

    def reading(goal, order):  # type: ignore[no-untyped-def]
        read[0] += len(order) * (num_items**2 + CALL)
        return best(goal, order)

    monkeypatch.setattr(Work, "spend", spending)
    monkeypatch.setattr(order_chains, "best_chain", reading)
    problem = measured_cluster(num_items, num_nodes, 1)
    found = solve_stable(problem if sessions == 1 else shared(problem, sessions), strategy)
    assert found.objective >= found.lower_bound > 0 and (found.optimal or found.gap < (1.0 if sessions == 1 else 2.0))
    assert spent[0] <= (1.1 if sessions == 1 else 2.2) * DEFAULT.live.work  # the relaxation has as much again; and one amount too many
    assert read[0] <= 3 * DEFAULT.live.read


def test_an_exact_search_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begun where it is hopeless, it ends at its limit, and arrays take over."""
    spent, spend = [0.0], Work.spend

    def spending(work: Work, amount: float) -> None:
        spent[0] += amount
        spend(work, amount)

    monkeypatch.setattr(Work, "spend", spending)
    found = solve_stable(measured_cluster(40, 8, 1), "cost", Limits(live=LiveLimits(stages=10**12)))
    assert (found.route, found.why) == ("order search", "the same within a work limit over its work limit")
    assert DEFAULT.live.work < spent[0] <= 1.1 * DEFAULT.live.work and found.method == "orders tried by arrays, bounded by a relaxation"


def test_a_small_cluster_is_searched_as_ever() -> None:
    for num_nodes in (3, 5, 6):
        problem = measured_cluster(40, num_nodes, 2)
        for strategy in ("balanced", "latency_optimized"):
            assert solve_stable(problem, strategy).method != "orders tried by arrays, bounded by a relaxation"


def test_arrays_find_what_exact_search_finds_in_the_time_it_has_not() -> None:
    """Unlike nodes whose memory together is 1.5 times the model, a link for each pair: too much to search while serving."""
    for seed in (1, 2, 3):
        problem = without_pools(measured_cluster(60, 7, seed))
        assert exact_answer(replace(problem, free_order=False), "bottleneck_first", work=Work(5_000)) is TOO_MUCH
        exact = solve(replace(problem, free_order=False), "bottleneck_first")
        kept = prompt_plans(problem, "bottleneck_first", Certificate(problem, None)).kept
        assert kept.objective == pytest.approx(exact.objective, rel=1e-12)


def test_a_model_that_fits_nowhere_is_refused_at_once() -> None:
    problem = unlike(130, 16, 16)
    tight = replace(problem, nodes=tuple(replace(n, memory_bytes=0.5 * n.memory_bytes) for n in problem.nodes))
    with pytest.raises(Infeasible, match="no placement satisfies every limit: the model needs"):
        solve_stable(tight, "bottleneck_first")


def test_a_memory_that_must_be_shared_in_an_odd_way_is_searched_for_a_second() -> None:
    """The one plan that fits is none of those that dealing out the memory finds."""
    problem = cluster_problem(729)
    plans = prompt_plans(problem, "balanced", Certificate(problem, None))
    assert plans.kept is None and plans.other is None
    found = solve_stable(problem, "balanced", Limits(live=LiveLimits(stages=0)))
    assert found.cuts in {row[0] for row in Reference(problem).rows} and not found.optimal
    with pytest.raises(TooHard, match="no placement was found while serving"):
        solve_stable(problem, "balanced", Limits(live=LiveLimits(stages=0, work=1)))


def test_a_plan_that_is_not_proven_best_says_so() -> None:
    plan = stable_plan(measured_cluster(130, 16, 1), "bottleneck_first", 7)
    assert plan.plan_version == 7 and not plan.optimal and 0.0 < plan.gap < 0.2
    assert describe(plan).endswith(f", at most {100 * plan.gap:.1f} % above the best of all orders")
    assert describe(replace(plan, optimal=True, gap=0.0)).endswith(" ms")


def test_a_preview_and_the_move_that_follows_solve_once(monkeypatch: pytest.MonkeyPatch) -> None:
    solved = []
    real = live_plan.solve_stable
    monkeypatch.setattr(live_plan, "solve_stable", lambda problem, strategy: solved.append(strategy) or real(problem, strategy))
    problem = measured_cluster(14, 3, 99)
    plans = [stable_plan(problem, "balanced", version) for version in (1, 2)]
    assert solved == ["balanced"] and [p.plan_version for p in plans] == [1, 2] and plans[0].stages == plans[1].stages
