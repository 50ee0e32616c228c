"""The slow truth: every order, subset and cut of a small problem, priced from the definitions and nothing else.

It shares no code with the solvers: it reads the raw fields of a Problem. `random_problem` draws values that are small
multiples of powers of two, so that every sum is exact in floating point and whole keys can be compared with ==.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

from engine.data.model import Item
from engine.planning.constraints import PlanningConstraints
from engine.planning.load import Host
from engine.planning.problem import CoordinatorLink, Link, MemoryPool, PairLink, PlanningNode, Problem

Cuts = tuple[tuple[int, int, int], ...]
ITEM_SIZES = ("weight_bytes", "kv_bytes_per_token", "output_bytes_per_token", "tied_bytes")


class Reference:
    """All placements of one problem that satisfy its limits, with what each costs."""

    def __init__(self, problem: Problem) -> None:
        self.p, self.n = problem, len(problem.items)
        self.shared = self._tie_groups()
        self.bytes = {(a, b): self._bytes(a, b) for a in range(self.n) for b in range(a + 1, self.n + 1)}
        self.pins = dict(problem.constraints.pins)
        self.rows = [(cuts, *self.price(cuts)) for cuts in self._placements((), 0) if self._allowed(cuts)]
        self.rows = [row for row in self.rows if row[2] * row[7] <= problem.constraints.latency_limit_s]

    def _tie_groups(self) -> list[tuple[set[int], float]]:
        groups: list[set[int]] = []
        for i, item in enumerate(self.p.items):
            if item.tied_to is not None:
                joined = {i, item.tied_to}
                for group in [g for g in groups if g & joined]:
                    groups.remove(group)
                    joined |= group
                groups.append(joined)
        items = self.p.items
        return [(g, min(max(items[i].tied_bytes for i in g), min(items[i].weight_bytes for i in g))) for g in groups]

    def _bytes(self, a: int, b: int) -> float:
        p, total = self.p, 0
        for i in range(a, b):
            total += p.items[i].weight_bytes + p.items[i].kv_bytes_per_token * p.sessions * p.context_tokens
        for group, size in self.shared:
            inside = sum(a <= i < b for i in group)
            total -= size * (inside - 1) if inside > 1 else 0
        return total + max(p.workspace_bytes[a:b], default=0)

    def _stage_s(self, u: int, a: int, b: int, rows: float = 1, beside: int = 0) -> float:
        node = self.p.nodes[u]
        if node.time_s_by_batch:
            share = next((host.neighbour_share for host in self.p.hosts if host.host_id == node.host_id), 0)
            return (node.base_s + sum(_at_rows(node.time_s_by_batch, i, rows) for i in range(a, b))) * (1 + share * beside)
        if node.stage_time_s:
            return node.stage_time_s[b - a - 1] if b - a <= len(node.stage_time_s) else math.inf
        return node.base_s + sum(node.time_s[a:b])

    def _link(self, u: int, v: int) -> Link | None:
        if isinstance(self.p.links, Link):
            return self.p.links
        ids = (self.p.nodes[u].node_id, self.p.nodes[v].node_id)
        for wanted in (ids, ids[::-1]):
            for pair in self.p.links:
                if (pair.from_id, pair.to_id) == wanted:
                    return pair.link
        return None

    def _placements(self, cuts: Cuts, start: int) -> Iterator[Cuts]:
        """Chains of distinct nodes whose single stages are allowed and whose neighbours are connected."""
        if start == self.n:
            yield cuts
            return
        c = self.p.constraints
        for u, node in enumerate(self.p.nodes):
            if any(u == v for v, _, _ in cuts) or node.node_id in c.forbidden_nodes:
                continue
            if cuts and ((not self.p.free_order and u < cuts[-1][0]) or self._link(cuts[-1][0], u) is None):
                continue
            for stop in range(start + c.min_items_per_stage, min(self.n, start + (c.max_items_per_stage or self.n)) + 1):
                if self.bytes[start, stop] + node.buffer_bytes > node.memory_bytes - c.memory_reserve_bytes:
                    continue
                if self._stage_s(u, start, stop) == math.inf or any(
                    self.pins.get(i, node.node_id) != node.node_id for i in range(start, stop)
                ):
                    continue
                yield from self._placements((*cuts, (u, start, stop)), stop)

    def _allowed(self, cuts: Cuts) -> bool:
        p, c = self.p, self.p.constraints
        if not c.min_stages <= len(cuts) <= (c.max_stages or len(cuts)):
            return False
        if c.stage_items and tuple(b - a for _, a, b in cuts) != c.stage_items:
            return False
        if p.use_all_nodes and len(cuts) != len([n for n in p.nodes if n.node_id not in c.forbidden_nodes]):
            return False
        if p.return_hop and not p.coordinator and len(cuts) > 1 and self._link(cuts[-1][0], cuts[0][0]) is None:
            return False
        return all(used <= room for used, room in self._pool_use(cuts))

    def _pool_use(self, cuts: Cuts) -> list[tuple[float, float]]:
        p = self.p
        return [
            (sum(self.bytes[a, b] + p.nodes[u].buffer_bytes for u, a, b in cuts if p.nodes[u].pool_id == pool.pool_id), pool.memory_bytes)
            for pool in p.pools
        ]

    def _steps(self, cuts: Cuts) -> tuple[int, Fraction]:
        """(steps that share a round trip, rows of each) of the load; one more than around where one runs ahead of a single stage."""
        p = self.p
        if not p.nodes[0].time_s_by_batch:
            return p.in_flight, Fraction(1)
        homes = [p.nodes[u].host_id or f"own {u}" for u, _, _ in cuts]
        able = {host.host_id: host.stages_at_once for host in p.hosts}
        lanes = sum(min(homes.count(home), able.get(home, 1)) for home in set(homes)) + (1 if len(set(homes)) > 1 else 0)
        in_flight = min(p.in_flight, lanes)
        return in_flight + (len(cuts) == 1), min(Fraction(p.in_flight, in_flight), Fraction(128))

    def price(self, cuts: Cuts) -> tuple[list[float], float, float, float, float, int, float]:
        """(stage costs, round trip, sum of squares, memory ratio, price, steps in flight, rows of each) by definition.

        All times are of one token: those of a step over its rows."""
        p = self.p
        costs, trip, squares, ratio = [], 0, 0, 0
        in_flight, rows = self._steps(cuts)
        most = math.ceil(rows)  # of the largest step, which all others come around with
        homes = [p.nodes[u].host_id for u, _, _ in cuts]
        busy = dict.fromkeys(homes, 0)
        for k, (u, a, b) in enumerate(cuts):
            beside = homes.count(homes[k]) - 1 if homes[k] else 0
            s, largest, h, held = self._stage_s(u, a, b, rows, beside), self._stage_s(u, a, b, most, beside), 0, 0
            busy[homes[k]] += s + next((host.message_s for host in p.hosts if host.host_id == homes[k]), 0)
            if k + 1 < len(cuts):
                link = self._link(u, cuts[k + 1][0])
                h = held = _transfer_s(link, p.items[b - 1].output_bytes_per_token * most)
                if p.link_cost == "streamed":
                    held = _transfer_s(link, p.items[b - 1].output_bytes_per_token * rows) - link.latency_s
            costs.append(s + h if p.link_cost == "additive" else max(s, held))
            trip, squares = trip + largest + h, squares + s * s
            used, room = self.bytes[a, b] + p.nodes[u].buffer_bytes, p.nodes[u].memory_bytes - p.constraints.memory_reserve_bytes
            ratio = max(ratio, used / room if used and room < math.inf else 0)
        if p.return_hop and p.coordinator:
            ways = {c.node_id: c for c in p.coordinator}
            for link in (ways[p.nodes[cuts[0][0]].node_id].to_node, ways[p.nodes[cuts[-1][0]].node_id].from_node):
                trip += _transfer_s(link, 4)
        elif p.return_hop and len(cuts) > 1:
            link = self._link(cuts[-1][0], cuts[0][0])
            trip += _transfer_s(link, 4)
        ratio = max([ratio, *(used / room for used, room in self._pool_use(cuts) if used and room < math.inf)])
        crowded = max((busy.get(host.host_id, 0) / host.stages_at_once for host in p.hosts), default=0)
        costs[costs.index(max(costs))] = max(*costs, crowded)
        each = [cost / rows for cost in costs] if rows != 1 else costs
        price = sum(p.nodes[u].price_per_s for u, _, _ in cuts)
        if rows == 1:
            return costs, trip, squares, ratio, price, in_flight, 1
        return each, trip / rows, squares / rows**2, ratio, price, in_flight, rows

    def key(self, strategy: str, row: tuple) -> tuple:
        """What `strategy` minimises, in order, of one row."""
        cuts, costs, trip, squares, ratio, price, in_flight, _ = row
        period = max(max(costs), trip / in_flight)
        return {
            "balanced": (-len(cuts), max(costs), squares, trip),
            "bottleneck_first": (sorted(costs, reverse=True), len(cuts)),
            "memory_aware": (ratio, max(costs)),
            "auto": (period, max(costs)),
            "latency_optimized": (period, max(costs)),
            "cost": (price * period, len(cuts), period),
        }[strategy]

    def best(self, strategy: str) -> tuple | None:
        """The smallest key, None if nothing is feasible."""
        rows = self.rows
        if strategy == "memory_aware" and rows:
            within = 1.05 * min(max(row[1]) for row in rows)
            rows = [row for row in rows if max(row[1]) <= within]
        return min((self.key(strategy, row) for row in rows), default=None)

    def key_of(self, strategy: str, cuts: Cuts) -> tuple:
        """The key of a solver's placement, which must be among the feasible ones."""
        assert cuts in [row[0] for row in self.rows], f"not a feasible placement: {cuts}"
        return self.key(strategy, (cuts, *self.price(cuts)))


