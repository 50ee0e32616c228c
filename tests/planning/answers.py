"""What the planner answers to many random problems, on all paths: `python -m tests.planning.answers FIRST_SEED COUNT`.

For changes that must not change an answer: print before and after, and compare.
"""

from __future__ import annotations

import random
import sys

from engine.data.errors import Refused
from engine.planning.live_plan import solve_stable
from engine.planning.problem import Problem
from engine.planning.route import Limits
from engine.planning.strategies import STRATEGIES, solve
from tests.planning.fuzz import PATHS
from tests.planning.reference import random_problem


def answer(problem: Problem, strategy: str, limits: Limits, live: bool) -> str:
    """Method, objective, bound, proof and stages; or the refusal."""
    try:
        f = (solve_stable if live else solve)(problem, strategy, limits)
    except Refused as refusal:
        return f"{type(refusal).__name__}: {refusal}"
    return f"{f.method} | {f.objective!r} {f.lower_bound!r} {f.optimal} {f.ties_searched} {f.cuts}"


def main(first: int, count: int) -> None:
    for seed in range(first, first + count):
        problem, limits = random_problem(random.Random(seed)), PATHS[seed % 3]
        for strategy in STRATEGIES:
            for live in (False, True) if seed % 3 == 0 else (False,):
                print(seed, strategy, "live" if live else "solve", answer(problem, strategy, limits, live), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
