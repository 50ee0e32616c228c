"""A thousand nodes in fifty sites, many replicas of one large model behind one door, nodes that come and go every minute.

    python -m tests.bench.internet_scale [--nodes 1000] [--sites 50] [--minutes 5] [--per-s 8] [--gone-per-minute 20] [--seed 1]

Each replica is the real cluster of `engine/control` under a virtual clock: it plans, loses nodes, plans again and replays as it does
when it serves. What lies between two sites was measured by others: the round trip between their metropolitan regions, and the line of
each (`ROUND_TRIP_MS`, `LINES`, with their sources). Made up are the machines, which site lies where and has which line, a site's own
network, the time that weights take to load, and the door, which knows prefixes and what it sent. Every session's tokens are counted: each
index once, none left out. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from engine.control import commands as do
from engine.control import events as on
from engine.control.cluster import Cluster
from engine.control.sessions.reuse.prefix_cache import PrefixSettings
from engine.data.generation import GenerateRequest
from engine.data.model import Item
from engine.data.status import Phase
from engine.simulation.arrivals import Arrival
from engine.simulation.cost import ItemTimes
from engine.simulation.machines.pipeline import Pipeline
from engine.simulation.scenario import UNLIMITED_BYTES, LinkModel, NodeSetup, Scenario, SoftwareCosts
from engine.simulation.simulator import StagedSimulator, _config, _spec

NUM_ITEMS, ITEM_BYTES, KV_BYTES, HIDDEN_BYTES = 82, 850_000_000, 4096, 16_384  # about 70B in 8 bits
ITEM_S, EXTRA_TOKEN_SHARE = 0.0028, 0.02  # on a node that reads 300 GB/s
SLOWDOWNS, MEMORY_GB = (0.5, 1.0, 1.0, 2.0, 4.0), (12, 16, 24, 24, 48)
# Average round trips between regions of IBM Cloud, 27 July to 25 August 2024: "Network latency" in IBM Cloud's documentation of VPC
# (github.com/ibm-cloud-docs/vpc, _include-segments/network-latency.md). Dallas, Toronto, Washington, Frankfurt, London, Madrid, Osaka,
# Sydney, Tokyo, Sao Paulo; each row goes on from its own region.
ROUND_TRIP_MS = (
    (34, 31, 123, 113, 119, 150, 186, 143, 146),
    (19, 93, 82, 108, 168, 215, 162, 129),
    (91, 75, 87, 172, 214, 164, 118),
    (13, 29, 232, 250, 233, 198),
    (27, 244, 261, 243, 188),
    (257, 275, 258, 209),
    (122, 9, 293),
    (115, 328),
    (284,),
)
# Medians of Ookla's Speedtest by provider of fixed lines in the USA, June 2022 (telecompetitor.com, "Cox nears 200 Mbps download in June
# Ookla Speedtest results"): upload in Mbit/s, round trip to a server nearby in ms.
LINES = ((113.21, 8), (112.36, 8), (112.27, 12), (18.88, 14), (12.02, 15), (11.70, 16), (10.60, 11))
LAN = LinkModel(0.0003, 1.25e8)
LOAD_BYTES_PER_S = 1e9  # from a node's own disk
LEASE_S = 3.0  # until a silent node counts as lost; half of them break their connection, which is noticed at once
AWAY_S = 120.0
PREFIX_TOKENS, OWN_TOKENS, NEW_TOKENS, NUM_PREFIXES = 384, 64, 64, 200
OVERLOAD = 1.5  # a holder of the prefix is passed over once a session would take so many times the shortest time there


@dataclass(frozen=True)
class Site:
    """The number of its region, its line, and the nodes in it."""

    region: int
    upload_bits_per_s: float
    access_s: float  # there and back
    nodes: tuple[NodeSetup, ...]

    @property
    def memory_bytes(self) -> int:
        return sum(node.memory_bytes for node in self.nodes)

    def link_to(self, other: Site) -> LinkModel:
        if other is self:
            return LAN
        near, far = sorted((self.region, other.region))
        between_s = 1e-3 * ROUND_TRIP_MS[near][far - near - 1] if near < far else 0.0
        return LinkModel((self.access_s + between_s + other.access_s) / 2, self.upload_bits_per_s / 8)


def sites(num_nodes: int, num_sites: int, dice: random.Random) -> list[Site]:
    """Few large ones, many small ones; a node is in one of them."""
    weights = [1.0 / (rank + 1) ** 0.6 for rank in range(num_sites)]
    sizes = Counter(dice.choices(range(num_sites), weights, k=num_nodes - num_sites))
    found, number = [], 0
    for index in range(num_sites):
        nodes = []
        for _ in range(1 + sizes[index]):
            memory = int(dice.choice(MEMORY_GB) * 1e9)
            nodes.append(NodeSetup(f"n{number}", dice.choice(SLOWDOWNS), memory_bytes=memory, kv_budget_bytes=memory // 4))
            number += 1
        upload, round_trip_ms = dice.choice(LINES)
        found.append(Site(dice.randrange(len(ROUND_TRIP_MS) + 1), 1e6 * upload, 1e-3 * round_trip_ms, tuple(nodes)))
    return found


def regions(all_sites: Sequence[Site]) -> list[list[Site]]:
    """Sites that hold the model twice stand alone; each other one joins the nearest, until all do."""
    enough = 2 * NUM_ITEMS * ITEM_BYTES
    found = [[site] for site in all_sites]
    while len(found) > 1:
        poor = [group for group in found if sum(site.memory_bytes for site in group) < enough]
        if not poor:
            break
        group = min(poor, key=lambda g: sum(site.memory_bytes for site in g))
        found.remove(group)
        nearest = min(found, key=lambda other: min(a.link_to(b).latency_s for a in group for b in other))
        nearest.extend(group)
    return found


class Replica(StagedSimulator):
    """One cluster of one region, with nodes that go and come, and sessions that the door sent."""

    def __init__(self, number: int, members: Sequence[Site]) -> None:
        items = tuple(Item(f"h.{k}", ITEM_BYTES, KV_BYTES, HIDDEN_BYTES) for k in range(NUM_ITEMS))
        home = {node.node_id: site for site in members for node in site.nodes}
        links = {(a, b): x.link_to(y) for a, x in home.items() for b, y in home.items() if x is not y}
        nodes = tuple(node for site in members for node in site.nodes)
        costs = ItemTimes((ITEM_S,) * NUM_ITEMS, EXTRA_TOKEN_SHARE)
        scenario = Scenario(
            items, costs, nodes, (Arrival(0.0, 1, 1),), strategy="bottleneck_first", link=LAN, links=links, software=SoftwareCosts(0.0004)
        )
        super().__init__(scenario)
        self._cluster = Cluster(replace(_config(scenario), prefix_cache=PrefixSettings(is_on=True)), 0.0)
        # a modelled node does not know what is kept of sessions that ended: the cluster alone counts their keys and values
        self._roomy = replace(
            scenario, nodes=tuple(replace(node, kv_budget_bytes=UNLIMITED_BYTES, memory_bytes=UNLIMITED_BYTES) for node in nodes)
        )
        self.number, self.num_sites = number, len(members)
        self.generations = dict.fromkeys(home, 1)
        self.plan_ms: list[float] = []
        self.sent: list[tuple[Arrival, int]] = []
        self.indices: dict[str, list[int]] = {}
        self.num_stages, self.num_lost, self.num_hit, self.down_s = 0, 0, 0, 0.0
        self._interrupted_s = -1.0
        began_s = time.perf_counter()
        self._start()
        self.plan_ms.append(1e3 * (time.perf_counter() - began_s))
        assert self._pipeline is not None
        self.session_s = NEW_TOKENS * self._round_trip_s()

    def _round_trip_s(self) -> float:
        """Of one row through the stages of the first plan."""
        assert self._pipeline is not None
        slow = {node.node_id: node.slowdown for node in self._scenario.nodes}
        stages = self._pipeline.plan.stages
        hops_s = sum(self._scenario.link_between(a.node_id, b.node_id).latency_s for a, b in pairwise(stages))
        return hops_s + sum(ITEM_S * stage.num_items * slow[stage.node_id] for stage in stages)

    def play(self, gone: Sequence[tuple[float, str, bool]]) -> None:
        """Serve what was sent, while nodes go at their times, with or without a word."""
        for index, (arrival, prefix) in enumerate(self.sent):
            self._clock.at(arrival.arrival_s, self._ask, (f"s{index}", arrival, prefix))
        for at_s, node_id, is_silent in gone:
            self._clock.at(at_s + (LEASE_S if is_silent else 0.0), self._lose, node_id)
            self._clock.at(at_s + AWAY_S, self._come_back, node_id)
        self._clock.run()

    def _ask(self, asked: tuple[str, Arrival, int]) -> None:
        session_id, arrival, prefix = asked
        own = (int(session_id[1:]) % 50_000, *(1,) * (OWN_TOKENS - 1))
        prompt = (*(60_000 + prefix,) * PREFIX_TOKENS, *own)
        self._log.submitted(session_id, arrival)
        self.indices[session_id] = []
        if not self._ticking:
            self._ticking = True
            self._clock.at(self._clock.now_s + 1.0, self._tick, on.Tick())
        request = GenerateRequest(prompt_ids=prompt, max_new_tokens=arrival.new_tokens, ignore_eos=True)
        self._feed(on.SessionSubmitted(session_id, prompt, request, caller=b"the door"))

    def _lose(self, node_id: str) -> None:
        self.num_lost += 1
        if self._pipeline is not None and any(stage.node_id == node_id for stage in self._pipeline.plan.stages):
            self.num_hit += 1
            self._interrupted_s = self._clock.now_s if self._interrupted_s < 0 else self._interrupted_s
        self._feed(on.WorkerLost(node_id, self.generations[node_id], "it is gone"))

    def _come_back(self, node_id: str) -> None:
        self.generations[node_id] += 1
        setup = next(node for node in self._scenario.nodes if node.node_id == node_id)
        self._feed(on.WorkerRegistered(_spec(setup, self._scenario), self.generations[node_id], ready=True))

    def _feed(self, event: on.ClusterEvent) -> None:
        before, began_s = self._cluster.state.last_version, time.perf_counter()
        commands = self._cluster.handle(event, self._clock.now_s)
        if self._cluster.state.last_version != before:
            self.plan_ms.append(1e3 * (time.perf_counter() - began_s))
        for command in commands:
            self._carry_out(command)
        if self._interrupted_s >= 0 and self._cluster.phase is Phase.SERVING:
            self.down_s += self._clock.now_s - self._interrupted_s
            self._interrupted_s = -1.0

    def _carry_out(self, command: do.Command) -> None:
        match command:
            case do.EmitToken():
                self.indices[command.session_id].append(command.index)
                super()._carry_out(command)
            case do.AdoptPlan():
                self.num_stages = len(command.plan.stages)
                self._pipeline = Pipeline(self._roomy, command.plan, self._clock, self._processors, self._report, self._log.reserve_tokens)
            case do.LoadStage() if self._clock.now_s > 0.0:
                load_s = command.stage.num_items * ITEM_BYTES / LOAD_BYTES_PER_S
                loaded = on.StageLoaded(command.worker_id, command.plan_version, 0, 0, load_s)
                self._clock.at(self._clock.now_s + load_s, self._feed, loaded)
            case _:
                super()._carry_out(command)

    def num_wrong(self) -> int:
        """Sessions whose tokens are not each index once, in order, up to the last."""
        lengths = {f"s{i}": arrival.new_tokens for i, (arrival, _) in enumerate(self.sent)}
        return sum(self.indices[session] != list(range(length)) for session, length in lengths.items())


class Door:
    """Sends a session to a replica that holds its prefix, unless it would take much longer there than elsewhere.

    It counts what it sent and what should have ended by now; a pipeline of n stages serves n sessions as fast as one.
    """

    def __init__(self, replicas: Sequence[Replica], knows: bool) -> None:
        self.replicas, self.knows = replicas, knows
        self.ends_s: list[list[float]] = [[] for _ in replicas]  # of the sessions that each has
        self.holders: dict[int, set[int]] = {}

    def send(self, arrival: Arrival, prefix: int, dice: random.Random) -> None:
        for ends_s in self.ends_s:
            while ends_s and ends_s[0] <= arrival.arrival_s:
                heapq.heappop(ends_s)
        waits_s = [
            r.session_s * max(1.0, (len(ends_s) + 1) / max(1, r.num_stages)) for r, ends_s in zip(self.replicas, self.ends_s, strict=True)
        ]
        least = min(range(len(waits_s)), key=waits_s.__getitem__)
        chosen = least if self.knows else dice.randrange(len(waits_s))
        holders = self.holders.setdefault(prefix, set())
        if self.knows and holders:
            holder = min(holders, key=waits_s.__getitem__)
            chosen = holder if waits_s[holder] <= OVERLOAD * waits_s[least] else least
        holders.add(chosen)
        heapq.heappush(self.ends_s[chosen], arrival.arrival_s + waits_s[chosen])
        self.replicas[chosen].sent.append((arrival, prefix))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--sites", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--per-s", type=float, default=8.0, help="sessions a second")
    parser.add_argument("--gone-per-minute", type=int, default=20)
    parser.add_argument("--blind-door", action="store_true", help="replicas by chance, for comparison")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    dice = random.Random(options.seed)
    groups = regions(sites(options.nodes, options.sites, dice))
    began_s = time.perf_counter()
    replicas = [Replica(number, group) for number, group in enumerate(groups)]
    door = Door(replicas, not options.blind_door)
    at_s = 0.0
    while (at_s := at_s + dice.expovariate(options.per_s)) < 60.0 * options.minutes:
        prefix = min(NUM_PREFIXES - 1, int(dice.paretovariate(1.1)) - 1)
        door.send(Arrival(at_s, PREFIX_TOKENS + OWN_TOKENS, NEW_TOKENS), prefix, dice)
    gone: dict[int, list[tuple[float, str, bool]]] = {replica.number: [] for replica in replicas}
    owners = {node.node_id: replica.number for replica in replicas for node in replica._scenario.nodes}
    free_s = dict.fromkeys(owners, 0.0)
    for minute in range(int(options.minutes)):
        for _ in range(options.gone_per_minute):
            when_s = 60.0 * minute + dice.uniform(1.0, 60.0)
            node_id = dice.choice([n for n, until_s in free_s.items() if until_s <= when_s])
            free_s[node_id] = when_s + AWAY_S + 10.0
            gone[owners[node_id]].append((when_s, node_id, dice.random() < 0.5))
    for replica in replicas:
        replica.play(sorted(gone[replica.number]))
    print(json.dumps(figures(replicas, 60.0 * options.minutes, time.perf_counter() - began_s)))


def figures(replicas: Sequence[Replica], span_s: float, took_s: float) -> dict[str, object]:
    ttft = sorted(t for replica in replicas for t in replica._log.ttft_s)
    gaps = sorted(t for replica in replicas for t in replica._log.gaps_s)
    plans = sorted(ms for replica in replicas for ms in replica.plan_ms)
    num_tokens = sum(replica._log.num_tokens for replica in replicas)
    counts = [replica._cluster.serving.prefixes.counts for replica in replicas]

    def of(values: Sequence[float], share: float) -> float:
        return round(values[min(len(values) - 1, int(share * len(values)))], 4) if values else 0.0

    return {
        "replicas": len(replicas),
        "nodes_of_a_replica": [min(n := [len(r._scenario.nodes) for r in replicas]), statistics.median(n), max(n)],
        "replicas_over_several_sites": sum(r.num_sites > 1 for r in replicas),
        "stages": [min(s := [r.num_stages for r in replicas]), statistics.median(s), max(s)],
        "sessions": sum(len(r.sent) for r in replicas),
        "sessions_of_a_replica": [min(n := [len(r.sent) for r in replicas]), statistics.median(n), max(n)],
        "tokens": num_tokens,
        "tokens_per_s": round(num_tokens / max(span_s, *(r._log.last_token_s for r in replicas)), 1),
        "sessions_with_lost_or_doubled_tokens": sum(r.num_wrong() for r in replicas),
        "ttft_s": {"p50": of(ttft, 0.5), "p95": of(ttft, 0.95), "p99": of(ttft, 0.99), "worst": of(ttft, 1.0)},
        "token_gap_s": {"p50": of(gaps, 0.5), "p99": of(gaps, 0.99), "p9999": of(gaps, 0.9999), "worst": of(gaps, 1.0)},
        "cached_share_of_prompts": round(sum(c.cached_tokens for c in counts) / max(1, sum(c.prompt_tokens for c in counts)), 3),
        "nodes_gone": sum(r.num_lost for r in replicas),
        "of_these_in_a_plan": sum(r.num_hit for r in replicas),
        "not_serving_s_of_a_replica": round(sum(r.down_s for r in replicas) / len(replicas), 1),
        "plans": len(plans),
        "plan_ms": {"p50": of(plans, 0.5), "p95": of(plans, 0.95), "worst": of(plans, 1.0)},
        "took_s": round(took_s, 1),
    }


if __name__ == "__main__":
    main()
