"""The planning problem: a chain of items, nodes with times and memory, the links between them.

Pure data with the quantities that define a plan's cost; it does not choose anything. The definitions (DESIGN 8):

    s_k  compute time of stage k, its node's base and its items' times, h_k  time of the hop from stage k to k+1 (none after the last stage)
    a stage costs max(s_k, h_k) when sending overlaps computing, s_k + h_k when it does not (`additive`), and max(s_k, w_k) when
    messages also follow each other on a link (`streamed`): w_k is h_k without the latency
    bottleneck = largest stage cost;  round trip = sum s + sum h + return hop (one token id, last node to first)
    period per token with m sessions in flight  P(m) = max(bottleneck, round trip / m)

With `time_s_by_batch` sessions share steps: load.py says how many rows a step of a plan carries and what P(m) is then; s_k and h_k
are those of such a step, and the problem `served` on the plan's nodes has them.

A single stage has neither hops nor a return hop. The return hop counts in the round trip only. With `coordinator` links the
token goes from the last node to the coordinator and from there to the first node, also when both are the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import accumulate

from engine.data.errors import InvalidInput, Refused
from engine.data.model import Item
from engine.planning.constraints import PlanningConstraints
from engine.planning.load import ByBatch, Host, Steps, check_batches, check_hosts, neighbour_factors, num_lanes, steps_of, times_at
from engine.planning.ties import tie_groups

TOKEN_ID_BYTES = 4
MAX_ITEMS = 4096
MAX_NODES = 256
MOST_SECONDS, MOST_BYTES, MOST_PRICE, MOST_ERROR = 1e15, 1e24, 1e15, 10.0  # so that no sum or product of them leaves the range of floats
MOST_SERVED = 64  # problems without batches that one with them keeps: a search asks for the same few again and again
LEAST_BANDWIDTH = 1e-15  # bytes per second
OVERLAPPED, ADDITIVE, STREAMED = "overlapped", "additive", "streamed"
LINK_COSTS = (OVERLAPPED, ADDITIVE, STREAMED)


class Infeasible(Refused):
    """No placement satisfies the limits; the message names the limit that binds."""

    exit_code = 1  # the question was answered: there is no plan


class TooHard(Infeasible):
    """No plan was found within the work limit; that none exists is not proved."""


@dataclass(frozen=True, slots=True)
class Link:
    """One direction between two nodes: a message of b bytes takes latency_s + b / bandwidth_bytes_per_s."""

    latency_s: float = 0.0
    bandwidth_bytes_per_s: float = math.inf

    def __post_init__(self) -> None:
        if not 0 <= self.latency_s <= MOST_SECONDS:
            raise InvalidInput(f"link latency_s is {self.latency_s}: it must be 0 or more seconds, at most {MOST_SECONDS:g}")
        if not self.bandwidth_bytes_per_s >= LEAST_BANDWIDTH:
            raise InvalidInput(f"link bandwidth_bytes_per_s is {self.bandwidth_bytes_per_s}: it must be more than 0")

    def transfer_s(self, num_bytes: float) -> float:
        return self.latency_s + num_bytes / self.bandwidth_bytes_per_s

    def held_s(self, num_bytes: float) -> float:
        """How long the message keeps the link from the next one."""
        return num_bytes / self.bandwidth_bytes_per_s


@dataclass(frozen=True, slots=True)
class PairLink:
    """The link from one node to another; the way back is the same unless it is given too."""

    from_id: str
    to_id: str
    link: Link


@dataclass(frozen=True, slots=True)
class CoordinatorLink:
    """A node's way to the coordinator and back, both as one hop of a token id."""

    node_id: str
    to_node: Link
    from_node: Link


@dataclass(frozen=True, slots=True)
class MemoryPool:
    """Memory that several nodes share (a CPU and an integrated GPU): their stages together must fit into it."""

    pool_id: str
    memory_bytes: float


