"""From a strategy's name to a plan: the one entry to the solvers, which executes the routes of `routing.py`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from engine.data.errors import InvalidInput
from engine.data.plan import Plan, Stage
from engine.planning.problem import Infeasible, Problem, TooHard
from engine.planning.route import DEFAULT, Kind, Limits, Route
from engine.planning.routing import after_work, route
from engine.planning.shortage import shortage
from engine.planning.solution import Costs, Cut, Solution, evaluate
from engine.planning.solving.exact import Solver
from engine.planning.solving.label_search import Work
from engine.planning.solving.objectives import OBJECTIVES, Best
from engine.planning.solving.rounding import CERTAIN, lowered, reading_below
from engine.planning.solving.stage_times import PLAIN, Reading
from engine.planning.solving.strategy_keys import key_of, objective_of, solution_of
from engine.planning.solving.structure import last_matters
from engine.planning.solving.tables import Tables

AUTO = "auto"  # the best P(m) for the load, whatever nodes that leaves out
STRATEGIES = (AUTO, *OBJECTIVES)
UNROUNDED = Reading(has_grid=False)


def check_strategy(name: str) -> str:
    """Return `name` if there is such a strategy; else raise InvalidInput listing them."""
    if name not in STRATEGIES:
        raise InvalidInput(f"strategy {name[:80]!r} is unknown: choose one of {', '.join(STRATEGIES)}")
    return name


def solve(problem: Problem, strategy: str, limits: Limits = DEFAULT) -> Solution:
    """The best placement under `strategy` with its certificate; raises InvalidInput or Infeasible."""
    found = answer(problem, strategy, limits)
    if isinstance(found, Infeasible):
        raise found
    return found


def answer(problem: Problem, strategy: str, limits: Limits = DEFAULT) -> Solution | Infeasible:
    """The same with a refusal as a value."""
    check_strategy(strategy)
    if strategy == AUTO:
        return named(answer(problem, "latency_optimized", limits), AUTO)
    if problem.is_batched:
        from engine.planning.solving.shared_steps import best_of

        best = best_of(problem, strategy, partial(answer, limits=limits))
        return Infeasible(shortage(problem)) if best is None else best
    chosen = route(problem, strategy, limits=limits)
    found = TOO_MUCH if chosen.kind is Kind.BEAM else _exactly(problem, strategy, chosen, None)
    if found is not TOO_MUCH:
        return found
    from engine.planning.solving.beam_plan import solve_large

    chosen = chosen if chosen.kind is Kind.BEAM else after_work(chosen)
    return _by(chosen, solve_large(problem, strategy, limits))


def named(found: Solution | Infeasible, strategy: str) -> Solution | Infeasible:
    """The answer of another strategy as this one's."""
    return found if isinstance(found, Infeasible) else replace(found, strategy=strategy)


TOO_MUCH = TooHard("the problem is too much to search exactly within the work limit")


def exact_answer(problem: Problem, strategy: str, limits: Limits = DEFAULT, work: Work | None = None) -> Solution | Infeasible:
    """The best placement of all, or that there is none; TOO_MUCH where that takes more than `work`, or more than any search may. For
    problems without batches."""
    chosen = route(problem, strategy, limits=limits)
    return TOO_MUCH if chosen.kind is Kind.BEAM else _exactly(problem, strategy, chosen, work)


def forget_tables() -> None:
    """Drop what earlier problems left for later ones, so that a benchmark can time a first solve."""
    from engine.planning.solving.thresholds.node_sets import whole_space

    whole_space.cache_clear()


def _exactly(problem: Problem, strategy: str, chosen: Route, work: Work | None) -> Solution | Infeasible:
    """Numbers of very unlike sizes can leave it open whether the placement is the best; then the problem is read again, more
    finely each time, and at last without a grid."""
    found = _read(problem, strategy, chosen, work, PLAIN)
    if isinstance(found, Infeasible):
        has_limit = problem.constraints.latency_limit_s < math.inf
        return _unrounded(problem, strategy, chosen) if has_limit and found is not TOO_MUCH else found
    while not found.optimal:
        finer = _read(problem, strategy, chosen, work, reading_below(problem, strategy, evaluate(problem, found.cuts)))
        if isinstance(finer, Infeasible):
            return finer
        is_last = finer.objective > 0.5 * found.objective
        known = found.lower_bound if strategy != "memory_aware" else 0.0
        found = replace(finer, lower_bound=max(known, finer.lower_bound))
        if is_last:
            break
    if not found.optimal:
        certain = _unrounded(problem, strategy, chosen)
        is_allowed = found.round_trip_s <= problem.constraints.latency_limit_s
        found = found if certain is TOO_MUCH and is_allowed else certain
    return _by(chosen, found)


