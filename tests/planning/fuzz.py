"""Many random problems against enumeration: `python -m tests.planning.fuzz FIRST_SEED COUNT [batched]`. Prints what differs."""

from __future__ import annotations

import random
import sys
from fractions import Fraction

from engine.planning.problem import Infeasible, TooHard
from engine.planning.route import DEFAULT, Limits, ThresholdLimits
from engine.planning.strategies import STRATEGIES, solve
from tests.planning.reference import Reference, batched_problem, exactly, random_problem, wide_problem

WITHIN = 1 + Fraction(1, 10**9)  # two figures that differ by less are equal


# Which code answers: as in production, the threshold search even for tiny problems, the same with arrays.
PATHS = (
    DEFAULT,
    Limits(direct=-1, few=-1),
    Limits(direct=-1, few=-1, threshold=ThresholdLimits(small=-1, wide=3, many=-1, restrict=-1, worth=1.0)),
)


def differences(seed: int, limits: Limits, most_items: int = 8, most_nodes: int = 5) -> list[str]:
    """What is wrong with any strategy's answer to the problem of this seed."""
    problem = random_problem(random.Random(seed), most_items, most_nodes)
    reference, wrong = Reference(problem), []
    for strategy in STRATEGIES:
        expected = reference.best(strategy)
        try:
            found = solve(problem, strategy, limits)
        except Infeasible:
            if expected is not None:
                wrong.append(f"seed {seed} {strategy}: refused, but {expected} is feasible")
            continue
        if expected is None:
            wrong.append(f"seed {seed} {strategy}: {found.cuts} though nothing is feasible")
            continue
        key = reference.key_of(strategy, found.cuts)
        objective = expected[1] if strategy == "balanced" else expected[0][0] if strategy == "bottleneck_first" else expected[0]
        if key != expected or not found.optimal or found.objective != objective or found.lower_bound != objective:
            wrong.append(f"seed {seed} {strategy}: {key} of {found.cuts} by {found.method}, best is {expected}")
    return wrong


def false_certificates(seed: int, limits: Limits) -> tuple[int, list[str]]:
    """How many plans of this seed's problem of unlike magnitudes are not certified, and what is untrue of any."""
    problem = wide_problem(random.Random(seed))
    reference, open_plans, wrong = Reference(exactly(problem)), 0, []
    for strategy in STRATEGIES:
        expected = reference.best(strategy)
        try:
            found = solve(problem, strategy, limits)
        except Infeasible as refusal:
            if expected is not None and not isinstance(refusal, TooHard):
                wrong.append(f"seed {seed} {strategy}: refused, but {_floats(expected)} is feasible")
            continue
        if expected is None or found.cuts not in [row[0] for row in reference.rows]:
            wrong.append(f"seed {seed} {strategy}: {found.cuts} breaks a limit, best is {expected and _floats(expected)}")
            continue
        optimum = expected[1] if strategy == "balanced" else expected[0][0] if strategy == "bottleneck_first" else expected[0]
        if found.lower_bound > optimum * WITHIN or (found.optimal and found.objective > optimum * WITHIN):
            claim = f"{found.objective} from {found.lower_bound}, optimal {found.optimal}"
            wrong.append(f"seed {seed} {strategy}: {claim}, best is {_floats(expected)}")
        if not found.objective * WITHIN >= optimum and strategy not in ("balanced", "memory_aware"):
            wrong.append(f"seed {seed} {strategy}: {found.objective} is better than the best, {float(optimum)}")
        open_plans += not found.optimal
    return open_plans, wrong


def batched_differences(seed: int, limits: Limits) -> tuple[int, list[str]]:
    """How many plans of this seed's problem of shared steps are not certified, and what is wrong with any strategy's answer.

    Without hosts every plan must be the best one. Figures that differ by less than 1e-9 are equal: rows are fractions, and seconds are not.
    """
    problem = batched_problem(random.Random(seed))
    reference, open_plans, wrong = Reference(exactly(problem)), 0, []
    for strategy in STRATEGIES:
        expected = reference.best(strategy)
        try:
            found = solve(problem, strategy, limits)
        except Infeasible as refusal:
            if expected is not None and not (isinstance(refusal, TooHard) and problem.hosts):
                wrong.append(f"seed {seed} {strategy}: refused ({type(refusal).__name__}), but {_floats(expected)} is feasible")
            continue
        if expected is None or found.cuts not in [row[0] for row in reference.rows]:
            wrong.append(f"seed {seed} {strategy}: {found.cuts} breaks a limit, best is {expected and _floats(expected)}")
            continue
        key, open_plans = reference.key_of(strategy, found.cuts), open_plans + (not found.optimal)
        optimum, objective = (_first(strategy, each) for each in (expected, key))
        told = objective / WITHIN <= found.objective <= objective * WITHIN
        if not told or found.lower_bound > optimum * WITHIN:
            wrong.append(
                f"seed {seed} {strategy}: says {found.objective} from {found.lower_bound}, {float(objective)}, best {float(optimum)}"
            )
        elif found.optimal and (_is_worse(key, expected) if found.ties_searched else objective > optimum * WITHIN):
            wrong.append(f"seed {seed} {strategy}: {_floats(key)} of {found.cuts} by {found.method}, best is {_floats(expected)}")
        elif not found.optimal and not problem.hosts:
            wrong.append(f"seed {seed} {strategy}: {found.objective} is not certified, the bound is {found.lower_bound}")
    return open_plans, wrong


def _first(strategy: str, key: tuple) -> Fraction:
    return key[1] if strategy == "balanced" else key[0][0] if strategy == "bottleneck_first" else key[0]


def _is_worse(key: tuple, expected: tuple) -> bool:
    """Whether the first figure that differs is larger; where two are equal but for rounding, what follows is not compared."""
    for a, b in zip(_flat(key), _flat(expected), strict=False):
        if a - b > abs(b) * (WITHIN - 1):
            return True
        if a != b:
            return False
    return False


def _flat(key: tuple) -> list[Fraction]:
    return [x for part in key for x in (part if isinstance(part, list) else [part])]


def _floats(key: tuple) -> list:
    return [[float(x) for x in part] if isinstance(part, list) else float(part) for part in key]


def main(first: int, count: int, is_batched: bool) -> int:
    bad = num_open = 0
    for seed in range(first, first + count):
        limits = PATHS[seed % 3]
        still_open, lines = batched_differences(seed, limits) if is_batched else (0, differences(seed, limits))
        bad, num_open = bad + len(lines), num_open + still_open
        for line in lines:
            print(line, flush=True)
    print(f"{count} problems from seed {first}, {len(STRATEGIES)} strategies: {bad} differences, {num_open} plans with a gap", flush=True)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:] == ["batched"]))
