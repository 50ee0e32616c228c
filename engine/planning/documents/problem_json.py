"""A planning problem as a JSON document, read and written: `read_problem(problem_to_json(p)) == p`. Every refusal names the place,
the value and what is allowed.

The format is that of DESIGN 12: items, nodes, links, node_order, link_cost, return_hop, sessions, context_tokens, in_flight,
use_all_nodes; besides `time_s_by_batch` at nodes, `hosts` (with `host` at nodes), `memory_pools` (with `memory_pool` at nodes),
`buffer_bytes` at nodes, `workspace_bytes` and `tied_bytes` at items, and `constraints`. Items are named by index or by name, nodes
by id. null in `time_s` means that the node cannot run the item; no `memory_bytes` means no limit. Two tied items share
min(weight_bytes) unless `tied_bytes` says. A link listed in one direction only holds for both; nodes without a listed link cannot be
neighbours.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

from engine.data.errors import InvalidInput
from engine.data.json_text import exact_json
from engine.data.model import Item
from engine.planning.constraints import PlanningConstraints
from engine.planning.documents.document_values import check_keys, choice, count, flag, list_of, nearest, number, seconds, shown, text
from engine.planning.load import MOST_BATCH, ByBatch, Host
from engine.planning.problem import (
    LINK_COSTS,
    MAX_ITEMS,
    MAX_NODES,
    MOST_BYTES,
    MOST_ERROR,
    MOST_PRICE,
    MOST_SECONDS,
    OVERLAPPED,
    STREAMED,
    CoordinatorLink,
    Link,
    MemoryPool,
    PairLink,
    PlanningNode,
    Problem,
)

MOST_BATCHES = 64
_PROBLEM = (
    "items",
    "nodes",
    "links",
    "coordinator_links",
    "node_order",
    "link_cost",
    "return_hop",
    "sessions",
    "context_tokens",
    "in_flight",
    "use_all_nodes",
    "memory_pools",
    "hosts",
    "constraints",
)
_ITEM = ("name", "weight_bytes", "kv_bytes_per_token", "output_bytes", "tied_to", "tied_bytes", "workspace_bytes")
_TIMES = ("time_s", "time_s_by_batch", "stage_time_s", "base_s", "time_error")
_NODE = ("id", "memory_bytes", "price_per_s", *_TIMES, "buffer_bytes", "memory_pool", "host")
_HOST = ("id", "stages_at_once", "neighbour_share", "message_s")
_LINK = ("latency_s", "bandwidth_bytes_per_s")
_CONSTRAINTS = (
    "pins",
    "forbidden_nodes",
    "max_stages",
    "min_stages",
    "min_items_per_stage",
    "max_items_per_stage",
    "memory_reserve_bytes",
    "latency_limit_s",
    "stage_items",
)


def read_problem(text: str) -> Problem:
    """The problem in a JSON text; raises InvalidInput."""
    try:
        document = json.loads(text.removeprefix("\ufeff"), object_pairs_hook=_no_doubles, parse_constant=_constant)
    except (json.JSONDecodeError, RecursionError) as e:
        raise InvalidInput(f"the problem is not JSON: {e}") from None
    except ValueError as e:
        raise InvalidInput(f"the problem cannot be read: {e}") from None
    return problem_from(document)


def problem_from(document: Any) -> Problem:
    """The problem in a parsed document; raises InvalidInput."""
    check_keys("the problem", document, _PROBLEM, required=("items", "nodes"))
    raw_items = list_of("items", document["items"], MAX_ITEMS)
    raw_nodes = list_of("nodes", document["nodes"], MAX_NODES)
    for i, raw in enumerate(raw_items):
        check_keys(f"items[{i}]", raw, _ITEM)
    names = [text(f"items[{i}].name", raw.get("name", f"item {i}")) for i, raw in enumerate(raw_items)]
    nodes = tuple(_node(f"nodes[{u}]", raw, len(raw_items)) for u, raw in enumerate(raw_nodes))
    in_flight, is_batched = count("in_flight", document.get("in_flight", 1), 1), any(node.time_s_by_batch for node in nodes)
    return Problem(
        tuple(_item(i, raw, raw_items, names) for i, raw in enumerate(raw_items)),
        nodes,
        links=_links(document.get("links"), [node.node_id for node in nodes]),
        free_order=choice("node_order", document.get("node_order", "free"), ("free", "given")) == "free",
        link_cost=choice("link_cost", document.get("link_cost", STREAMED if is_batched else OVERLAPPED), LINK_COSTS),
        return_hop=flag("return_hop", document.get("return_hop", True)),
        sessions=count("sessions", document.get("sessions", in_flight if is_batched else 1), 1),
        context_tokens=count("context_tokens", document.get("context_tokens", 0), 0),
        in_flight=in_flight,
        use_all_nodes=flag("use_all_nodes", document.get("use_all_nodes", False)),
        pools=_pools(document.get("memory_pools", [])),
        workspace_bytes=_workspace(raw_items),
        constraints=constraints_from(document.get("constraints", {}), names),
        coordinator=_coordinator_links(document.get("coordinator_links", [])),
        hosts=_hosts(document.get("hosts", [])),
    )


def constraints_from(raw: Any, item_names: list[str]) -> PlanningConstraints:
    """The `constraints` object; `pins` is {item name or index: node id}."""
    check_keys("constraints", raw, _CONSTRAINTS)
    where = "constraints."
    pins, limit_s = raw.get("pins", {}), raw.get("latency_limit_s")
    if not isinstance(pins, dict):
        raise InvalidInput(f"constraints.pins is {shown(pins)}: give an object of item: node id")
    optional = {
        key: count(where + key, raw[key], 1) for key in ("max_stages", "min_stages", "max_items_per_stage") if raw.get(key) is not None
    }
    return PlanningConstraints(
        pins=tuple((_item_index(f"constraints.pins {k!r}", k, item_names), text(where + "pins", v)) for k, v in pins.items()),
        forbidden_nodes=tuple(
            text(where + "forbidden_nodes", x) for x in list_of(where + "forbidden_nodes", raw.get("forbidden_nodes", []), MAX_NODES, 0)
        ),
        min_items_per_stage=count(where + "min_items_per_stage", raw.get("min_items_per_stage", 1), 1),
        memory_reserve_bytes=number(where + "memory_reserve_bytes", raw.get("memory_reserve_bytes", 0), MOST_BYTES),
        latency_limit_s=math.inf if limit_s is None else number(where + "latency_limit_s", limit_s, MOST_SECONDS),
        stage_items=tuple(
            count(where + "stage_items", x, 1) for x in list_of(where + "stage_items", raw.get("stage_items", []), MAX_NODES, 0)
        ),
        **optional,
    )


# --- items, nodes, links ----------------------------------------------------------------------------------------
def _item(i: int, raw: dict[str, Any], raw_items: list[Any], names: list[str]) -> Item:
    where = f"items[{i}]."
    sizes = {key: number(where + key, raw.get(key, 0), MOST_BYTES) for key in ("weight_bytes", "kv_bytes_per_token", "output_bytes")}
    tied_to, tied_bytes = raw.get("tied_to"), 0.0
    if tied_to is not None:
        tied_to = _item_index(where + "tied_to", tied_to, names)
        if tied_to == i:
            raise InvalidInput(f"{where}tied_to is the item itself: name the other item that shares its tensor")
        other = number(f"items[{tied_to}].weight_bytes", raw_items[tied_to].get("weight_bytes", 0), MOST_BYTES)
        shared = min(sizes["weight_bytes"], other)
        tied_bytes = shared if raw.get("tied_bytes") is None else number(where + "tied_bytes", raw["tied_bytes"], MOST_BYTES)
        if tied_bytes > shared:
            raise InvalidInput(
                f"{where}tied_bytes is {tied_bytes:g}: a shared tensor is at most the smaller item's weight_bytes, {shared:g}"
            )
    elif raw.get("tied_bytes"):
        raise InvalidInput(f"{where}tied_bytes is given without tied_to: name the item that shares the tensor")
    return Item(names[i], sizes["weight_bytes"], sizes["kv_bytes_per_token"], sizes["output_bytes"], tied_to, tied_bytes)  # type: ignore[arg-type]


def _item_index(where: str, value: Any, names: list[str]) -> int:
    if isinstance(value, str):
        if names.count(value) > 1:
            raise InvalidInput(f"{where} is {shown(value)}: several items have this name, so give the index of the one that is meant")
        if value in names:
            return names.index(value)
        if value.isascii() and value.isdigit() and int(value[:9]) < len(names):
            return int(value[:9])
        raise InvalidInput(f"{where} is {shown(value)}: there is no such item{nearest(value, names)}")
    index = count(where, value, 0)
    if index >= len(names):
        raise InvalidInput(f"{where} is {index}: the items are 0 to {len(names) - 1}")
    return index


def _node(where: str, raw: Any, num_items: int) -> PlanningNode:
    check_keys(where, raw, _NODE, required=("id",))
    node_id = text(f"{where}.id", raw["id"])
    if ("time_s" in raw or "time_s_by_batch" in raw) == ("stage_time_s" in raw):
        raise InvalidInput(f"{where} ({node_id}) needs either time_s (one time per item) or stage_time_s (one per stage length)")
    by_batch = _by_batch(f"{where}.time_s_by_batch", raw)
    key = "stage_time_s" if "stage_time_s" in raw else "time_s"
    times = _times(f"{where}.{key}", raw[key]) if key in raw else by_batch[0][1]
    for name, given in ((f"{where}.{key}", times), *((f"{where}.time_s_by_batch {batch}", given) for batch, given in by_batch)):
        if key == "time_s" and len(given) != num_items:
            raise InvalidInput(f"{name} has {len(given)} times, the problem has {num_items} items")
    memory = raw.get("memory_bytes")
    return PlanningNode(
        node_id,
        math.inf if memory is None else number(f"{where}.memory_bytes", memory, MOST_BYTES, endless=True),
        price_per_s=number(f"{where}.price_per_s", raw.get("price_per_s", 0), MOST_PRICE),
        buffer_bytes=number(f"{where}.buffer_bytes", raw.get("buffer_bytes", 0), MOST_BYTES),
        base_s=number(f"{where}.base_s", raw.get("base_s", 0), MOST_SECONDS),
        time_error=number(f"{where}.time_error", raw.get("time_error", 0), MOST_ERROR),
        pool_id=None if raw.get("memory_pool") is None else text(f"{where}.memory_pool", raw["memory_pool"]),
        host_id="" if raw.get("host") is None else text(f"{where}.host", raw["host"]),
        time_s=times if key == "time_s" else (),
        stage_time_s=times if key == "stage_time_s" else (),
        time_s_by_batch=by_batch,
    )


def _times(where: str, raw: Any) -> tuple[float, ...]:
    return tuple(seconds(f"{where}[{i}]", x) for i, x in enumerate(list_of(where, raw, MAX_ITEMS)))


def _by_batch(where: str, node: dict[str, Any]) -> ByBatch:
    """Times of steps with 1 row and with more, the fewest rows first; those with 1 row may be the node's `time_s`."""
    raw = node.get("time_s_by_batch")
    if raw is None:
        return ()
    if not isinstance(raw, dict) or not raw:
        raise InvalidInput(f"{where} is {shown(raw)}: it must be an object of rows: item times")
    if len(raw) > MOST_BATCHES:
        raise InvalidInput(f"{where} has {len(raw)} entries: at most {MOST_BATCHES} are allowed")
    found = {1: _times(where, node["time_s"])} if "time_s" in node and "1" not in raw else {}
    for rows, times in raw.items():
        if not (rows.isascii() and rows.isdigit() and 0 < int(rows[:9]) <= MOST_BATCH and len(rows) < 9 and rows[0] != "0"):
            raise InvalidInput(f"{where} has the key {shown(rows)}: it must be a number of rows from 1 to {MOST_BATCH}")
        found[int(rows)] = _times(f"{where} {rows}", times)
    if 1 not in found:
        raise InvalidInput(f'{where} has no times of steps with 1 row: add them as "1", or as time_s')
    return tuple(sorted(found.items()))