def _at_rows(by_batch: tuple, i: int, rows: Fraction) -> float:
    """Item i's time in a step of so many rows: on the line between two batches; beyond the last on that from a quarter of it."""
    points = [(batch, times[i]) for batch, times in by_batch]
    if points[0][1] == math.inf:
        return math.inf
    if rows <= points[-1][0]:
        (low, a), (high, b) = next(((p, q) for p, q in pairwise(points) if p[0] <= rows <= q[0]), (points[0], points[0]))
        return a if low == high else a + (b - a) * (rows - low) / (high - low)
    last, time = points[-1]
    if len(points) == 1:
        return time * rows
    quarter, before = min(points, key=lambda point: abs(point[0] - Fraction(last, 4)))
    return time + max(0, (time - before) / (last - quarter)) * (rows - last)


def _transfer_s(link: Link, num_bytes: float) -> float:
    return link.latency_s + (num_bytes / link.bandwidth_bytes_per_s if link.bandwidth_bytes_per_s < math.inf else 0)


def exactly(problem: Problem) -> Problem:
    """The same with fractions in place of floats, so that the reference's sums and products are exact."""

    def exact(value: float) -> float:
        return Fraction(value) if isinstance(value, float) and math.isfinite(value) else value  # type: ignore[return-value]

    return _each_number(problem, exact)


