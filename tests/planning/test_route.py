"""Which solver answers: one table, printed with the plan, and the same as the one that people read."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from dataclasses import fields, replace
from pathlib import Path

import pytest

from engine.cli import main
from engine.commands.bench.plan import tables, unlike
from engine.planning import routing
from engine.planning.documents.problem_json import problem_to_json
from engine.planning.live_plan import solve_stable
from engine.planning.problem import Problem, TooHard
from engine.planning.route import DEFAULT, Kind, Limits, LiveLimits, ThresholdLimits
from engine.planning.routing import AFTER_WORK, DOCUMENTS, LIVE, OVER_LIMIT, route
from engine.planning.strategies import STRATEGIES, answer
from tests.bench.longest_solve import measured_cluster
from tests.planning.fuzz import PATHS
from tests.planning.reference import random_problem

README = Path(routing.__file__).with_name("README.md")


def tables_of(text: str) -> list[list[tuple[str, str]]]:
    """The rows of every table with two columns that is about routes."""
    found: list[list[tuple[str, str]]] = [[]]
    first = text.index("| where | route |")
    for line in text[first:].splitlines():
        cells = re.fullmatch(r"\| ([^|]+) \| ([^|]+) \|", line)
        if cells is None:
            found.append([])
        elif cells[2] not in ("route", "then"):
            found[-1].append((cells[1], cells[2]))
        else:
            found[-1].clear()
    return [rows for rows in found if rows]


def test_the_table_that_people_read_is_the_code() -> None:
    documents, live, after = tables_of(README.read_text("utf-8"))
    assert documents == [(rule.when, str(rule.kind)) for rule in DOCUMENTS]
    assert live == [(rule.when, str(rule.kind)) for rule in LIVE]
    assert sorted(after) == sorted((str(before), str(then)) for before, then in AFTER_WORK.items())


def test_the_numbers_in_the_words_are_the_limits() -> None:
    named = {int(n.replace(",", "")) for rule in (*DOCUMENTS, *LIVE) for n in re.findall(r"\d[\d,]+", rule.when)}
    assert named == {DEFAULT.few, DEFAULT.most_sets, DEFAULT.direct, DEFAULT.fixed_costs, DEFAULT.live.costs, DEFAULT.live.stages}


CASES: list[tuple[Problem, bool, Limits, Kind]] = [
    (tables(60, 10), False, DEFAULT, Kind.ONE_ORDER),
    (unlike(60, 20, 20), False, DEFAULT, Kind.BEAM),
    (unlike(8, 3, 3), False, DEFAULT, Kind.LABELS),
    (unlike(130, 8, 8), False, DEFAULT, Kind.THRESHOLD),
    (replace(unlike(130, 8, 8), use_all_nodes=True), False, DEFAULT, Kind.RELAXED),
    (replace(unlike(130, 8, 8), free_order=False), False, DEFAULT, Kind.FIXED_ORDER),
    (replace(unlike(130, 8, 8), free_order=False), False, Limits(fixed_costs=1), Kind.LABELS),
    (replace(unlike(130, 8, 8), free_order=False), True, DEFAULT, Kind.SOLVE),
    (replace(unlike(130, 8, 8), use_all_nodes=True), True, DEFAULT, Kind.TWO_ORDERS),
    (measured_cluster(40, 3, 1), True, DEFAULT, Kind.TWO_ORDERS_PROMPTLY),
    (measured_cluster(130, 16, 1), True, DEFAULT, Kind.ORDER_SEARCH),
]


@pytest.mark.parametrize(("problem", "live", "limits", "kind"), CASES)
def test_every_line_of_the_table_is_reached(problem: Problem, live: bool, limits: Limits, kind: Kind) -> None:
    chosen = route(problem, "bottleneck_first", live, limits)
    assert chosen.kind is kind and chosen.limits is limits
    assert chosen.why in {rule.when for rule in (LIVE if live else DOCUMENTS) if rule.kind is kind}


def test_every_kind_is_in_a_case() -> None:
    assert {kind for *_, kind in CASES} == set(Kind)


def test_what_was_executed_is_the_route() -> None:
    """And the paths of the fuzz test differ by their limits alone."""
    ran: list[Counter[str]] = []
    for limits in PATHS:
        ran.append(Counter())
        for seed in range(60):
            problem = random_problem(random.Random(seed))
            for strategy in STRATEGIES:
                found = answer(problem, strategy, limits)
                if not isinstance(found, Exception):
                    unrounded = found.why == "numbers too unlike for one grid"
                    assert unrounded or found.route == route(problem, strategy, limits=limits).kind
                    ran[-1][found.route] += 1
    assert ran[0]["label search"] > 0.9 * ran[0].total() and ran[1]["label search"] < 0.7 * ran[1].total()
    assert ran[2] == ran[1]


def test_a_search_that_meets_its_limit_says_where_it_went_on() -> None:
    problem = replace(unlike(40, 6, 6), use_all_nodes=True)
    found = answer(problem, "balanced", Limits(label_work=10))
    assert not isinstance(found, TooHard) and found.route == Kind.BEAM
    assert found.why == f"{Kind.RELAXED} {OVER_LIMIT}" and found.method == "beam search, bounded by prices"
    additive = answer(unlike(40, 6, 6), "latency_optimized", Limits(additive_entries=10))
    assert not isinstance(additive, TooHard) and additive.why == f"{Kind.THRESHOLD} {OVER_LIMIT}"
    live = solve_stable(measured_cluster(40, 3, 1), "cost", Limits(live=LiveLimits(work=10)))
    assert (live.route, live.why) == (Kind.ORDER_SEARCH, f"{Kind.TWO_ORDERS_PROMPTLY} {OVER_LIMIT}")


def test_a_plan_is_printed_with_its_route(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "problem.json"
    path.write_text(problem_to_json(unlike(130, 8, 8)))
    assert main(["plan", "--problem", str(path), "--strategy", "bottleneck_first", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["route"], document["why"]) == ("threshold search, additive search", "free order, regular, no further limit")
    assert main(["plan", "--problem", str(path), "--no-notes"]) == 0
    assert "route: threshold search, additive search (free order, regular, no further limit)" in capsys.readouterr().out


def test_every_threshold_is_read_by_the_planner() -> None:
    """None stands there for nothing, and a group is read by its own names."""
    sources = [path for path in README.parent.rglob("*.py") if path.name != "route.py"]
    text = "\n".join(path.read_text("utf-8") for path in sources)
    groups = {"threshold": ThresholdLimits, "live": LiveLimits}
    own = [f"limits.{field.name}" for field in fields(Limits)]
    nested = [f"limits.{'live.' if group == 'live' else ''}{field.name}" for group, cls in groups.items() for field in fields(cls)]
    assert [name for name in (*own, *nested) if name not in text] == []
