"""`python -m tests.simulation.mutant_table [--seeds 5000] [NAME ...]`: the first seed of the drill that notices each one-line fault."""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterable

import pytest

from engine.simulation.drill.drill import Drill
from engine.simulation.drill.result import DrillFailure
from tests.simulation.mutants import DIRECTED, MUTANTS, Mutate


def first_noticed(mutate: Mutate, seeds: Iterable[int]) -> tuple[int, str] | None:
    """The first seed that fails with the fault in place, and how; None if all pass."""
    with pytest.MonkeyPatch.context() as patch:
        mutate(patch)
        for seed in seeds:
            try:
                Drill(seed, random.Random(seed)).run()
            except DrillFailure as e:
                return seed, str(e)
    return None


def noticed_by_test(mutate: Mutate) -> str:
    """The name of the test that is written for this fault and fails with it; empty if there is none, or none that fails."""
    test = DIRECTED.get(mutate)
    with pytest.MonkeyPatch.context() as patch:
        mutate(patch)
        try:
            if test is not None:
                test()
        except (Exception, pytest.fail.Exception):  # the test fails, whether it says so or what it calls does
            return test.__name__ if test is not None else ""
    return ""


def main(arguments: list[str]) -> int:
    """Print the table; 1 if a fault went unnoticed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5000)
    parser.add_argument("names", nargs="*", metavar="NAME")
    options = parser.parse_args(arguments)
    wanted = [m for m in MUTANTS if not options.names or m.__name__ in options.names]
    unnoticed = 0
    for mutate in wanted:
        found, test = first_noticed(mutate, range(options.seeds)), noticed_by_test(mutate)
        unnoticed += found is None and not test
        seed, how = found or (-1, f"noticed by {test}" if test else f"not noticed in {options.seeds} seeds")
        print(f"{mutate.__name__:42} {seed if found else '-':>6}  {how}", flush=True)
    print(f"{len(wanted) - unnoticed} of {len(wanted)} faults noticed")
    return 1 if unnoticed or not wanted else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