def wide_problem(rng: random.Random, most_items: int = 6, most_nodes: int = 4) -> Problem:
    """A random problem in whose every field numbers from 1e-9 to 1e12 stand side by side, or a few that mean "never"."""
    share, low, high = rng.choice([(1.0, -9, 12), (0.3, -9, 12), (0.2, 9, 9), (0.5, -6, 0)])

    def widened(value: float) -> float:
        if isinstance(value, float) and math.isfinite(value) and value > 0 and rng.random() < share:
            return rng.uniform(1.0, 9.99) * 10.0 ** rng.randint(low, high)
        return value

    problem = _each_number(random_problem(rng, most_items, most_nodes), lambda value: widened(float(value)))
    items = tuple(replace(i, tied_bytes=min(i.tied_bytes, i.weight_bytes)) for i in problem.items)
    return replace(problem, items=items)


def _each_number(problem: Problem, change: Callable[[float], float]) -> Problem:
    """The problem with every time, size, price and latency changed."""

    def link(old: Link) -> Link:
        return Link(change(old.latency_s), change(old.bandwidth_bytes_per_s))

    def node(n: PlanningNode) -> PlanningNode:
        times: dict = {name: tuple(map(change, getattr(n, name))) for name in ("time_s", "stage_time_s")}
        times["time_s_by_batch"] = tuple((batch, tuple(map(change, at_batch))) for batch, at_batch in n.time_s_by_batch)
        sizes = {name: change(getattr(n, name)) for name in ("memory_bytes", "price_per_s", "buffer_bytes", "base_s")}
        return replace(n, **times, **sizes)

    def item(i: Item) -> Item:
        return replace(i, **{name: change(getattr(i, name)) for name in ITEM_SIZES})

    links = problem.links
    return replace(
        problem,
        items=tuple(map(item, problem.items)),
        nodes=tuple(map(node, problem.nodes)),
        links=link(links) if isinstance(links, Link) else tuple(replace(pair, link=link(pair.link)) for pair in links),
        pools=tuple(replace(pool, memory_bytes=change(pool.memory_bytes)) for pool in problem.pools),
        workspace_bytes=tuple(map(change, problem.workspace_bytes)),
        coordinator=tuple(CoordinatorLink(c.node_id, link(c.to_node), link(c.from_node)) for c in problem.coordinator),
        constraints=replace(
            problem.constraints,
            memory_reserve_bytes=change(problem.constraints.memory_reserve_bytes),
            latency_limit_s=change(problem.constraints.latency_limit_s),
        ),
    )


