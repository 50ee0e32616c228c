"""What to simulate: a model's items and costs, nodes, links, a plan or a strategy, sessions. Frozen and checked when built."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from engine.control.sessions.scheduler import SchedulerLimits
from engine.data.errors import InvalidInput, check_name
from engine.data.measured_link import COORDINATOR
from engine.data.model import Item
from engine.data.plan import Plan
from engine.planning.manual_plan import check_layers
from engine.simulation.arrivals import Arrival
from engine.simulation.cost import CostSource

UNLIMITED_BYTES = 2**60
_MAX_NODES = 1024
_MAX_TOKENS = 50_000_000  # of all sessions: about an hour of simulating


@dataclass(frozen=True, slots=True)
class VirtualHost:
    """A machine that several nodes share: while their running steps want more than its cores, all of them slow down."""

    host_id: str
    num_cores: float

    def __post_init__(self) -> None:
        check_name("host", self.host_id)
        _require("cores of a host", self.num_cores, 1e-3, 1e6)


@dataclass(frozen=True, slots=True)
class NodeSetup:
    """A worker. Its steps take `slowdown` times the source's time, those with prompt tokens `prompt_slowdown` times that.

    On a shared host a running step keeps some cores busy on average: `busy_cores` in decode, `prompt_busy_cores` when it
    holds prompt tokens (long matrix products use threads better). Both are CPU time over running time of a step alone.
    """

    node_id: str
    slowdown: float = 1.0
    prompt_slowdown: float = 1.0
    host_id: str = ""  # "" = a machine of its own
    num_threads: int = 1  # what the scheduler is told
    busy_cores: float = 1.0
    prompt_busy_cores: float = 1.0
    memory_bytes: int = UNLIMITED_BYTES
    kv_budget_bytes: int = UNLIMITED_BYTES // 2

    def __post_init__(self) -> None:
        check_name("node", self.node_id)
        if self.node_id == COORDINATOR:
            raise InvalidInput(f"a node cannot be called {COORDINATOR}: links use that name for the coordinator")
        for factor in (self.slowdown, self.prompt_slowdown):
            _require(f"slowdown of {self.node_id}", factor, 1e-6, 1e6)
        for cores in (self.busy_cores, self.prompt_busy_cores):
            _require(f"busy cores of {self.node_id}", cores, 1e-3, 1e6)
        _require(f"KV budget of {self.node_id}", self.kv_budget_bytes, 0, UNLIMITED_BYTES)
        _require(f"memory of {self.node_id}", self.memory_bytes, self.kv_budget_bytes, UNLIMITED_BYTES)


@dataclass(frozen=True, slots=True)
class LinkModel:
    """A message of b bytes holds the link for b / bytes_per_s and arrives latency_s after that."""

    latency_s: float = 0.0
    bytes_per_s: float = math.inf

    def __post_init__(self) -> None:
        _require("latency of a link", self.latency_s, 0.0, 1e6)
        if not self.bytes_per_s > 0:
            raise InvalidInput(f"a bandwidth of {self.bytes_per_s} bytes/s is not allowed: it must be above 0")


@dataclass(frozen=True, slots=True)
class SoftwareCosts:
    """What the program adds to the models of compute and network."""

    hop_s: float = 0.0  # per message: writing, waking the reader, reading, checking; one core of the receiver's host
    neighbour_share: float = 0.0  # of a stage's computing, for every other stage of its host: its caches and cores served those meanwhile
    open_s: float = 0.0  # per session: from the client's request until its first step leaves; one core of the coordinator's host

    def __post_init__(self) -> None:
        _require("software cost of a hop", self.hop_s, 0.0, 1e6)
        _require("share of computing that a neighbour costs", self.neighbour_share, 0.0, 1e6)
        _require("software cost of opening a session", self.open_s, 0.0, 1e6)


@dataclass(frozen=True)
class Scenario:
    """Everything a simulation depends on: equal scenarios give equal results.

    `plan` names stages and nodes; without it the cluster plans with `strategy`. `links` overrides `link` for ordered pairs
    (from, to), where COORDINATOR may stand for the coordinator, which is on `coordinator_host` ("" = a machine of its own).
    `earlier` are sessions that ran before, one group after the other: the scheduler starts with what it learnt from them.
    """

    items: tuple[Item, ...]
    costs: CostSource
    nodes: tuple[NodeSetup, ...]
    arrivals: tuple[Arrival, ...]
    plan: Plan | None = None
    strategy: str = "balanced"
    hosts: tuple[VirtualHost, ...] = ()
    coordinator_host: str = ""
    link: LinkModel = field(default_factory=LinkModel)
    links: Mapping[tuple[str, str], LinkModel] = field(default_factory=dict)
    software: SoftwareCosts = field(default_factory=SoftwareCosts)
    limits: SchedulerLimits = field(default_factory=lambda: patient_limits())
    context_tokens: int = 2**40
    earlier: tuple[tuple[Arrival, ...], ...] = ()
    max_spans: int = 4096  # how many computing intervals are kept for the Gantt chart

    def __post_init__(self) -> None:
        if self.costs.num_items != len(self.items):
            numbers = f"{len(self.items)} items, the costs are of {self.costs.num_items}"
            raise InvalidInput(f"the model has {numbers}: take both from one profile")
        if not 1 <= len(self.nodes) <= _MAX_NODES:
            raise InvalidInput(f"{len(self.nodes)} nodes are not allowed: simulate 1 to {_MAX_NODES}")
        if not self.arrivals or not all(self.earlier):
            raise InvalidInput("there is no session to simulate: give at least one")
        if (total := sum(a.prompt_tokens + a.new_tokens for group in (*self.earlier, self.arrivals) for a in group)) > _MAX_TOKENS:
            raise InvalidInput(f"the sessions have {total} tokens, a simulation takes {_MAX_TOKENS} at most: give fewer or shorter ones")
        _unique("node", [n.node_id for n in self.nodes])
        _unique("host", [h.host_id for h in self.hosts])
        known = {"", *(h.host_id for h in self.hosts)}
        for owner, host_id in [*((n.node_id, n.host_id) for n in self.nodes), (COORDINATOR, self.coordinator_host)]:
            if host_id not in known:
                raise InvalidInput(f"{owner} is on host {host_id[:64]!r}, which is not described: add it or leave it out")
        _check_links(self.links, {COORDINATOR, *(n.node_id for n in self.nodes)})
        if self.plan is not None:
            _check_plan(self.plan, len(self.items), {n.node_id for n in self.nodes})

    def link_between(self, sender: str, receiver: str) -> LinkModel:
        return self.links.get((sender, receiver), self.link)


def patient_limits(**changes: int) -> SchedulerLimits:
    """Nobody gives up in a simulation: the queue has no bound, and whatever could time out does not."""
    timeouts = {f.name: math.inf for f in fields(SchedulerLimits) if f.name.endswith("_timeout_s")}
    return SchedulerLimits(max_queued=2**31, **timeouts, **changes)  # type: ignore[arg-type]


def _check_links(links: Mapping[tuple[str, str], LinkModel], known: set[str]) -> None:
    for pair in links:
        if unknown := [end for end in pair if end not in known]:
            raise InvalidInput(f"a link names {unknown[0][:64]!r}, which is no node: use {', '.join(sorted(known)[:8])}")


def _check_plan(plan: Plan, num_items: int, node_ids: set[str]) -> None:
    check_layers(tuple(stage.num_items for stage in plan.stages), num_items)
    _unique("node in the plan", [stage.node_id for stage in plan.stages])
    expected = 0
    for stage in plan.stages:
        if stage.node_id not in node_ids:
            raise InvalidInput(f"the plan uses node {stage.node_id[:64]!r}, the nodes are {', '.join(sorted(node_ids)[:8])}")
        if stage.start != expected:
            raise InvalidInput(f"the plan's stage on {stage.node_id} starts at item {stage.start}, the one before ends at {expected}")
        expected = stage.stop


def _unique(what: str, names: list[str]) -> None:
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidInput(f"{what} {twice} stands there twice: give every one a name of its own")


def _require(what: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise InvalidInput(f"{what} {value} is not allowed: it must lie in [{low:g}, {high:g}]")