def _by(chosen: Route, found: Solution | Infeasible) -> Solution | Infeasible:
    """What a route led to, with its name."""
    return found if isinstance(found, Infeasible) else replace(found, route=str(chosen.kind), why=chosen.why)


def _unrounded(problem: Problem, strategy: str, chosen: Route) -> Solution | Infeasible:
    """Searched without a grid."""
    labels = Route(Kind.LABELS, "numbers too unlike for one grid", chosen.limits)
    return _by(labels, _read(problem, strategy, chosen, Work(chosen.limits.unrounded_work), UNROUNDED))


def _read(problem: Problem, strategy: str, chosen: Route, work: Work | None, reading: Reading) -> Solution | Infeasible:
    """The best of all equivalents of the problem, its numbers read in one way."""
    found = []
    for given, nodes in _given_orders(problem) if chosen.kind is Kind.ONE_ORDER else [(problem, range(len(problem.nodes)))]:
        way = route(given, strategy, limits=chosen.limits) if chosen.kind is Kind.ONE_ORDER else chosen
        way = way if reading.has_grid else replace(way, kind=Kind.LABELS)
        solved = _solved(Solver(given, way, work, reading), nodes, problem, strategy)
        if isinstance(solved, TooHard):
            return solved
        if solved is not None:
            found.append(solved)
    if not found:
        return Infeasible(shortage(problem))
    best = min(found, key=lambda each: key_of(problem, strategy, each.costs))
    objective = objective_of(strategy, best.costs)
    bound = min(lowered(each.tables, strategy, objective, best.costs) for each in found)
    is_optimal = bound >= objective * (1 - CERTAIN)
    chain = best.best
    return solution_of(strategy, best.cuts, best.costs, bound, optimal=is_optimal, method=chain.method, ties_searched=chain.ties_searched)


@dataclass(frozen=True, slots=True)
class _Placed:
    """The best chain of one equivalent of the problem, placed on the real nodes."""

    best: Best
    tables: Tables
    cuts: tuple[Cut, ...]
    costs: Costs


def _solved(solver: Solver, nodes: Sequence[int], problem: Problem, strategy: str) -> _Placed | TooHard | None:
    """Of one equivalent, whose node k is nodes[k] of the real one; None if it has no placement."""
    best = OBJECTIVES[strategy](solver)
    if solver.gave_up:
        return TOO_MUCH
    if best is None:
        return None
    cuts = tuple((nodes[u], start, stop) for u, start, stop in solver.tables.cuts(best.chain))
    return _Placed(best, solver.tables, cuts, evaluate(problem, cuts))


def _given_orders(problem: Problem) -> Iterator[tuple[Problem, Sequence[int]]]:
    """Where any order of the nodes is as good: problems in a given order that together equal it."""
    everyone = range(len(problem.nodes))
    for last in everyone if last_matters(problem) else everyone[-1:]:
        nodes = [*(u for u in everyone if u != last), last]
        yield replace(problem, nodes=tuple(problem.nodes[u] for u in nodes), free_order=False), nodes


def make_plan(problem: Problem, strategy: str, plan_version: int) -> Plan:
    """Solve `problem` and return the plan; raises InvalidInput or Infeasible."""
    return plan_of(solve(problem, strategy), plan_version)


def plan_of(found: Solution, plan_version: int) -> Plan:
    """What a cluster keeps of a solution."""
    return Plan(
        plan_version=plan_version,
        strategy=found.strategy,
        stages=tuple(Stage(stage.node_id, stage.start, stage.stop) for stage in found.stages),
        stage_s=tuple(stage.time_s for stage in found.stages),
        bottleneck_s=found.bottleneck_s,
        round_trip_s=found.round_trip_s,
        lower_bound=found.lower_bound,
        optimal=found.optimal,
        gap=found.gap if found.gap < math.inf else 0.0,
        hop_s=tuple(stage.hop_s for stage in found.stages),
    )