def batched_problem(rng: random.Random, most_items: int = 5, most_nodes: int = 4) -> Problem:
    """The same with sessions that share steps, and in half of the problems with hosts that share nodes."""
    problem = random_problem(rng, most_items, most_nodes)
    n, twins = len(problem.items), rng.random() < 0.3
    batches = rng.choice([(1,), (1, 2), (1, 4), (1, 2, 4), (1, 2, 4, 8), (1, 3, 5)])
    hosts = tuple(
        Host(f"h{k}", rng.randint(1, 3), rng.choice([0.0, 0.0, 0.25, 1.0]), rng.choice([0.0, 0.5])) for k in range(rng.choice([0, 0, 1, 2]))
    )
    growth = rng.choice([0.0, 0.25, 1.0, 2.0])  # of an item's time for a row more

    def node(old: PlanningNode) -> PlanningNode:
        one = tuple(old.time_s or (float(rng.randint(0, 4)) for _ in range(n)))
        by_batch = [(1, one)]
        for batch in batches[1:]:
            more = tuple(t * (1 + growth * (batch - 1)) + (0 if twins else rng.randint(-8, 8) / 32) for t in one)
            by_batch.append((batch, tuple(max(0.0, t) for t in more)))
        home = rng.choice(hosts).host_id if hosts and rng.random() < 0.7 else ""
        return replace(old, time_s=one, stage_time_s=(), time_s_by_batch=tuple(by_batch), host_id=home)

    return replace(
        problem,
        nodes=tuple(map(node, problem.nodes)),
        in_flight=rng.choice([1, 2, 3, 4, 5, 7, 8, 12, 200]),
        link_cost=rng.choice(["streamed", "streamed", "overlapped", "additive"]),
        hosts=hosts,
        constraints=replace(problem.constraints, min_stages=2 if rng.random() < 0.05 else 1),
    )


def random_problem(rng: random.Random, most_items: int = 8, most_nodes: int = 5) -> Problem:
    """Any mixture of features; all figures are multiples of 1/32 and below 64."""
    n, num_nodes = rng.randint(1, most_items), rng.randint(1, most_nodes)
    alike, grid, plain = rng.random() < 0.3, rng.choice([1, 8, 32]), rng.random() < 0.3
    flat = alike and rng.random() < 0.4  # every node's times depend on the number of items only
    pools = () if plain else tuple(MemoryPool(f"p{i}", float(rng.randint(4, 30))) for i in range(rng.choice([0, 0, 0, 1, 2])))
    nodes = tuple(_node(rng, f"n{u}", n, grid, pools, flat) for u in range(num_nodes))
    if rng.random() < 0.3:
        twin = rng.choice(nodes)
        nodes = tuple(replace(twin, node_id=x.node_id) if rng.random() < 0.5 else x for x in nodes)
    tied = not flat and rng.random() < 0.3 and n > 1
    items = tuple(
        Item(
            f"i{i}",
            4 if alike else rng.randint(1, 6),
            0 if flat else rng.choice([0, 0, 1]),
            64 if alike else rng.choice([0, 32, 64, 128]),
            tied_to=(n - 1 if i == 0 else 0) if tied and i in (0, n - 1) and (i or rng.random() < 0.5) else None,
            tied_bytes=1 if tied and i in (0, n - 1) else 0,
        )
        for i in range(n)
    )
    problem = Problem(
        items,
        nodes,
        links=_link(rng) if plain else _links(rng, nodes),
        free_order=plain or rng.random() < 0.7,
        link_cost=rng.choice(["overlapped", "additive"]),
        return_hop=rng.random() < 0.7,
        sessions=rng.randint(1, 2),
        context_tokens=rng.randint(0, 2),
        in_flight=rng.choice([1, 1, 2, 4]),
        use_all_nodes=not plain and rng.random() < 0.15,
        pools=pools,
        workspace_bytes=tuple(float(rng.randint(0, 3)) for _ in range(n)) if rng.random() < 0.2 else (),
        constraints=PlanningConstraints() if plain else _constraints(rng, n, nodes),
    )
    ways = _coordinator(rng, nodes) if rng.random() < 0.3 else ()
    return replace(problem, coordinator=ways, return_hop=problem.return_hop or bool(ways))


