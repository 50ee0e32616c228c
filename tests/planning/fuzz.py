"""Many random problems against enumeration: `python -m tests.planning.fuzz FIRST_SEED COUNT`. Prints what differs."""

from __future__ import annotations

import random
import sys
from fractions import Fraction

from engine.planning.problem import Infeasible, TooHard
from engine.planning.route import DEFAULT, Limits, ThresholdLimits
from engine.planning.strategies import STRATEGIES, solve
from tests.planning.reference import Reference, exactly, random_problem, wide_problem

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


def _floats(key: tuple) -> list:
    return [[float(x) for x in part] if isinstance(part, list) else float(part) for part in key]


def main(first: int, count: int) -> int:
    bad = 0
    for seed in range(first, first + count):
        for line in differences(seed, PATHS[seed % 3]):
            bad += 1
            print(line, flush=True)
    print(f"{count} problems from seed {first}, {len(STRATEGIES)} strategies: {bad} differences", flush=True)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
