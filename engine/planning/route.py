"""A route as a value: the kind of search that answers a problem, why, and the limits within which it works.

`routing` chooses it, before anything is searched; the solvers only read it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


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
class ThresholdLimits:
    """Within the threshold search."""

    small: int = 500  # transitions between sets; beyond, arrays pay
    wide: int = 1000  # sets of equally many nodes; beyond, one class after the other keeps the cache
    many: int = 5000  # sets; with fewer, a probe costs no more than what would spare it
    restrict: int = 200  # sets; fewer are not worth choosing from
    worth: float = 0.98  # of a bound: a smaller fall is not worth a look at which sets it leaves


@dataclass(frozen=True, slots=True)
class LiveLimits:
    """While a cluster serves."""

    work: int = 75_000  # of all label searches for one plan: about a quarter of a second
    equal: int = 400_000  # sets of nodes x nodes x items where all links are equal: about 0.1 s at most
    unlike: int = 300_000  # sets x first nodes x last nodes x stages where they are not
    costs: int = 1_500_000  # nodes x items^2; 8 bytes each, several times over where memory is shared
    stages: int = 500_000  # told apart in the present order; beyond, an exact search is not begun
    bounded: int = 1_200_000  # sets of nodes x nodes; the threshold search over them takes about 20 ms
    read: int = 20_000_000  # array elements that trying orders may read: about 0.1 s


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
    threshold: ThresholdLimits = ThresholdLimits()
    live: LiveLimits = LiveLimits()


DEFAULT = Limits()


@dataclass(frozen=True, slots=True)
class Route:
    """What is done with a problem, the reason in words, and the limits that led there and go on to hold."""

    kind: Kind
    why: str
    limits: Limits = DEFAULT
