"""How long a large simulation takes and how much memory: 1,000 sessions of 128 tokens on 8 nodes, unless told otherwise.

    python tests/bench/simulation_size.py [--sessions 1000] [--tokens 128] [--nodes 8] [--shared]

Prints CPU seconds, the rise of peak memory over what the imports take, and what was simulated, as one JSON line.
`--shared` puts pairs of nodes on one machine, so that every step waits for the clock instead of being followed ahead.
"""

from __future__ import annotations

import argparse
import json
import resource
import time

from engine.data.model import Item
from engine.simulation.arrivals import at_once
from engine.simulation.cost import ItemTimes
from engine.simulation.scenario import NodeSetup, Scenario, SoftwareCosts, VirtualHost
from engine.simulation.simulator import StagedSimulator


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--nodes", type=int, default=8)
    parser.add_argument("--kv-sessions", type=int, default=0, help="sessions whose KV fits at once (default: all)")
    parser.add_argument("--shared", action="store_true")
    options = parser.parse_args()
    items = tuple(Item(f"h.{k}", 1000, 1000, 3072) for k in range(2 * options.nodes))
    hosts = tuple(VirtualHost(f"h{k}", 1.5) for k in range(options.nodes // 2)) if options.shared else ()
    room_bytes = 2 * 1000 * (16 + options.tokens) * (options.kv_sessions or options.sessions)
    nodes = tuple(
        NodeSetup(f"n{k}", host_id=f"h{k // 2}" if options.shared and k // 2 < len(hosts) else "", kv_budget_bytes=room_bytes)
        for k in range(options.nodes)
    )
    arrivals = at_once(options.sessions, 16, options.tokens)
    costs = ItemTimes((0.001,) * len(items), 0.05)
    scenario = Scenario(items, costs, nodes, arrivals, hosts=hosts, software=SoftwareCosts(hop_s=0.0004))
    before_kb, began_s = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    result = StagedSimulator(scenario).run()
    spent_s = time.process_time() - began_s
    rise_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb) / 1024
    steps = sum(stage.num_steps for stage in result.stages)
    print(
        json.dumps(
            {"cpu_s": spent_s, "memory_rise_mb": rise_mb, "num_tokens": result.num_tokens, "num_stage_steps": steps, **vars(options)}
        )
    )


if __name__ == "__main__":
    main()
