"""How sessions share steps: what a step carries while m of them decode, and what items then take. Pure; it knows no plans.

As many steps are under way as stages compute side by side, and one more where there are wires between hosts (`num_lanes`, as the
scheduler counts them). The scheduler keeps all of them filled while there are sessions, so k = min(m, lanes) steps are in flight, which
carry m / k rows on average. Where k does not divide m, some carry a row more than others. Steps do not overtake each other, so all
come around once while the largest does. With stage times at m / k rows, and a round trip at as many as the largest has, a token
comes out every

    P(m) = max(bottleneck, round trip / k) * k / m

A single stage gets one step more, ahead of those that come around, so that it never waits for its coordinator: its round trip is divided
by k + 1.

Stages of one host take turns where it has no cores for all of them: what they do in one step, messages read included, is a bottleneck
too, and each costs a share more for every other one beside it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from engine.data.errors import InvalidInput
from engine.profile.cost_model import work_s

MOST_ROWS = 128  # of a step: what the scheduler packs at most
MOST_BATCH = 10**6
ByBatch = tuple[tuple[int, tuple[float, ...]], ...]


@dataclass(frozen=True, slots=True)
class Host:
    """A machine that several nodes share: so many of their stages compute side by side, and what each other stage adds to one.

    `message_s` is what reading the message to a stage keeps one of its cores busy for."""

    host_id: str
    stages_at_once: int = 1
    neighbour_share: float = 0.0
    message_s: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.stages_at_once <= MOST_BATCH:
            raise InvalidInput(f"host {self.host_id!r} has stages_at_once {self.stages_at_once}: it must lie in [1, {MOST_BATCH}]")
        if not 0 <= self.neighbour_share <= 1e6:
            raise InvalidInput(f"host {self.host_id!r} has neighbour_share {self.neighbour_share}: it must lie in [0, 1e6]")
        if not 0 <= self.message_s <= 1e6:
            raise InvalidInput(f"host {self.host_id!r} has message_s {self.message_s}: it must lie in [0, 1e6]")


@dataclass(frozen=True, slots=True)
class Steps:
    """`in_flight` steps under way, each with so many rows on average, and the same rows once more in one that `runs_ahead` of them."""

    in_flight: int
    rows: float
    runs_ahead: bool = False

    @property
    def num_trips(self) -> int:
        """Steps that share a round trip."""
        return self.in_flight + self.runs_ahead

    @property
    def per_token(self) -> float:
        """Steps for one token."""
        return 1.0 / self.rows

    @property
    def most_rows(self) -> int:
        """What the largest of them carries."""
        return math.ceil(self.rows)


ONE_STEP = Steps(1, 1.0)


def steps_of(sessions: int, lanes: int, runs_ahead: bool = False) -> Steps:
    """How `sessions` share steps on so many lanes; more than a step holds take turns."""
    in_flight = min(sessions, lanes)
    return Steps(in_flight, min(sessions / in_flight, float(MOST_ROWS)), runs_ahead)


def num_lanes(host_of: Sequence[str], at_once: Mapping[str, int]) -> int:
    """Steps worth having in flight for stages on these hosts; "" is a host of its own each time."""
    shared = Counter(host for host in host_of if host)
    alone = len(host_of) - shared.total()
    busy = alone + sum(min(count, at_once[host]) for host, count in shared.items())
    return busy + (alone + len(shared) > 1)


def lanes_by_stages(host_of: Sequence[str], at_once: Mapping[str, int]) -> dict[int, set[int]]:
    """Number of stages -> the numbers of lanes that so many of these nodes can have."""
    shared = Counter(host for host in host_of if host)
    alone = len(host_of) - shared.total()
    if not shared:
        return {count: {count + (count > 1)} for count in range(1, alone + 1)}
    found = {(count, min(count, 2), count) for count in range(alone + 1)}  # stages, hosts (two is many), stages at once
    for host, size in shared.items():
        more = [(k, min(k, at_once[host])) for k in range(1, size + 1)]
        found |= {(count + k, min(hosts + 1, 2), busy + b) for count, hosts, busy in found for k, b in more}
    lanes: dict[int, set[int]] = {}
    for count, hosts, busy in found:
        if count:
            lanes.setdefault(count, set()).add(busy + (hosts > 1))
    return lanes


def times_at(by_batch: ByBatch, rows: float, factor: float = 1.0) -> tuple[float, ...]:
    """Each item's seconds in a step of so many rows, as the cost model finds them; inf where it cannot run."""
    batches = [batch for batch, _ in by_batch]
    columns = zip(*(times for _, times in by_batch), strict=True)
    return tuple(factor * work_s(column, batches, rows) if column[0] < math.inf else math.inf for column in columns)


def neighbour_factors(hosts: Iterable[Host], host_of: Sequence[str], used: Iterable[int]) -> tuple[float, ...]:
    """What each node's times are multiplied with while these nodes compute; `host_of` is each node's host."""
    counts, share = Counter(host_of[u] for u in used), {host.host_id: host.neighbour_share for host in hosts}
    return tuple(1.0 + share[host] * max(0, counts[host] - 1) if host else 1.0 for host in host_of)


def host_load_s(hosts: Iterable[Host], stages: Iterable[tuple[str, float]]) -> float:
    """The most that one host has to do for a step, in seconds of all that it does side by side; `stages` are (host, seconds)."""
    loads: dict[str, list[float]] = {}
    for host_id, time_s in stages:
        loads.setdefault(host_id, []).append(time_s)
    each = ((host, loads.get(host.host_id, [])) for host in hosts)
    return max((math.fsum([*times, len(times) * host.message_s]) / host.stages_at_once for host, times in each), default=0.0)


def check_batches(node_id: str, time_s: Sequence[float], by_batch: ByBatch) -> None:
    """Raise InvalidInput unless the batches rise from 1 and agree with `time_s` and with each other."""
    batches = [batch for batch, _ in by_batch]
    if not batches or batches[0] != 1 or any(b <= a for a, b in pairwise(batches)) or batches[-1] > MOST_BATCH:
        raise InvalidInput(f"node {node_id} has time_s_by_batch for batches {batches[:8]}: they must rise from 1, to {MOST_BATCH} at most")
    if by_batch[0][1] != tuple(time_s):
        raise InvalidInput(f"node {node_id} has a time_s that differs from its time_s_by_batch for batch 1: leave one of them out")
    for batch, times in by_batch:
        if len(times) != len(time_s):
            raise InvalidInput(f"node {node_id} has {len(times)} item times for batch {batch}, the model has {len(time_s)} items")
        if any(math.isnan(t) or t < 0 for t in times):
            raise InvalidInput(f"node {node_id} has a negative or undefined item time for batch {batch}: measure it again")
        wrong = next((i for i, (t, one) in enumerate(zip(times, time_s, strict=True)) if (t < math.inf) != (one < math.inf)), None)
        if wrong is not None:
            raise InvalidInput(f"node {node_id} can run item {wrong} in some batches only: a node runs an item in all of them or in none")


def check_hosts(hosts: Iterable[Host], host_of: Mapping[str, str]) -> None:
    """Raise InvalidInput for a host that is given twice, or that a node is on and nobody describes."""
    ids = [host.host_id for host in hosts]
    if len(set(ids)) != len(ids):
        raise InvalidInput(f"host {next(i for i in ids if ids.count(i) > 1)!r} is given twice: names must differ")
    for node_id, host_id in host_of.items():
        if host_id and host_id not in ids:
            raise InvalidInput(f"node {node_id} is on host {host_id!r}: the hosts are {', '.join(sorted(ids)) or 'none'}")
