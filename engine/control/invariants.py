"""The invariants of a cluster, as one function that raises AssertionError; tests and drills call it after every event."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.control.session import SessionState
from engine.data import Phase, Plan, Segment

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
    _check_flights(cluster)
    move = cluster.rebalancer.move
    if move is not None:
        _holds(cluster.phase is Phase.SERVING, f"a move in phase {cluster.phase}")
        _holds(cluster.plan == (move.new if move.committed else move.old), "a move is between two plans")


def _check_flights(cluster: Cluster) -> None:
    """In its present epoch a session has at most one step in flight that samples, and none of its tokens twice."""
    serving = cluster.serving
    _holds(len(serving.flights) <= serving.num_lanes, f"{len(serving.flights)} steps are in flight, {serving.num_lanes} may be")
    seen: dict[str, list[Segment]] = {}
    for flight in serving.flights.values():
        for segment in flight.segments:
            session = cluster.scheduler.get(segment.session_id)
            if session is not None and session.epoch == segment.epoch:
                _holds(session.state is not SessionState.QUEUED, f"queued session {session.session_id} has a step in flight")
                seen.setdefault(segment.session_id, []).append(segment)
    for session_id, segments in seen.items():
        _holds(sum(s.sample_index is not None for s in segments) <= 1, f"{session_id} is sampled twice at once")
        positions = [p for s in segments for p in range(s.position, s.position + len(s.token_ids))]
        _holds(len(set(positions)) == len(positions), f"{session_id} has tokens in flight twice")


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