def _links(raw: Any, node_ids: list[str]) -> Link | tuple[PairLink, ...]:
    if raw is None:
        return Link()
    if isinstance(raw, dict):
        return _link("links", raw, _LINK)
    pairs: dict[tuple[str, str], PairLink] = {}
    for k, pair in enumerate(list_of("links", raw, MAX_NODES**2, 0)):
        where = f"links[{k}]"
        link = _link(where, pair, ("from", "to", *_LINK))
        ends = tuple(text(f"{where}.{key}", pair.get(key)) for key in ("from", "to"))
        for key, node_id in zip(("from", "to"), ends, strict=True):
            if node_id not in node_ids:
                raise InvalidInput(f"{where}.{key} is {shown(node_id)}: there is no such node{nearest(node_id, node_ids)}")
        if ends[0] == ends[1]:
            raise InvalidInput(f"{where} leads from {ends[0]} to itself: name two nodes")
        if ends in pairs:
            raise InvalidInput(f"{where} gives the link from {ends[0]} to {ends[1]} a second time: keep one")
        pairs[ends[0], ends[1]] = PairLink(ends[0], ends[1], link)
    return tuple(pairs.values())


def _coordinator_links(raw: Any) -> tuple[CoordinatorLink, ...]:
    """One per node, or none; that they fit the nodes is the problem's to check."""
    found = []
    for k, entry in enumerate(list_of("coordinator_links", raw, MAX_NODES, 0)):
        where, ways = f"coordinator_links[{k}]", ("to_node", "from_node")
        check_keys(where, entry, ["node", *ways], required=("node", *ways))
        links = [_link(f"{where}.{way}", entry[way], _LINK) for way in ways]
        found.append(CoordinatorLink(text(f"{where}.node", entry["node"]), *links))
    return tuple(found)


