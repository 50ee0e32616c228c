"""How long one planning problem of a running cluster takes: unlike nodes, unequal links between all pairs, a shared memory.

    python -m tests.bench.longest_solve [--nodes 3 8 16] [--items 40 130] [--seed 1] [--sessions 1 8]

Prints CPU seconds of one `solve_stable` per strategy, one JSON line each. A comparison of all strategies takes their sum. More than one
session: they share steps.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import time
from dataclasses import replace

from engine.commands.bench.plan import shared, unlike
from engine.data.errors import Refused
from engine.planning.live_plan import solve_stable
from engine.planning.problem import Link, MemoryPool, PairLink, Problem
from engine.planning.routing import is_searchable
from engine.planning.strategies import STRATEGIES


def measured_cluster(num_items: int, num_nodes: int, seed: int) -> Problem:
    """`bench plan`'s unlike nodes, the first two of which share their memory, and no two links alike."""
    plain, rng = unlike(num_items, num_nodes, num_nodes, seed), random.Random(seed)
    ids = [node.node_id for node in plain.nodes]
    links = tuple(PairLink(a, b, Link(rng.uniform(1e-4, 2e-3), rng.uniform(1e8, 1e9))) for a in ids for b in ids if a != b)
    nodes = (*(replace(node, pool_id="shared") for node in plain.nodes[:2]), *plain.nodes[2:])
    pool = MemoryPool("shared", 0.8 * sum(node.memory_bytes for node in plain.nodes[:2]))
    return replace(plain, nodes=nodes, links=links, pools=(pool,))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, nargs="+", default=[3, 8, 16])
    parser.add_argument("--items", type=int, nargs="+", default=[40, 130])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sessions", type=int, nargs="+", default=[1, 8])
    options = parser.parse_args()
    for num_nodes in options.nodes:
        for num_items in options.items:
            plain = measured_cluster(num_items, num_nodes, options.seed)
            for sessions, strategy in itertools.product(options.sessions, STRATEGIES):
                of = {"nodes": num_nodes, "items": num_items, "sessions": sessions, "strategy": strategy}
                print(json.dumps(of | _row(plain if sessions == 1 else shared(plain, sessions), strategy)), flush=True)


def _row(problem: Problem, strategy: str) -> dict[str, object]:
    began_s = time.process_time()
    try:
        found = solve_stable(problem, strategy)
        answer: dict[str, object] = {"optimal": found.optimal, "gap": found.gap}
    except Refused as error:
        answer = {"refused": str(error)}
    return {"cpu_s": time.process_time() - began_s, "all_orders": is_searchable(problem), **answer}


if __name__ == "__main__":
    main()
