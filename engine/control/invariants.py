"""The invariants of a cluster, as one function that raises AssertionError; tests and drills call it after every event."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from engine.control.sessions.session import Session, SessionState
from engine.data.generation import Segment
from engine.data.plan import Plan
from engine.data.status import Phase

if TYPE_CHECKING:
    from engine.control.cluster import Cluster


def check_cluster(cluster: Cluster) -> None:
    """Queue, reservations, plan and steps in flight agree with each other."""
    cluster.scheduler.check()
    cluster.serving.prefixes.check()
    for what in _broken(cluster):
        raise AssertionError(what)


def _broken(cluster: Cluster) -> Iterator[str]:
    """What does not hold. Texts are made only then: drills ask after every event."""
    scheduler, running = cluster.scheduler, cluster.scheduler.running()
    if (cluster.phase is Phase.GATHERING) != (cluster.plan is None):
        yield f"phase {cluster.phase} with plan {cluster.plan}"
    if running and cluster.phase is not Phase.SERVING:
        yield f"sessions run in phase {cluster.phase}"
    if running and scheduler.reserved_tokens > scheduler.capacity_tokens:
        yield "more KV is reserved than every stage can hold"
    kept, is_settled = cluster.serving.prefixes.num_tokens, cluster.phase is Phase.SERVING and not cluster.rebalancer.holds_steps
    if kept and is_settled and kept > scheduler.free_tokens:
        yield f"KV of {kept} tokens is kept, though sessions leave {scheduler.free_tokens}"
    if cluster.plan is None and kept:
        yield "KV is kept without a plan"
    if cluster.plan is not None:
        yield from _broken_plan(cluster, cluster.plan)
    yield from _broken_members(cluster)
    yield from _broken_flights(cluster)
    move = cluster.rebalancer.move
    if move is not None and cluster.phase is not Phase.SERVING:
        yield f"a move in phase {cluster.phase}"
    if move is not None and cluster.plan != (move.new if move.committed else move.old):
        yield "a move is between two plans"


def _broken_members(cluster: Cluster) -> Iterator[str]:
    """A drain is kept by name and holds for whoever has the name; who is lost holds nothing."""
    drained = set(cluster.members.drained)
    for member in cluster.members:
        if member.draining != (member.spec.node_id in drained):
            yield f"{member.spec.node_id} is {'' if member.draining else 'not '}draining, the drained are {sorted(drained)}"
        if member.stage is not None and not member.alive:
            yield f"{member.spec.node_id} is lost and holds a stage"


def _broken_flights(cluster: Cluster) -> Iterator[str]:
    """In its present epoch a session has at most one step in flight that samples, and one behind that which follows it where one stage
    holds the model; none of its tokens is there twice."""
    serving = cluster.serving
    if serving.runs_ahead and cluster.plan is not None and len(cluster.plan.stages) > 1:
        yield "steps run ahead of a stage that does not choose tokens"
    most = serving.num_lanes + serving.runs_ahead
    if len(serving.flights) > most:
        yield f"{len(serving.flights)} steps are in flight, {most} may be"
    seen: dict[str, list[Segment]] = {}
    for flight in serving.flights.values():
        for segment in flight.segments:
            session = cluster.scheduler.get(segment.session_id)
            if session is not None and session.epoch == segment.epoch:
                if session.state is SessionState.QUEUED:
                    yield f"queued session {session.session_id} has a step in flight"
                seen.setdefault(segment.session_id, []).append(segment)
    for session_id, segments in seen.items():
        session = cluster.scheduler.get(session_id)
        sampling = sorted((s for s in segments if s.sample_index is not None), key=lambda s: s.sample_index or 0)
        if session is not None:
            yield from _broken_sampling(session, sampling)
        positions = [p for s in segments for p in range(s.position, s.position + len(s.token_ids))]
        if len(set(positions)) != len(positions):
            yield f"{session_id} has tokens in flight twice"


def _broken_sampling(session: Session, segments: Sequence[Segment]) -> Iterator[str]:
    """Of one session, in the order of what they sample."""
    num_generated, name = len(session.generated), session.session_id
    if [s.sample_index for s in segments] != [*range(num_generated, num_generated + len(segments))]:
        yield f"{name} has {num_generated} tokens, and others than the next are sampled"
    if len(segments) > 2 or not all(s.follows for s in segments[1:]):
        yield f"{name} is sampled twice at once"
    if any(s.num_proposed for s in segments[:-1]):
        yield f"{name} has a step in flight behind proposals"
    if session.request.grammar is not None and any(s.follows for s in segments):
        yield f"{name} has a grammar, and a step in flight that no mask can be for"
    if num_generated + len(segments) > session.max_new_tokens:
        yield f"{name} may have {session.max_new_tokens} tokens, and more are sampled"


def _broken_plan(cluster: Cluster, plan: Plan) -> Iterator[str]:
    bounds = [b for s in plan.stages for b in (s.start, s.stop)]
    num_items = cluster.card.num_items if cluster.card else 0
    if bounds[0] != 0 or bounds[-1] != num_items or bounds[1:-1:2] != bounds[2::2]:
        yield f"the stages do not cover the items once: {plan.stages}"
    if plan.plan_version != cluster.plan_version:
        yield "the plan is not the current version"
    for stage in plan.stages:
        member = cluster.members.get(stage.node_id)
        if member is None or not member.alive or member.stage != stage:
            yield f"{stage} is on a node that is lost or does not know it"