def _link(where: str, raw: Any, known: Iterable[str]) -> Link:
    check_keys(where, raw, known)
    bandwidth = raw.get("bandwidth_bytes_per_s")
    speed = math.inf if bandwidth is None else number(f"{where}.bandwidth_bytes_per_s", bandwidth, MOST_BYTES, endless=True)
    if not speed > 0:
        raise InvalidInput(f"{where}.bandwidth_bytes_per_s is 0: it must be more than 0; leave the link out if there is none")
    return Link(number(f"{where}.latency_s", raw.get("latency_s", 0), MOST_SECONDS), speed)


def _pools(raw: Any) -> tuple[MemoryPool, ...]:
    pools = []
    for k, pool in enumerate(list_of("memory_pools", raw, MAX_NODES, 0)):
        where = f"memory_pools[{k}]"
        check_keys(where, pool, ["id", "memory_bytes"], required=("id", "memory_bytes"))
        size = number(f"{where}.memory_bytes", pool["memory_bytes"], MOST_BYTES)
        pools.append(MemoryPool(text(f"{where}.id", pool["id"]), size))
    return tuple(pools)


def _hosts(raw: Any) -> tuple[Host, ...]:
    hosts = []
    for k, host in enumerate(list_of("hosts", raw, MAX_NODES, 0)):
        where = f"hosts[{k}]"
        check_keys(where, host, _HOST, required=("id",))
        at_once = count(f"{where}.stages_at_once", host.get("stages_at_once", 1), 1)
        shares = (number(f"{where}.{key}", host.get(key, 0), 1e6) for key in ("neighbour_share", "message_s"))
        hosts.append(Host(text(f"{where}.id", host["id"]), at_once, *shares))
    return tuple(hosts)