def _coordinator(rng: random.Random, nodes: tuple[PlanningNode, ...]) -> tuple[CoordinatorLink, ...]:
    if rng.random() < 0.4:
        same = _link(rng), _link(rng)
        return tuple(CoordinatorLink(node.node_id, *same) for node in nodes)
    return tuple(CoordinatorLink(node.node_id, _link(rng), _link(rng)) for node in nodes)


def _node(rng: random.Random, node_id: str, n: int, grid: int, pools: tuple[MemoryPool, ...], flat: bool) -> PlanningNode:
    def time() -> float:
        return math.inf if rng.random() < 0.03 else rng.randint(0, 4 * grid) / grid

    table = rng.random() < (0.6 if flat else 0.2)
    speed = rng.choice([None if not flat else 1.0, None if not flat else 0.5, rng.randint(1, 4 * grid) / grid])
    return PlanningNode(
        node_id,
        memory_bytes=math.inf if rng.random() < 0.3 else float(rng.randint(2, 50)),
        time_s=() if table else tuple(time() if speed is None else speed for _ in range(n)),
        stage_time_s=tuple(time() for _ in range(rng.randint(1, n))) if table else (),
        price_per_s=rng.randint(0, 4) / 4,
        buffer_bytes=float(rng.choice([0, 0, 1])),
        base_s=0.0 if table or rng.random() < 0.5 else rng.randint(0, 4 * grid) / grid,
        pool_id=rng.choice(pools).pool_id if pools and rng.random() < 0.7 else None,
    )


def _link(rng: random.Random) -> Link:
    return Link(rng.choice([0.0, 1 / 32, 0.25, 1.0]), rng.choice([64.0, 256.0, math.inf]))


def _links(rng: random.Random, nodes: tuple[PlanningNode, ...]) -> Link | tuple[PairLink, ...]:
    if rng.random() < 0.5:
        return _link(rng)
    pairs = [(x.node_id, y.node_id) for x in nodes for y in nodes if x is not y]
    same = _link(rng) if rng.random() < 0.3 else None
    return tuple(PairLink(x, y, same or _link(rng)) for x, y in pairs if rng.random() < 0.9)


def _constraints(rng: random.Random, n: int, nodes: tuple[PlanningNode, ...]) -> PlanningConstraints:
    def some(chance: float) -> bool:
        return rng.random() < chance

    ids = [node.node_id for node in nodes]
    least = rng.randint(1, 2) if some(0.1) else 1
    counts: list[int] = []
    while some(0.7) and sum(counts) < n:
        counts.append(rng.randint(1, n - sum(counts)))
    return PlanningConstraints(
        pins=tuple((rng.randrange(n), rng.choice(ids)) for _ in range(1)) if some(0.12) else (),
        forbidden_nodes=(rng.choice(ids),) if some(0.1) and len(ids) > 1 else (),
        max_stages=rng.randint(1, 3) if some(0.1) else None,
        min_items_per_stage=least,
        max_items_per_stage=rng.randint(least, n + 1) if some(0.1) else None,
        memory_reserve_bytes=1.0 if some(0.1) else 0.0,
        latency_limit_s=rng.randint(1, 400) / 32 if some(0.12) else math.inf,
        stage_items=tuple(counts) if some(0.06) and sum(counts) == n else (),
    )
