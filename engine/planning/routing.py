"""Which solver answers a problem, and why: decided here and nowhere else, before anything is searched.

The rules are tried from the top; README.md has them as a table. `strategies.solve` executes the routes of documents,
`live_plan.solve_stable` those of a cluster that plans while it serves. A search that meets its work limit says so, and the route
that follows is `after_work`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from engine.planning.constraints import PlanningConstraints
from engine.planning.problem import ADDITIVE, Problem
from engine.planning.route import DEFAULT, Kind, Limits, Route
from engine.planning.solving import structure


class _Facts:
    """What the rules ask of a problem, each found out once."""

    def __init__(self, problem: Problem, strategy: str, limits: Limits) -> None:
        self.problem, self.strategy, self.limits = problem, strategy, limits
        self.num_items, self.num_nodes = len(problem.items), len(problem.nodes)

    @cached_property
    def num_sets(self) -> int:
        """Sets of nodes that are told apart; in a given order one for each node."""
        classes = structure.node_classes(self.problem)
        return math.prod(len(members) + 1 for members in classes) if self.problem.free_order else len(classes)

    @property
    def is_interchangeable(self) -> bool:
        if self.num_items * self.num_nodes <= self.limits.few or not structure.interchangeable(self.problem):
            return False
        # memory_aware compares with the best bottleneck of all orders, so several orders cannot be solved one by one
        return self.strategy != "memory_aware" or not structure.last_matters(self.problem)

    @cached_property
    def is_regular(self) -> bool:
        return structure.is_regular(self.problem)

    @property
    def is_regular_once_relaxed(self) -> bool:
        looser = structure.relaxation(self.problem, structure.of_single_stages(self.problem.constraints))
        return self.is_regular or structure.is_regular(looser)

    @property
    def is_plain(self) -> bool:
        """Whether arrays can plan it; what a running cluster asks they can, up to some hundred nodes or items."""
        problem = self.problem
        unlimited = problem.constraints == PlanningConstraints() and not problem.use_all_nodes
        plain = unlimited and problem.link_cost != ADDITIVE
        return plain and self.num_nodes * self.num_items**2 <= self.limits.live.costs


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of the table: `when` in words, with the default limits."""

    when: str
    kind: Kind
    applies: Callable[[_Facts], bool]


SEARCHES = (
    Rule("free order, more than 300,000 sets of nodes", Kind.BEAM, lambda f: f.num_sets > f.limits.most_sets),
    Rule("at most 300 sets of nodes x items", Kind.LABELS, lambda f: f.num_sets * f.num_items <= f.limits.direct),
    Rule(
        "free order, regular, no further limit",
        Kind.THRESHOLD,
        lambda f: f.problem.free_order and f.is_regular and structure.is_unlimited(f.problem),
    ),
    Rule("free order, regular once relaxed", Kind.RELAXED, lambda f: f.problem.free_order and f.is_regular_once_relaxed),
    Rule(
        "given order, at most 4,000,000 nodes x items^2",
        Kind.FIXED_ORDER,
        lambda f: not f.problem.free_order and f.num_sets * f.num_items**2 <= f.limits.fixed_costs,
    ),
    Rule("everything else", Kind.LABELS, lambda f: True),
)
DOCUMENTS = (
    Rule("identical items, equal links, more than 20 items x nodes", Kind.ONE_ORDER, lambda f: f.is_interchangeable),
    *SEARCHES,
)
LIVE = (
    Rule("given order, or one node", Kind.SOLVE, lambda f: not f.problem.free_order or f.num_nodes == 1),
    Rule("constraints, links that add to stages, or more than 1,500,000 nodes x items^2", Kind.TWO_ORDERS, lambda f: not f.is_plain),
    Rule(
        "at most 500,000 stages told apart in the present order",
        Kind.TWO_ORDERS_PROMPTLY,
        lambda f: num_stages(f.problem) <= f.limits.live.stages,
    ),
    Rule("everything else", Kind.ORDER_SEARCH, lambda f: True),
)
AFTER_WORK = dict.fromkeys((Kind.ONE_ORDER, Kind.LABELS, Kind.THRESHOLD, Kind.RELAXED, Kind.FIXED_ORDER), Kind.BEAM)
AFTER_WORK[Kind.TWO_ORDERS_PROMPTLY] = Kind.ORDER_SEARCH
OVER_LIMIT = "over its work limit"


def route(problem: Problem, strategy: str, live: bool = False, limits: Limits = DEFAULT) -> Route:
    """The route of a problem: of a document, or of a cluster that plans while it serves (`live`)."""
    return _first(LIVE if live else DOCUMENTS, problem, strategy, limits)


def search_route(problem: Problem, limits: Limits = DEFAULT) -> Route:
    """The same for the problem as it is, its order kept free where it is."""
    return _first(SEARCHES, problem, "", limits)


def after_work(before: Route) -> Route:
    """What follows where the searches of a route met their work limit."""
    return Route(AFTER_WORK[before.kind], f"{before.kind} {OVER_LIMIT}", before.limits)


def _first(rules: tuple[Rule, ...], problem: Problem, strategy: str, limits: Limits) -> Route:
    facts = _Facts(problem, strategy, limits)
    rule = next(rule for rule in rules if rule.applies(facts))
    return Route(rule.kind, rule.when, limits)


# --- while serving ----------------------------------------------------------------------------------------------
def is_searchable(problem: Problem, limits: Limits = DEFAULT) -> bool:
    """Whether all orders can be searched in about a tenth of a second."""
    num_nodes, n = len(problem.nodes), len(problem.items)
    if structure.has_equal_links(problem):
        return 2**num_nodes * num_nodes * n <= limits.live.equal
    return 2**num_nodes * (num_nodes * n) ** 2 <= limits.live.unlike


def num_stages(problem: Problem) -> int:
    """Stages that a search of the present order tells apart: with a link per pair, by the node that follows and by the first one."""
    n, num_nodes = len(problem.items), len(problem.nodes)
    return n * n * num_nodes * (1 if structure.has_equal_links(problem) else num_nodes**2)
