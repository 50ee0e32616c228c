"""The invariants of a cluster, as one function that raises AssertionError; tests and drills call it after every event."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.data import Phase, Plan

if TYPE_CHECKING:
    from engine.control.cluster import Cluster


def check_cluster(cluster: Cluster) -> None:
    """Queue, reservations, plan and steps in flight agree with each other."""
    scheduler, running = cluster.scheduler, cluster.scheduler.running()
    scheduler.check()
    _holds((cluster.phase is Phase.GATHERING) == (cluster.plan is None), f"phase {cluster.phase} with plan {cluster.plan}")
    _holds(not running or cluster.phase is Phase.SERVING, f"sessions run in phase {cluster.phase}")
    _holds(not running or scheduler.reserved_tokens <= scheduler.capacity_tokens, "more KV is reserved than every stage can hold")
    if cluster.plan is not None:
        _check_plan(cluster, cluster.plan)
    for session_id in cluster.in_flight():
        session = scheduler.get(session_id)
        _holds(session is None or session in running, f"queued session {session_id} has a step in flight")


def _check_plan(cluster: Cluster, plan: Plan) -> None:
    bounds = [b for s in plan.stages for b in (s.start, s.stop)]
    num_items = cluster.card.num_items if cluster.card else 0
    covered = bounds[0] == 0 and bounds[-1] == num_items and bounds[1:-1:2] == bounds[2::2]
    _holds(covered, f"the stages do not cover the items once: {plan.stages}")
    _holds(plan.plan_version == cluster.plan_version, "the plan is not the current version")
    for stage in plan.stages:
        member = cluster.members.get(stage.node_id)
        _holds(member is not None and member.alive and member.stage == stage, f"{stage} is on a node that is lost or does not know it")


def _holds(condition: bool, what: str) -> None:
    if not condition:
        raise AssertionError(what)
