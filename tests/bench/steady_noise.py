"""How quiet adaptation is while nothing but noise changes the times.

    python -m tests.bench.steady_noise [--steps 1000000]

Runs the planner of a cluster that adapts through steady traces and prints alarms and migrations, one JSON line each.
"""

from __future__ import annotations

import argparse
import json
from random import Random

from engine.simulation.adaptation.policies import Adaptive
from engine.simulation.adaptation.run import Run
from engine.simulation.adaptation.traces import Noise, steady

NOISES = [(0.03, 0.0), (0.05, 0.0), (0.1, 0.0), (0.2, 0.0), (0.03, 0.5), (0.05, 0.5), (0.1, 0.5), (0.2, 0.8)]  # deviation, rho


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1_000_000)
    options = parser.parse_args()
    for deviation, rho in NOISES:
        loss = Run(steady(Noise(deviation, rho), options.steps), Adaptive(), Random(0)).finish()
        found = {"alarms": loss.num_alarms, "migrations": loss.num_migrations}
        print(json.dumps({"deviation": deviation, "rho": rho, "steps": options.steps, **found}), flush=True)


if __name__ == "__main__":
    main()
