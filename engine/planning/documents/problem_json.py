"""A planning problem as a JSON document, read and written: `read_problem(problem_to_json(p)) == p`. Every refusal names the place,
the value and what is allowed.

The format is that of DESIGN 12: items, nodes, links, node_order, link_cost, return_hop, sessions, context_tokens, in_flight,
use_all_nodes; besides `memory_pools` (with `memory_pool` at nodes), `buffer_bytes` at nodes, `workspace_bytes` and
`tied_bytes` at items, and `constraints`. Items are named by index or by name, nodes by id. null in `time_s` means that the
node cannot run the item; no `memory_bytes` means no limit. Two tied items share min(weight_bytes) unless `tied_bytes` says.
A link listed in one direction only holds for both; nodes without a listed link cannot be neighbours.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable
from typing import Any

from engine.data.errors import InvalidInput
from engine.data.json_text import exact_json
from engine.data.model import Item
from engine.planning.constraints import PlanningConstraints
from engine.planning.problem import (
    ADDITIVE,
    MAX_ITEMS,
    MAX_NODES,
    MOST_BYTES,
    MOST_PRICE,
    MOST_SECONDS,
    OVERLAPPED,
    CoordinatorLink,
    Link,
    MemoryPool,
    PairLink,
    PlanningNode,
    Problem,
)

MOST_COUNT = 10**9
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
    "constraints",
)
_ITEM = ("name", "weight_bytes", "kv_bytes_per_token", "output_bytes", "tied_to", "tied_bytes", "workspace_bytes")
_NODE = ("id", "memory_bytes", "price_per_s", "time_s", "stage_time_s", "base_s", "buffer_bytes", "memory_pool")
_LINK = ("latency_s", "bandwidth_bytes_per_s")
_CONSTRAINTS = (
    "pins",
    "forbidden_nodes",
    "max_stages",
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
    _keys("the problem", document, _PROBLEM, required=("items", "nodes"))
    raw_items = _list("items", document["items"], MAX_ITEMS)
    raw_nodes = _list("nodes", document["nodes"], MAX_NODES)
    for i, raw in enumerate(raw_items):
        _keys(f"items[{i}]", raw, _ITEM)
    names = [_text(f"items[{i}].name", raw.get("name", f"item {i}")) for i, raw in enumerate(raw_items)]
    nodes = tuple(_node(f"nodes[{u}]", raw, len(raw_items)) for u, raw in enumerate(raw_nodes))
    return Problem(
        tuple(_item(i, raw, raw_items, names) for i, raw in enumerate(raw_items)),
        nodes,
        links=_links(document.get("links"), [node.node_id for node in nodes]),
        free_order=_choice("node_order", document.get("node_order", "free"), ("free", "given")) == "free",
        link_cost=_choice("link_cost", document.get("link_cost", OVERLAPPED), (OVERLAPPED, ADDITIVE)),
        return_hop=_flag("return_hop", document.get("return_hop", True)),
        sessions=_count("sessions", document.get("sessions", 1), 1),
        context_tokens=_count("context_tokens", document.get("context_tokens", 0), 0),
        in_flight=_count("in_flight", document.get("in_flight", 1), 1),
        use_all_nodes=_flag("use_all_nodes", document.get("use_all_nodes", False)),
        pools=_pools(document.get("memory_pools", [])),
        workspace_bytes=_workspace(raw_items),
        constraints=constraints_from(document.get("constraints", {}), names),
        coordinator=_coordinator_links(document.get("coordinator_links", [])),
    )


def constraints_from(raw: Any, item_names: list[str]) -> PlanningConstraints:
    """The `constraints` object; `pins` is {item name or index: node id}."""
    _keys("constraints", raw, _CONSTRAINTS)
    where = "constraints."
    pins, limit_s = raw.get("pins", {}), raw.get("latency_limit_s")
    if not isinstance(pins, dict):
        raise InvalidInput(f"constraints.pins is {_shown(pins)}: give an object of item: node id")
    optional = {key: _count(where + key, raw[key], 1) for key in ("max_stages", "max_items_per_stage") if raw.get(key) is not None}
    return PlanningConstraints(
        pins=tuple((_item_index(f"constraints.pins {k!r}", k, item_names), _text(where + "pins", v)) for k, v in pins.items()),
        forbidden_nodes=tuple(
            _text(where + "forbidden_nodes", x) for x in _list(where + "forbidden_nodes", raw.get("forbidden_nodes", []), MAX_NODES, 0)
        ),
        min_items_per_stage=_count(where + "min_items_per_stage", raw.get("min_items_per_stage", 1), 1),
        memory_reserve_bytes=_number(where + "memory_reserve_bytes", raw.get("memory_reserve_bytes", 0), MOST_BYTES),
        latency_limit_s=math.inf if limit_s is None else _number(where + "latency_limit_s", limit_s, MOST_SECONDS),
        stage_items=tuple(
            _count(where + "stage_items", x, 1) for x in _list(where + "stage_items", raw.get("stage_items", []), MAX_NODES, 0)
        ),
        **optional,
    )


# --- items, nodes, links ----------------------------------------------------------------------------------------
def _item(i: int, raw: dict[str, Any], raw_items: list[Any], names: list[str]) -> Item:
    where = f"items[{i}]."
    sizes = {key: _number(where + key, raw.get(key, 0), MOST_BYTES) for key in ("weight_bytes", "kv_bytes_per_token", "output_bytes")}
    tied_to, tied_bytes = raw.get("tied_to"), 0.0
    if tied_to is not None:
        tied_to = _item_index(where + "tied_to", tied_to, names)
        if tied_to == i:
            raise InvalidInput(f"{where}tied_to is the item itself: name the other item that shares its tensor")
        other = _number(f"items[{tied_to}].weight_bytes", raw_items[tied_to].get("weight_bytes", 0), MOST_BYTES)
        shared = min(sizes["weight_bytes"], other)
        tied_bytes = shared if raw.get("tied_bytes") is None else _number(where + "tied_bytes", raw["tied_bytes"], MOST_BYTES)
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
            raise InvalidInput(f"{where} is {_shown(value)}: several items have this name, so give the index of the one that is meant")
        if value in names:
            return names.index(value)
        if value.isascii() and value.isdigit() and int(value[:9]) < len(names):
            return int(value[:9])
        raise InvalidInput(f"{where} is {_shown(value)}: there is no such item{_nearest(value, names)}")
    index = _count(where, value, 0)
    if index >= len(names):
        raise InvalidInput(f"{where} is {index}: the items are 0 to {len(names) - 1}")
    return index


def _node(where: str, raw: Any, num_items: int) -> PlanningNode:
    _keys(where, raw, _NODE, required=("id",))
    node_id = _text(f"{where}.id", raw["id"])
    if ("time_s" in raw) == ("stage_time_s" in raw):
        raise InvalidInput(f"{where} ({node_id}) needs either time_s (one time per item) or stage_time_s (one per stage length)")
    key = "time_s" if "time_s" in raw else "stage_time_s"
    times = tuple(_time(f"{where}.{key}[{i}]", x) for i, x in enumerate(_list(f"{where}.{key}", raw[key], MAX_ITEMS)))
    if key == "time_s" and len(times) != num_items:
        raise InvalidInput(f"{where}.time_s has {len(times)} times, the problem has {num_items} items")
    memory = raw.get("memory_bytes")
    return PlanningNode(
        node_id,
        math.inf if memory is None else _number(f"{where}.memory_bytes", memory, MOST_BYTES, endless=True),
        price_per_s=_number(f"{where}.price_per_s", raw.get("price_per_s", 0), MOST_PRICE),
        buffer_bytes=_number(f"{where}.buffer_bytes", raw.get("buffer_bytes", 0), MOST_BYTES),
        base_s=_number(f"{where}.base_s", raw.get("base_s", 0), MOST_SECONDS),
        pool_id=None if raw.get("memory_pool") is None else _text(f"{where}.memory_pool", raw["memory_pool"]),
        **{key: times},
    )


def _links(raw: Any, node_ids: list[str]) -> Link | tuple[PairLink, ...]:
    if raw is None:
        return Link()
    if isinstance(raw, dict):
        return _link("links", raw, _LINK)
    pairs: dict[tuple[str, str], PairLink] = {}
    for k, pair in enumerate(_list("links", raw, MAX_NODES**2, 0)):
        where = f"links[{k}]"
        link = _link(where, pair, ("from", "to", *_LINK))
        ends = tuple(_text(f"{where}.{key}", pair.get(key)) for key in ("from", "to"))
        for key, node_id in zip(("from", "to"), ends, strict=True):
            if node_id not in node_ids:
                raise InvalidInput(f"{where}.{key} is {_shown(node_id)}: there is no such node{_nearest(node_id, node_ids)}")
        if ends[0] == ends[1]:
            raise InvalidInput(f"{where} leads from {ends[0]} to itself: name two nodes")
        if ends in pairs:
            raise InvalidInput(f"{where} gives the link from {ends[0]} to {ends[1]} a second time: keep one")
        pairs[ends[0], ends[1]] = PairLink(ends[0], ends[1], link)
    return tuple(pairs.values())


def _coordinator_links(raw: Any) -> tuple[CoordinatorLink, ...]:
    """One per node, or none; that they fit the nodes is the problem's to check."""
    found = []
    for k, entry in enumerate(_list("coordinator_links", raw, MAX_NODES, 0)):
        where, ways = f"coordinator_links[{k}]", ("to_node", "from_node")
        _keys(where, entry, ["node", *ways], required=("node", *ways))
        links = [_link(f"{where}.{way}", entry[way], _LINK) for way in ways]
        found.append(CoordinatorLink(_text(f"{where}.node", entry["node"]), *links))
    return tuple(found)


