"""`python -m tests.simulation.traces [--seeds 200]`: one line per seed of the drill with the hash of everything that was delivered in it.

A change that is only a matter of form leaves every line as it is: print them before and after, and compare.
"""

from __future__ import annotations

import argparse
import random
import sys
from dataclasses import astuple

from engine.simulation.drill.drill import Drill


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=200)
    for seed in range(parser.parse_args(arguments).seeds):
        print(*astuple(Drill(seed, random.Random(seed)).run()), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
