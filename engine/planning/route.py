"""Which solver answers a problem, and why: decided here and nowhere else, before anything is searched.

The rules are tried from the top; README.md has them as a table. `strategies.solve` executes the routes of documents,
`live_plan.solve_stable` those of a cluster that plans while it serves. A search that meets its work limit says so, and the route
that follows is `after_work`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from engine.planning.constraints import PlanningConstraints
from engine.planning.problem import OVERLAPPED, Problem
from engine.planning.solving import structure


class Kind(StrEnum):
    """How a problem is solved."""

    ONE_ORDER = "one given order"
    BEAM = "beam search and price bounds"
    LABELS = "label search"
    THRESHOLD = "threshold search, additive search"
    RELAXED = "threshold bound, label search within it"
    FIXED_ORDER = "fixed order, label search within it"
    SOLVE = "solve"
    TWO_ORDERS = "solve in the present and in the relaxation's order"
    TWO_ORDERS_PROMPTLY = "the same within a work limit"
    ORDER_SEARCH = "order search"


@dataclass(frozen=True, slots=True)
class Limits:
    """Every threshold that decides which code answers, in counts and never in time: the same problem has the same answer anywhere."""

    few: int = 20  # items x nodes: as small as that, a problem is searched as it is
    direct: int = 300  # sets of nodes x items: no more, and arrays and bounds are not worth their while
    most_sets: int = 300_000  # of nodes
    fixed_costs: int = 4_000_000  # nodes x items^2 of a given order, 8 bytes each
    label_work: int = 8_000_000  # stages and labels made by one label search
    unrounded_work: int = 300_000  # by one without a grid of times: about a second
    additive_entries: int = 14_000_000  # kept by an additive search, 8 bytes each
    additive_traced: int = 20_000  # of its chains that are equally short
    additive_large: int = 30_000_000  # sets x items, beyond which a bound from memory prices may save the day
    # within the threshold search
    small: int = 500  # transitions between sets; beyond, arrays pay
    wide: int = 1000  # sets of equally many nodes; beyond, one class after the other keeps the cache
    many: int = 5000  # sets; with fewer, a probe costs no more than what would spare it
    restrict: int = 200  # sets; fewer are not worth choosing from
    worth: float = 0.98  # of a bound: a smaller fall is not worth a look at which sets it leaves
    # while serving
    live_work: int = 75_000  # of all label searches for one plan: about a quarter of a second
    live_equal: int = 400_000  # sets of nodes x nodes x items where all links are equal: about 0.1 s at most
    live_unlike: int = 300_000  # sets x first nodes x last nodes x stages where they are not
    live_costs: int = 1_500_000  # nodes x items^2; 8 bytes each, several times over where memory is shared
    live_stages: int = 500_000  # told apart in the present order; beyond, an exact search is not begun
    live_bounded: int = 1_200_000  # sets of nodes x nodes; the threshold search over them takes about 20 ms
    live_read: int = 20_000_000  # array elements that trying orders may read: about 0.1 s


DEFAULT = Limits()


@dataclass(frozen=True, slots=True)
class Route:
    """What is done with a problem, the reason in words, and the limits that led there and go on to hold."""

    kind: Kind
    why: str
    limits: Limits = DEFAULT


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
        plain = problem.constraints == PlanningConstraints() and not problem.use_all_nodes and problem.link_cost == OVERLAPPED
        return plain and self.num_nodes * self.num_items**2 <= self.limits.live_costs


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
    Rule("constraints, additive links, or more than 1,500,000 nodes x items^2", Kind.TWO_ORDERS, lambda f: not f.is_plain),
    Rule(
        "at most 500,000 stages told apart in the present order",
        Kind.TWO_ORDERS_PROMPTLY,
        lambda f: num_stages(f.problem) <= f.limits.live_stages,
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
        return 2**num_nodes * num_nodes * n <= limits.live_equal
    return 2**num_nodes * (num_nodes * n) ** 2 <= limits.live_unlike


def num_stages(problem: Problem) -> int:
    """Stages that a search of the present order tells apart: with a link per pair, by the node that follows and by the first one."""
    n, num_nodes = len(problem.items), len(problem.nodes)
    return n * n * num_nodes * (1 if structure.has_equal_links(problem) else num_nodes**2)
