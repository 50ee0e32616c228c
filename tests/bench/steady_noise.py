"""How quiet adaptation is while nothing but noise changes the times.

    python -m tests.bench.steady_noise [--steps 1000000]

Runs the planner of a cluster that adapts through steady traces and prints alarms and migrations, one JSON line each. The last two are
noise that wanders for a hundred steps at a time and noise with Student's t(2), whose variance is infinite.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from random import Random

from engine.simulation.adaptation.policies import Adaptive
from engine.simulation.adaptation.run import Run
from engine.simulation.adaptation.traces import Noise, steady

PLAIN = [(0.03, 0.0), (0.05, 0.0), (0.1, 0.0), (0.2, 0.0), (0.03, 0.5), (0.05, 0.5), (0.1, 0.5), (0.2, 0.8)]  # deviation, rho
NOISES = [*(Noise(*each) for each in PLAIN), Noise(0.05, 0.99), Noise(0.05, 0.0, heavy_tails=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1_000_000)
    options = parser.parse_args()
    for noise in NOISES:
        loss = Run(steady(noise, options.steps), Adaptive(), Random(0)).finish()
        found = {"alarms": loss.num_alarms, "migrations": loss.num_migrations}
        print(json.dumps({**asdict(noise), "steps": options.steps, **found}), flush=True)


if __name__ == "__main__":
    main()
