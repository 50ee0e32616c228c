"""`python -m tests.bench.plan_vs_simulation [CLUSTERS]`: the planner's tokens/s of many plans against the simulator's.

Random clusters and loads (tests/simulation/agreement.py), about seven plans each. Kendall's tau over the pairs of plans of one cluster
whose simulated figures differ by more than 3 %, and how far the planned figures are from the simulated ones.
"""

from __future__ import annotations

import statistics
import sys

from tests.simulation.agreement import compare, kendall


def main(num_clusters: int) -> None:
    """Print one line, and the plans that are furthest off."""
    rows = [row for seed in range(num_clusters) for row in compare(seed)]
    same, other = kendall(rows)
    errors = sorted(row.error for row in rows)
    print(f"{num_clusters} clusters, {len(rows)} plans: tau {(same - other) / (same + other):.3f} over {same + other} pairs")
    print(f"error: median {errors[len(errors) // 2]:.1%}, p95 {statistics.quantiles(errors, n=20)[-1]:.1%}, worst {errors[-1]:.1%}")
    for row in sorted(rows, key=lambda row: -row.error)[:5]:
        print(f"  cluster {row.seed}: {row.cuts} planned {row.planned:.1f}, simulated {row.simulated:.1f} tokens/s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
