"""Identical items on uniform links: any order of the nodes is as good as another, so one given order is searched.

That makes the problem polynomial, also where the stages' times follow tables that do not rise.
"""

from __future__ import annotations

from engine.planning.problem import ADDITIVE, Link, Problem


def interchangeable(problem: Problem) -> bool:
    """Whether the order of the nodes changes nothing but which of them comes last (and so sends nothing)."""
    items, c = problem.items, problem.constraints
    alike = {(i.weight_bytes, i.kv_bytes_per_token, i.tied_to) for i in items}
    hops = {i.output_bytes_per_token for i in items[:-1]}
    return (
        problem.free_order
        and isinstance(problem.links, Link)
        and problem.equal_ends
        and len(alike) == 1
        and items[0].tied_to is None
        and len(hops) <= 1
        and len(set(problem.workspace_bytes)) <= 1
        and not c.pins
        and not c.stage_items
        and all(node.stage_time_s or len(set(node.time_s)) == 1 for node in problem.nodes)
    )


def last_matters(problem: Problem) -> bool:
    """Whether it matters which node comes last in an interchangeable problem."""
    link = problem.links
    assert isinstance(link, Link)  # noqa: S101  for the type checker
    hop_s = link.transfer_s(problem.items[0].output_bytes_per_token)
    least = min(node.base_s + min(node.stage_time_s or node.time_s) for node in problem.nodes)
    return hop_s > 0 if problem.link_cost == ADDITIVE else hop_s > least
