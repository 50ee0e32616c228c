"""Small scenarios for tests: items that keep KV, nodes by name, and a strategy that draws all of it at random."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st

from engine.data.model import Item
from engine.data.plan import Plan, Stage
from engine.simulation.arrivals import Arrival
from engine.simulation.cost import ItemTimes
from engine.simulation.scenario import LinkModel, NodeSetup, Scenario, SoftwareCosts, VirtualHost

KV_BYTES = 10
OUTPUT_BYTES = 100


def items(num_items: int) -> tuple[Item, ...]:
    return tuple(Item(f"h.{k}", 1000, KV_BYTES, OUTPUT_BYTES) for k in range(num_items))


def plan(*layers: int) -> Plan:
    starts = [sum(layers[:k]) for k in range(len(layers))]
    return Plan(1, "given", tuple(Stage(f"n{k}", start, start + n) for k, (start, n) in enumerate(zip(starts, layers, strict=True))))


def scenario(*layers: int, item_s: float = 0.001, arrivals: tuple[Arrival, ...], share: float = 0.0, **changes: Any) -> Scenario:
    """Equal items on nodes n0, n1, ...; without a share every step costs the same, whatever its tokens."""
    nodes = changes.pop("nodes", tuple(NodeSetup(f"n{k}") for k in range(len(layers))))
    return Scenario(items(sum(layers)), ItemTimes((item_s,) * sum(layers), share), nodes, arrivals, plan=plan(*layers), **changes)


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    """Any mix of plans, slow nodes, shared machines, links, software costs, KV budgets and arrivals."""
    layers = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    arrivals = draw(st.lists(st.builds(Arrival, st.floats(0, 0.2), st.integers(1, 40), st.integers(1, 12)), min_size=1, max_size=8))
    largest = max(a.prompt_tokens + a.new_tokens for a in arrivals)
    room = draw(st.integers(1, 3)) * largest  # tokens that the tightest stage can hold
    hosts = draw(st.lists(st.builds(VirtualHost, st.sampled_from(["a", "b"]), st.floats(0.5, 4)), unique_by=lambda h: h.host_id))
    names = ["", *(h.host_id for h in hosts)]
    nodes = tuple(
        NodeSetup(
            f"n{k}",
            slowdown=draw(st.floats(0.5, 3)),
            host_id=draw(st.sampled_from(names)),
            busy_cores=draw(st.floats(0.5, 2)),
            prompt_busy_cores=draw(st.floats(0.5, 2)),
            kv_budget_bytes=room * KV_BYTES * max(layers),
        )
        for k in range(len(layers))
    )
    links = st.builds(LinkModel, st.floats(0, 0.005), st.sampled_from([1e4, 1e6, math.inf]))
    software = SoftwareCosts(draw(st.sampled_from([0.0, 0.0005])), draw(st.sampled_from([0.0, 0.1])), draw(st.sampled_from([0.0, 0.01])))
    return scenario(
        *layers,
        item_s=draw(st.floats(0.0001, 0.01)),
        arrivals=tuple(arrivals),
        share=draw(st.sampled_from([0.0, 0.05, 1.0])),
        nodes=nodes,
        hosts=tuple(hosts),
        coordinator_host=draw(st.sampled_from(names)),
        link=draw(links),
        software=software,
        max_spans=100_000,
    )