@dataclass(frozen=True, slots=True)
class PlanningNode:
    """A node as the planner sees it.

    `time_s[i]` is one decode step of item i there, inf if it cannot run it, and `base_s` what a step takes there beside its items, however
    many they are; or `stage_time_s[k]` the time of a stage of k + 1 items whatever they are (a longer stage is impossible, the table need
    not rise). `buffer_bytes` is what any stage there needs beside its items. `pool_id` names the shared memory that the node draws from.
    `time_s_by_batch` are the item times of steps with 1 row, which are `time_s`, and with more; `host_id` names the host that the node
    shares, "" where it has its own. `trip_time_s` are the items' times in the round trip where others than in a stage's cost: those of the
    largest step. True times lie within a factor of 1 + `time_error`, either way; solvers do not look at it (estimating/bands.py does).
    """

    node_id: str
    memory_bytes: float = math.inf
    time_s: tuple[float, ...] = ()
    stage_time_s: tuple[float, ...] = ()
    price_per_s: float = 0.0
    buffer_bytes: float = 0.0
    pool_id: str | None = None
    base_s: float = 0.0
    time_s_by_batch: ByBatch = ()
    host_id: str = ""
    trip_time_s: tuple[float, ...] = ()
    time_error: float = 0.0


@dataclass(frozen=True, slots=True)
class _Known:
    links: dict[tuple[str, str], Link]
    ends_s: dict[str, tuple[float, float]]  # of a token id in and out, by node
    served: dict[tuple[Steps, tuple[float, ...]], Problem] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Problem:
    """Place `items` (a chain) on `nodes`; a node may be left out unless `use_all_nodes`.

    `links`: one Link for every pair, or the pairs that are connected. `free_order`: nodes may stand in any order in the
    pipeline, else in the order given. A stage must hold KV for sessions x context_tokens tokens. `in_flight` is m above.
    `workspace_bytes[i]`: scratch memory of item i; a stage needs its largest. `coordinator`: the ways of token ids in and out,
    one per node, or none where they go from the last node straight to the first.
    """

    items: tuple[Item, ...]
    nodes: tuple[PlanningNode, ...]
    links: Link | tuple[PairLink, ...] = field(default_factory=Link)
    free_order: bool = True
    link_cost: str = OVERLAPPED
    return_hop: bool = True
    sessions: int = 1
    context_tokens: int = 0
    in_flight: int = 1
    use_all_nodes: bool = False
    pools: tuple[MemoryPool, ...] = ()
    workspace_bytes: tuple[float, ...] = ()
    constraints: PlanningConstraints = field(default_factory=PlanningConstraints)
    coordinator: tuple[CoordinatorLink, ...] = ()
    hosts: tuple[Host, ...] = ()
    held_share: float = 1.0  # of a message's bytes: what it holds a link for on average; `streamed` only
    units_per_byte: int = field(init=False, repr=False, compare=False)  # a power of two: sizes are whole numbers of units
    prefix_units: tuple[int, ...] = field(init=False, repr=False, compare=False)
    _known: _Known = field(init=False, repr=False, compare=False)
    ties: tuple[tuple[tuple[int, ...], int], ...] = field(init=False, repr=False, compare=False)  # (items, units of each)

    def __post_init__(self) -> None:
        _check(self)
        ties = tie_groups(self.items)
        object.__setattr__(self, "units_per_byte", max(size.as_integer_ratio()[1] for size in self._sizes(ties)))
        kv_tokens = self.sessions * self.context_tokens
        units = (self.units(i.weight_bytes) + self.units(i.kv_bytes_per_token) * kv_tokens for i in self.items)
        object.__setattr__(self, "prefix_units", tuple(accumulate(units, initial=0)))
        object.__setattr__(self, "ties", tuple((members, self.units(size)) for members, size in ties))
        ends = {c.node_id: (c.to_node.transfer_s(TOKEN_ID_BYTES), c.from_node.transfer_s(TOKEN_ID_BYTES)) for c in self.coordinator}
        object.__setattr__(self, "_known", _Known(_both_ways(self.links), ends))

    def _sizes(self, ties: Iterable[tuple[tuple[int, ...], float]]) -> Iterator[float]:
        """Every finite size in bytes."""
        for item in self.items:
            yield from (item.weight_bytes, item.kv_bytes_per_token)
        yield from (size for _, size in ties)
        yield from self.workspace_bytes
        yield from (node.buffer_bytes for node in self.nodes)
        yield self.constraints.memory_reserve_bytes
        yield from (pool.memory_bytes for pool in self.pools)
        yield from (node.memory_bytes for node in self.nodes if node.memory_bytes < math.inf)

    def units(self, size_bytes: float) -> int:
        """The same in units, exactly; for sizes of this problem."""
        numerator, denominator = size_bytes.as_integer_ratio()
        return numerator * (self.units_per_byte // denominator)

    def stage_s(self, node: int, start: int, stop: int) -> float:
        """Compute time of items [start, stop) on `nodes[node]`; inf if it cannot run them."""
        chosen = self.nodes[node]
        if chosen.stage_time_s:
            return chosen.stage_time_s[stop - start - 1] if stop - start <= len(chosen.stage_time_s) else math.inf
        return math.fsum((chosen.base_s, *chosen.time_s[start:stop]))

    def trip_s(self, node: int, start: int, stop: int) -> float:
        """What the same items add to a round trip."""
        chosen = self.nodes[node]
        return math.fsum((chosen.base_s, *chosen.trip_time_s[start:stop])) if chosen.trip_time_s else self.stage_s(node, start, stop)

    def stage_units(self, start: int, stop: int) -> int:
        """Weights, KV and workspace of items [start, stop), exactly; a tensor tied inside the range is counted once."""
        total = self.prefix_units[stop] - self.prefix_units[start]
        for members, size in self.ties:
            total -= size * max(0, sum(start <= i < stop for i in members) - 1)
        return total + (self.units(max(self.workspace_bytes[start:stop], default=0.0)) if self.workspace_bytes else 0)

    def stage_bytes(self, start: int, stop: int) -> float:
        return self.stage_units(start, stop) / self.units_per_byte

    @property
    def sums_are_stages(self) -> bool:
        """Whether a stage's bytes are those of its items added up."""
        return not (self.ties or self.workspace_bytes)

    def memory_units(self, node: int, start: int, stop: int) -> int:
        return self.stage_units(start, stop) + self.units(self.nodes[node].buffer_bytes)

    def memory_bytes(self, node: int, start: int, stop: int) -> float:
        """What a stage of items [start, stop) takes on `nodes[node]`."""
        return self.memory_units(node, start, stop) / self.units_per_byte

    def room_units(self, node: int) -> int | float:
        """What `nodes[node]` may give to a stage, exactly; below 0 where its reserve is more than it has, inf without a limit."""
        memory = self.nodes[node].memory_bytes
        return memory if memory == math.inf else self.units(memory) - self.units(self.constraints.memory_reserve_bytes)

    def room_bytes(self, node: int) -> float:
        room = self.room_units(node)
        return math.inf if room == math.inf else room / self.units_per_byte

    def fits(self, node: int, start: int, stop: int) -> bool:
        return self.memory_units(node, start, stop) <= self.room_units(node) and math.isfinite(self.stage_s(node, start, stop))

    def link(self, sender: int, receiver: int) -> Link | None:
        """The link between two nodes, None if they are not connected."""
        if isinstance(self.links, Link):
            return self.links
        return self._known.links.get((self.nodes[sender].node_id, self.nodes[receiver].node_id))

    def hop_s(self, sender: int, receiver: int, cut: int) -> float:
        """Time to send the output of item cut - 1; inf between nodes that are not connected."""
        link = self.link(sender, receiver)
        return math.inf if link is None else link.transfer_s(self.items[cut - 1].output_bytes_per_token)

    def held_s(self, sender: int, receiver: int, cut: int) -> float:
        """How much of that time a stage's cost counts: without the latency where messages follow each other."""
        link = self.link(sender, receiver)
        if self.link_cost != STREAMED or link is None:
            return self.hop_s(sender, receiver, cut)
        return link.held_s(self.items[cut - 1].output_bytes_per_token * self.held_share)

    def return_s(self, last: int, first: int) -> float:
        """Time to send the token id back to the first stage."""
        if self._known.ends_s:
            return self.ends_s(last)[1] + self.ends_s(first)[0]
        if not self.return_hop or last == first:
            return 0.0
        link = self.link(last, first)
        return math.inf if link is None else link.transfer_s(TOKEN_ID_BYTES)

    def ends_s(self, node: int) -> tuple[float, float]:
        """Seconds of a token id from the coordinator to `nodes[node]` and back; zeros where the coordinator is no part of it."""
        return self._known.ends_s.get(self.nodes[node].node_id, (0.0, 0.0))

    @property
    def equal_ends(self) -> bool:
        """Whether every node is as far from the coordinator as the others."""
        return len(set(self._known.ends_s.values())) <= 1

    def stage_cost_s(self, compute_s: float, held_s: float) -> float:
        """A stage's share of the bottleneck."""
        return compute_s + held_s if self.link_cost == ADDITIVE else max(compute_s, held_s)

    def period_s(self, bottleneck_s: float, round_trip_s: float) -> float:
        return max(bottleneck_s, round_trip_s / self.in_flight)

    # ------------------------------------------------------------------------------------------ a load
    @property
    def is_batched(self) -> bool:
        """Whether sessions share steps, so that times depend on how many stages there are."""
        return bool(self.nodes[0].time_s_by_batch)

    def steps(self, nodes: Iterable[int]) -> Steps:
        """How the load shares steps where these nodes hold the stages; one row a step in a problem without batches."""
        if not self.is_batched:
            return Steps(self.in_flight, 1.0)
        at_once = {host.host_id: host.stages_at_once for host in self.hosts}
        hosts = [self.nodes[u].host_id for u in nodes]
        return steps_of(self.in_flight, num_lanes(hosts, at_once), len(hosts) == 1)

    def served(self, steps: Steps, nodes: Iterable[int] = ()) -> Problem:
        """The same without batches: the times of such steps while `nodes` compute, each beside the others of its host."""
        known, factors = self._known.served, neighbour_factors(self.hosts, [node.host_id for node in self.nodes], nodes)
        if found := known.get((steps, factors)):
            return found
        most, is_even = steps.most_rows, steps.most_rows == steps.rows
        slowed = tuple(
            replace(
                n,
                time_s=times_at(n.time_s_by_batch, steps.rows, factor),
                trip_time_s=() if is_even else times_at(n.time_s_by_batch, most, factor),
                base_s=n.base_s * factor,
                time_s_by_batch=(),
                host_id="",
            )
            for n, factor in zip(self.nodes, factors, strict=True)
        )
        items = tuple(replace(i, output_bytes_per_token=i.output_bytes_per_token * most) for i in self.items)
        found = replace(self, items=items, nodes=slowed, in_flight=steps.in_flight, hosts=(), held_share=steps.rows / most)
        return known.setdefault((steps, factors), found) if len(known) < MOST_SERVED else found


def _both_ways(links: Link | tuple[PairLink, ...]) -> dict[tuple[str, str], Link]:
    pairs = () if isinstance(links, Link) else links
    return {(p.to_id, p.from_id): p.link for p in pairs} | {(p.from_id, p.to_id): p.link for p in pairs}


def _check(problem: Problem) -> None:
    n = len(problem.items)
    if not problem.items:
        raise InvalidInput("the problem has no items: give at least one")
    if not problem.nodes:
        raise Infeasible("no node can hold layers: start at least one worker")
    if n > MAX_ITEMS or len(problem.nodes) > MAX_NODES:
        raise InvalidInput(f"the problem has {n} items and {len(problem.nodes)} nodes: at most {MAX_ITEMS} and {MAX_NODES} can be planned")
    node_ids = tuple(node.node_id for node in problem.nodes)
    if len(set(node_ids)) != len(node_ids):
        raise InvalidInput(f"node {next(i for i in node_ids if node_ids.count(i) > 1)!r} is given twice: names must differ")
    if problem.link_cost not in LINK_COSTS:
        raise InvalidInput(f"link_cost {problem.link_cost!r} is unknown: use {', '.join(LINK_COSTS)}")
    for name, low in (("sessions", 1), ("context_tokens", 0), ("in_flight", 1)):
        if (value := getattr(problem, name)) < low:
            raise InvalidInput(f"{name} is {value}: it must be at least {low}")
    if problem.workspace_bytes and len(problem.workspace_bytes) != n:
        raise InvalidInput(f"{len(problem.workspace_bytes)} workspace sizes are given for {n} items")
    _check_sizes(problem)
    pools = {pool.pool_id for pool in problem.pools}
    for node in problem.nodes:
        _check_node(node, n, pools)
    _check_load(problem)
    problem.constraints.check_against(n, node_ids)
    if set(node_ids) <= set(problem.constraints.forbidden_nodes):
        raise Infeasible("every node is forbidden: allow at least one")
    if problem.coordinator and not problem.return_hop:
        raise InvalidInput("coordinator links are given and return_hop is false: a token goes back over them, so leave one out")
    if problem.coordinator and sorted(c.node_id for c in problem.coordinator) != sorted(node_ids):
        named = ", ".join(c.node_id for c in problem.coordinator[:8])
        raise InvalidInput(f"coordinator links are given for {named}: give one for every node, {', '.join(node_ids[:8])}, or none")


def _check_load(problem: Problem) -> None:
    without = [node.node_id for node in problem.nodes if not node.time_s_by_batch]
    if without and len(without) < len(problem.nodes):
        raise InvalidInput(f"node {without[0]} has no time_s_by_batch and others have: give it for every node or for none")
    check_hosts(problem.hosts, {node.node_id: node.host_id for node in problem.nodes})
    if problem.hosts and without:
        raise InvalidInput(
            "hosts are given without time_s_by_batch: they change how sessions share steps, so give times of steps with several rows"
        )
    if not without:
        for node in problem.nodes:
            check_batches(node.node_id, node.time_s, node.time_s_by_batch)


def _check_sizes(problem: Problem) -> None:
    for item in problem.items:
        for name in ("weight_bytes", "kv_bytes_per_token", "output_bytes_per_token", "tied_bytes"):
            if not 0 <= getattr(item, name) <= MOST_BYTES:
                raise InvalidInput(f"item {item.name} has {name} {getattr(item, name)}: it must lie in [0, {MOST_BYTES:g}]")
    for size in problem.workspace_bytes:
        if not 0 <= size <= MOST_BYTES:
            raise InvalidInput(f"workspace_bytes is {size}: it must lie in [0, {MOST_BYTES:g}]")
    for pool in problem.pools:
        if not 0 <= pool.memory_bytes <= MOST_BYTES:
            raise InvalidInput(f"memory pool {pool.pool_id!r} has memory_bytes {pool.memory_bytes}: it must lie in [0, {MOST_BYTES:g}]")
    pool_ids = [pool.pool_id for pool in problem.pools]
    if len(set(pool_ids)) != len(pool_ids):
        raise InvalidInput(f"memory pool {next(i for i in pool_ids if pool_ids.count(i) > 1)!r} is given twice: names must differ")


def _check_node(node: PlanningNode, num_items: int, pools: set[str]) -> None:
    if bool(node.time_s) == bool(node.stage_time_s):
        raise InvalidInput(f"node {node.node_id} needs either time_s (one per item) or stage_time_s (one per stage length)")
    if node.time_s and len(node.time_s) != num_items:
        raise InvalidInput(f"node {node.node_id} has {len(node.time_s)} item times, the model has {num_items} items")
    if any(math.isnan(t) or t < 0 for t in (*node.time_s, *node.stage_time_s)):
        raise InvalidInput(f"node {node.node_id} has a negative or undefined item time: measure it again")
    longest_s = max((t for t in (*node.time_s, *node.stage_time_s, node.base_s) if t < math.inf), default=0.0)
    if longest_s > MOST_SECONDS:
        raise InvalidInput(f"node {node.node_id} has a time of {longest_s:g} s: at most {MOST_SECONDS:g}; where it cannot run an item, inf")
    most_of = {"memory_bytes": math.inf, "price_per_s": MOST_PRICE, "buffer_bytes": MOST_BYTES, "base_s": MOST_SECONDS}
    for name, most in (most_of | {"time_error": MOST_ERROR}).items():
        if not 0 <= (value := getattr(node, name)) <= most:
            raise InvalidInput(f"node {node.node_id} has {name} {value}: it must lie in [0, {most:g}]")
    if node.base_s and node.stage_time_s:
        raise InvalidInput(f"node {node.node_id} has base_s {node.base_s}: it belongs to time_s, not to stage_time_s")
    if node.pool_id is not None and node.pool_id not in pools:
        known = ", ".join(sorted(pools)) or "none"
        raise InvalidInput(f"node {node.node_id} draws from memory pool {node.pool_id!r}: the pools are {known}")