def _link(where: str, raw: Any, known: Iterable[str]) -> Link:
    _keys(where, raw, known)
    bandwidth = raw.get("bandwidth_bytes_per_s")
    speed = math.inf if bandwidth is None else _number(f"{where}.bandwidth_bytes_per_s", bandwidth, MOST_BYTES, endless=True)
    if not speed > 0:
        raise InvalidInput(f"{where}.bandwidth_bytes_per_s is 0: it must be more than 0; leave the link out if there is none")
    return Link(_number(f"{where}.latency_s", raw.get("latency_s", 0), MOST_SECONDS), speed)


def _pools(raw: Any) -> tuple[MemoryPool, ...]:
    pools = []
    for k, pool in enumerate(_list("memory_pools", raw, MAX_NODES, 0)):
        where = f"memory_pools[{k}]"
        _keys(where, pool, ["id", "memory_bytes"], required=("id", "memory_bytes"))
        size = _number(f"{where}.memory_bytes", pool["memory_bytes"], MOST_BYTES)
        pools.append(MemoryPool(_text(f"{where}.id", pool["id"]), size))
    return tuple(pools)


def _workspace(raw_items: list[Any]) -> tuple[float, ...]:
    sizes = tuple(_number(f"items[{i}].workspace_bytes", raw.get("workspace_bytes", 0), MOST_BYTES) for i, raw in enumerate(raw_items))
    return sizes if any(sizes) else ()