def _workspace(raw_items: list[Any]) -> tuple[float, ...]:
    sizes = tuple(number(f"items[{i}].workspace_bytes", raw.get("workspace_bytes", 0), MOST_BYTES) for i, raw in enumerate(raw_items))
    return sizes if any(sizes) else ()


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {shown(next(k for k in keys if keys.count(k) > 1))} is given twice in one object")
    return found


def _constant(name: str) -> float:
    if name == "Infinity":
        return math.inf
    raise ValueError(f"{name} is not a number that can be planned with")


# --- the other way ----------------------------------------------------------------------------------------------
def problem_to_json(problem: Problem) -> str:
    """ASCII; what has no limit is left out, what cannot run is null."""
    return exact_json(problem_document(problem))


def problem_document(problem: Problem) -> dict[str, Any]:
    """The same before it is text. Pins name their item by index, or by name where an item is called like that number."""
    workspace = problem.workspace_bytes or (0,) * len(problem.items)
    links: Any = problem.links
    if not isinstance(links, Link):
        links = [{"from": p.from_id, "to": p.to_id, **_link_of(p.link)} for p in links]
    return {
        "items": [_item_of(item) | _given(workspace_bytes=size) for item, size in zip(problem.items, workspace, strict=True)],
        "nodes": [_node_of(node) for node in problem.nodes],
        "links": _link_of(links) if isinstance(links, Link) else links,
        "node_order": "free" if problem.free_order else "given",
        "link_cost": problem.link_cost,
        **_given(coordinator_links=[_coordinator_of(c) for c in problem.coordinator]),
        "return_hop": problem.return_hop,
        "sessions": problem.sessions,
        "context_tokens": problem.context_tokens,
        "in_flight": problem.in_flight,
        "use_all_nodes": problem.use_all_nodes,
        "memory_pools": [{"id": pool.pool_id, "memory_bytes": pool.memory_bytes} for pool in problem.pools],
        **_given(
            hosts=[
                {"id": h.host_id, "stages_at_once": h.stages_at_once, "neighbour_share": h.neighbour_share, "message_s": h.message_s}
                for h in problem.hosts
            ]
        ),
        "constraints": _constraints_of(problem),
    }


