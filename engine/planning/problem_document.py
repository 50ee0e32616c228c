"""A planning problem as the JSON document that `problem_json` reads: `read_problem(problem_to_json(p)) == p`."""

from __future__ import annotations

import json
import math
from typing import Any

from engine.data.model import Item
from engine.planning.problem import CoordinatorLink, Link, PlanningNode, Problem


def problem_to_json(problem: Problem) -> str:
    """ASCII; what has no limit is left out, what cannot run is null."""
    return json.dumps(problem_document(problem), ensure_ascii=True, allow_nan=False)


def problem_document(problem: Problem) -> dict[str, Any]:
    """The same before it is text. Pins name their item by index, or by name where an item is called like that number."""
    workspace = problem.workspace_bytes or (0,) * len(problem.items)
    links = problem.links
    return {
        "items": [_item(item) | _given(workspace_bytes=size) for item, size in zip(problem.items, workspace, strict=True)],
        "nodes": [_node(node) for node in problem.nodes],
        "links": _link(links) if isinstance(links, Link) else [{"from": p.from_id, "to": p.to_id, **_link(p.link)} for p in links],
        "node_order": "free" if problem.free_order else "given",
        "link_cost": problem.link_cost,
        **_given(coordinator_links=[_coordinator_link(c) for c in problem.coordinator]),
        "return_hop": problem.return_hop,
        "sessions": problem.sessions,
        "context_tokens": problem.context_tokens,
        "in_flight": problem.in_flight,
        "use_all_nodes": problem.use_all_nodes,
        "memory_pools": [{"id": pool.pool_id, "memory_bytes": pool.memory_bytes} for pool in problem.pools],
        "constraints": _constraints(problem),
    }


def _item(item: Item) -> dict[str, Any]:
    tie = {} if item.tied_to is None else {"tied_to": item.tied_to, "tied_bytes": item.tied_bytes}
    sizes = {"kv_bytes_per_token": item.kv_bytes_per_token, "output_bytes": item.output_bytes_per_token}
    return {"name": item.name, "weight_bytes": item.weight_bytes, **sizes, **tie}


def _node(node: PlanningNode) -> dict[str, Any]:
    key, times = ("stage_time_s", node.stage_time_s) if node.stage_time_s else ("time_s", node.time_s)
    given = _given(base_s=node.base_s, price_per_s=node.price_per_s, buffer_bytes=node.buffer_bytes, memory_pool=node.pool_id)
    memory = _finite(memory_bytes=node.memory_bytes)
    return {"id": node.node_id, **memory, **given, key: [time_s if math.isfinite(time_s) else None for time_s in times]}


def _link(link: Link) -> dict[str, Any]:
    return {"latency_s": link.latency_s, **_finite(bandwidth_bytes_per_s=link.bandwidth_bytes_per_s)}


def _coordinator_link(c: CoordinatorLink) -> dict[str, Any]:
    return {"node": c.node_id, "to_node": _link(c.to_node), "from_node": _link(c.from_node)}


def _constraints(problem: Problem) -> dict[str, Any]:
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