# --- values -----------------------------------------------------------------------------------------------------
def _keys(where: str, raw: Any, known: Iterable[str], required: tuple[str, ...] = ()) -> None:
    if not isinstance(raw, dict):
        raise InvalidInput(f"{where} is {_shown(raw)}: it must be an object")
    known = list(known)
    for key in raw:
        if key not in known:
            raise InvalidInput(f"{where} has an unknown key {_shown(key)}{_nearest(key, known)}; it may have {', '.join(known)}")
    for key in required:
        if key not in raw:
            raise InvalidInput(f"{where} lacks {key!r}: it must be given")


def _list(where: str, raw: Any, most: int, least: int = 1) -> list[Any]:
    if not isinstance(raw, list):
        raise InvalidInput(f"{where} is {_shown(raw)}: it must be a list")
    if not least <= len(raw) <= most:
        raise InvalidInput(f"{where} has {len(raw)} entries: from {least} to {most} are allowed")
    return raw


def _number(where: str, raw: Any, most: float, endless: bool = False) -> float:
    """A number from 0 to `most`; whole ones stay whole. `endless`: infinity is allowed too."""
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        raise InvalidInput(f"{where} is {_shown(raw)}: it must be a number")
    if endless and raw == math.inf:
        return math.inf
    if not 0 <= raw <= most:
        raise InvalidInput(f"{where} is {_shown(raw)}: it must lie in [0, {most:g}]")
    return int(raw) if raw == int(raw) else raw


def _time(where: str, raw: Any) -> float:
    return math.inf if raw is None else float(_number(where, raw, MOST_SECONDS, endless=True))


def _count(where: str, raw: Any, least: int) -> int:
    value = _number(where, raw, MOST_COUNT)
    if value != int(value) or value < least:
        raise InvalidInput(f"{where} is {_shown(raw)}: it must be a whole number of at least {least}")
    return int(value)


def _text(where: str, raw: Any) -> str:
    if not isinstance(raw, str) or not 1 <= len(raw) <= 64 or not raw.isprintable():
        raise InvalidInput(f"{where} is {_shown(raw)}: it must be a text of 1 to 64 printable characters")
    return raw


def _choice(where: str, raw: Any, choices: tuple[str, ...]) -> str:
    if raw not in choices:
        raise InvalidInput(f"{where} is {_shown(raw)}: it must be {' or '.join(choices)}")
    return str(raw)


def _flag(where: str, raw: Any) -> bool:
    if not isinstance(raw, bool):
        raise InvalidInput(f"{where} is {_shown(raw)}: it must be true or false")
    return raw


def _shown(raw: Any) -> str:
    """A value in an error: short, ASCII, on one line."""
    if isinstance(raw, dict | list):
        return f"{'an object' if isinstance(raw, dict) else 'a list'} of {len(raw)}"
    if isinstance(raw, int) and not isinstance(raw, bool) and abs(raw) > 10**30:
        return "a number beyond 1e30"
    text = "missing or null" if raw is None else ascii(raw)
    return text if len(text) <= 60 else text[:57] + "..."


def _nearest(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word[:64], known, 1, 0.5)
    return f": did you mean {near[0]!r}?" if near else ""


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {_shown(next(k for k in keys if keys.count(k) > 1))} is given twice in one object")
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
    return {"id": node.node_id, **memory, **given, key: [time_s if math.isfinite(time_s) else None for time_s in times]}


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
        "min_items_per_stage": asked.min_items_per_stage,
    }


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value}


def _finite(**values: float) -> dict[str, float]:
    return {name: value for name, value in values.items() if math.isfinite(value)}