def _item_of(item: Item) -> dict[str, Any]:
    tie = {} if item.tied_to is None else {"tied_to": item.tied_to, "tied_bytes": item.tied_bytes}
    sizes = {"kv_bytes_per_token": item.kv_bytes_per_token, "output_bytes": item.output_bytes_per_token}
    return {"name": item.name, "weight_bytes": item.weight_bytes, **sizes, **tie}


def _node_of(node: PlanningNode) -> dict[str, Any]:
    key, times = ("stage_time_s", node.stage_time_s) if node.stage_time_s else ("time_s", node.time_s)
    given = _given(base_s=node.base_s, price_per_s=node.price_per_s, buffer_bytes=node.buffer_bytes, memory_pool=node.pool_id)
    memory = _finite(memory_bytes=node.memory_bytes)
    by_batch = {str(rows): _or_null(times) for rows, times in node.time_s_by_batch}
    timed = {"time_s_by_batch": by_batch} if by_batch else {key: _or_null(times)}
    return {"id": node.node_id, **memory, **given, **_given(host=node.host_id, time_error=node.time_error), **timed}


def _or_null(times: Iterable[float]) -> list[float | None]:
    return [time_s if math.isfinite(time_s) else None for time_s in times]


def _link_of(link: Link) -> dict[str, Any]:
    return {"latency_s": link.latency_s, **_finite(bandwidth_bytes_per_s=link.bandwidth_bytes_per_s)}


def _coordinator_of(c: CoordinatorLink) -> dict[str, Any]:
    return {"node": c.node_id, "to_node": _link_of(c.to_node), "from_node": _link_of(c.from_node)}


def _constraints_of(problem: Problem) -> dict[str, Any]:
    asked, names = problem.constraints, [item.name for item in problem.items]
    pins = {names[index] if str(index) in names else str(index): node_id for index, node_id in asked.pins}
    most = {"max_stages": asked.max_stages, "max_items_per_stage": asked.max_items_per_stage, "stage_items": list(asked.stage_items)}
    return {
        **_given(pins=pins, forbidden_nodes=list(asked.forbidden_nodes), memory_reserve_bytes=asked.memory_reserve_bytes, **most),
        **_finite(latency_limit_s=asked.latency_limit_s),
        **({"min_stages": asked.min_stages} if asked.min_stages > 1 else {}),
        "min_items_per_stage": asked.min_items_per_stage,
    }


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value}


def _finite(**values: float) -> dict[str, float]:
    return {name: value for name, value in values.items() if math.isfinite(value)}
