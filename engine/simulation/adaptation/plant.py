"""The modelled pipeline of the adaptation traces: 26 items on three nodes, and what is true of it under a condition.

A policy sees the problem as the workers measured it; this file knows what really holds.
"""

from __future__ import annotations

import math

from engine.control.adaptation.watching.beliefs import Beliefs, HeterogeneousPlan, plan_under
from engine.control.adaptation.watching.problem import corrected, link_name, links_of, with_slower_links
from engine.data.model import Item
from engine.data.plan import Plan, Stage
from engine.planning.problem import Link, PlanningNode, Problem
from engine.planning.strategies import make_plan
from engine.profile.cost_model import CostModel, ItemLaw, PhaseLaws
from engine.profile.point import DECODE, Point
from engine.simulation.adaptation.traces import NODES, Condition

IN_FLIGHT = 4
HOP_S = 0.0005
NODE_FACTORS = {"w1": 1.0, "w2": 1.3, "w3": 1.0}
RUNTIME_BYTES = 3e8
CAP_BYTES = 1.7e9
_ITEMS = tuple(Item(f"h.{i}", 100_000_000, 8_192, 4_096) for i in range(26))
_TRUE_PAIRS = 1.2  # attention really costs this much more than the policies' cost model says
_ITEM_S = (0.0002, *(0.0010,) * 24, 0.0018)


def cost_model(pair_error: float = 1.0) -> CostModel:
    """What the planner believes of batch and context; the plant itself may differ from it by `pair_error`."""
    law = ItemLaw((1.0, 1.15, 1.4, 2.0), 2e-4 * pair_error)
    return CostModel((PhaseLaws(DECODE, (1, 2, 4, 8), (law,) * len(_ITEMS)),))


def problem(nodes: tuple[str, ...] = NODES) -> Problem:
    return Problem(
        _ITEMS,
        tuple(PlanningNode(n, CAP_BYTES - RUNTIME_BYTES, tuple(t * NODE_FACTORS[n] for t in _ITEM_S)) for n in nodes),
        links=Link(HOP_S),
        free_order=False,
    )


def true_problem(condition: Condition, avoid_cliffs: bool = False) -> Problem:
    """The problem as a planner would see it that knew everything; a cliff is a limit of items to it."""
    levels = {n: math.log(f) for n, f in condition.factors.items()}
    room = {n: CAP_BYTES - RUNTIME_BYTES - leak for n, leak in condition.leak_bytes.items()}
    if avoid_cliffs:
        room |= {n: num_items * _ITEMS[0].weight_bytes for n, (num_items, _) in condition.cliffs.items()}
    return corrected(with_slower_links(problem(condition.nodes), condition.link_factors), levels, room)


def runs_as(stages: tuple[Stage, ...], condition: Condition) -> HeterogeneousPlan | None:
    """A placement as it really runs; None if a node is gone or its memory is full."""
    truth = true_problem(condition)
    index = {n.node_id: k for k, n in enumerate(truth.nodes)}
    if any(s.node_id not in index or not truth.fits(index[s.node_id], s.start, s.stop) for s in stages):
        return None
    beliefs = Beliefs()
    for link in (link_name(*pair) for pair in links_of(stages)):
        beliefs.link_s[link] = HOP_S * condition.link_factors.get(link, 1.0)
    shape = cost_model(_TRUE_PAIRS)
    scale = shape.step_s(condition.point, 0, 1) / shape.step_s(Point(DECODE, 1, 16, 1), 0, 1)
    falls = {s.node_id: condition.cliffs[s.node_id] for s in stages if s.node_id in condition.cliffs}
    levels = {s.node_id: math.log(scale) for s in stages}
    for stage in stages:
        num_items, factor = falls.get(stage.node_id, (stage.num_items, 1.0))
        levels[stage.node_id] += math.log(factor) if stage.num_items > num_items else 0.0
    return plan_under(stages, truth, beliefs, levels, IN_FLIGHT)


def period_s(stages: tuple[Stage, ...], condition: Condition) -> float:
    """Seconds per step; infinite where the placement cannot run."""
    running = runs_as(stages, condition)
    return running.period_s if running else math.inf


def best_plan(condition: Condition, strategy: str = "balanced") -> Plan:
    """What a planner makes that knows everything."""
    return make_plan(true_problem(condition, avoid_cliffs=True), strategy, 1)
