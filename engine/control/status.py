"""The cluster as an operator sees it: a pure function from `Cluster` to `ClusterStatus`."""

from __future__ import annotations

from dataclasses import replace

from engine.control.cluster import Cluster
from engine.control.expected import Circumstances, Expected, circumstances, expected
from engine.control.nodes.members import Member
from engine.control.sessions.session_status import session_status
from engine.data.model import ModelCard
from engine.data.plan import Plan
from engine.data.precision import Identity, Precision
from engine.data.status import (
    WINDOW_S,
    AdaptationState,
    ClusterStatus,
    EndedSessions,
    ModelStatus,
    NodeStatus,
    Phase,
    PrefixCacheStatus,
    SessionStatus,
    SpeculationState,
    Speed,
    StageStatus,
    Work,
)


def cluster_status(cluster: Cluster, cluster_id: str, now_s: float) -> ClusterStatus:
    """One look at everything, as of `now_s`."""
    card, plan = cluster.card, cluster.plan
    detail = _detail(cluster) if card or cluster.state.failure else cluster.model_progress[0]
    past, adapting = cluster.serving.past, cluster.adapting
    due = expected(plan, cluster.members, what_runs(cluster)) if plan else Expected()
    return ClusterStatus(
        cluster_id=cluster_id,
        phase=cluster.phase,
        detail=detail,
        model=_model(card, cluster.attendance.is_undecided) if card else ModelStatus(),
        plan_version=cluster.plan_version,
        strategy=plan.strategy if plan else cluster.strategy,
        num_workers_expected=cluster.gathering.num_expected,
        nodes=tuple(_node(m, now_s) for m in cluster.members),
        stages=_stages(cluster, plan, due) if plan else (),
        sessions=_sessions(cluster, now_s),
        speed=_speed(cluster, plan, due, now_s),
        ended=EndedSessions(past.num_done, past.num_failed, past.latest),
        uptime_s=now_s - cluster.started_s,
        failure=cluster.state.failure,
        adaptation=AdaptationState(str(adapting.mode), adapting.suggestion_id(cluster.plan_version)),
        identity=_identity(cluster, card) if card else Identity.UNKNOWN,
        work=_work(cluster),
    )


def what_runs(cluster: Cluster) -> Circumstances:
    """What the figures of a plan are told for; nothing in particular while nothing runs."""
    plan, metrics = cluster.plan, cluster.metrics
    if plan is None:
        return Circumstances()
    measured_s = {stage.node_id: metrics.stage(stage.node_id).compute_p50_s for stage in plan.stages}
    at_once = min(cluster.serving.num_lanes, max(1, len(cluster.scheduler.running())))
    return circumstances(plan, cluster.members, metrics.load(), measured_s, at_once)


def _prefix_cache(cluster: Cluster) -> PrefixCacheStatus:
    prefixes, items = cluster.serving.prefixes, cluster.card.items if cluster.card else ()
    return PrefixCacheStatus(
        is_on=prefixes.settings.is_on,
        num_kept=len(prefixes),
        kept_tokens=prefixes.num_tokens,
        kept_bytes=prefixes.num_tokens * sum(item.kv_bytes_per_token for item in items),
        prompt_tokens=prefixes.counts.prompt_tokens,
        cached_tokens=prefixes.counts.cached_tokens,
        num_evictions=prefixes.counts.evictions,
    )


def _work(cluster: Cluster) -> Work:
    metrics, load, guesses = cluster.metrics, cluster.metrics.load(), cluster.serving.speculation
    return Work(
        rows=load.rows,
        context_tokens=load.context_tokens,
        num_lanes=cluster.serving.num_lanes,
        prompt_share=metrics.prompt_share(),
        prompt_tokens_per_s=metrics.prompt_tokens_per_s(),
        kv_reserved_tokens=cluster.scheduler.reserved_tokens,
        kv_capacity_tokens=cluster.scheduler.capacity_tokens if cluster.plan else 0,
        prefix_cache=_prefix_cache(cluster),
        speculation=SpeculationState(str(guesses.mode), guesses.why_not, guesses.num_proposed, guesses.num_accepted),
    )


def _model(card: ModelCard, is_undecided: bool) -> ModelStatus:
    return ModelStatus(
        name=card.ref.model,
        random_weights=card.ref.random_weights is not None,
        has_tokenizer=not card.stand_in_tokenizer,
        num_items=card.num_items,
        context_tokens=card.context_tokens,
        precision=Precision(card.stored_dtype, choices=card.choices) if is_undecided else card.precision,
        stand_in_tokenizer=card.stand_in_tokenizer,
        tokenizer_source=card.tokenizer_source,
    )


def _speed(cluster: Cluster, plan: Plan | None, due: Expected, now_s: float) -> Speed:
    metrics = cluster.metrics
    return Speed(
        tokens_per_s=metrics.tokens_per_s(),
        step_p50_s=metrics.step_p50_s(),
        step_p95_s=metrics.step_p95_s(),
        predicted_bottleneck_s=plan.bottleneck_s if plan else 0.0,
        predicted_step_s=plan.round_trip_s if plan else 0.0,
        window_s=WINDOW_S,
        newest_s=metrics.since_newest_s(now_s),
        entry_hop_s=metrics.hop_s(0)[0],
        expected_entry_s=due.entry_s,
        expected_step_s=due.step_s,
    )


def _identity(cluster: Cluster, card: ModelCard) -> Identity:
    """The grade of the devices that compute, or would if all workers were used."""
    used = {stage.node_id for stage in cluster.plan.stages} if cluster.plan else None
    specs = [member.spec for member in cluster.members if used is None or member.spec.node_id in used]
    return Identity.UNKNOWN if cluster.attendance.is_undecided else card.identity_on(specs)


def _detail(cluster: Cluster) -> str:
    """Where only drained nodes are left the operator has the way out, and is told."""
    waiting = [m.spec.node_id for m in cluster.members if m.can_hold and m.draining]
    if cluster.phase is not Phase.GATHERING or cluster.state.failure or not waiting or cluster.members.eligible():
        return cluster.state.detail
    return f"{cluster.state.detail}; only drained nodes are left: `noodle-engine undrain {waiting[0]}` takes one in again"


def _node(member: Member, now_s: float) -> NodeStatus:
    spec, stage = member.spec, member.stage
    return NodeStatus(
        worker_id=spec.node_id,
        pid=spec.pid,
        host=spec.host,
        address=spec.address,
        device=spec.device,
        state=member.shown_state(),
        detail=member.failure or member.detail,
        progress=member.progress,
        start=stage.start if stage else 0,
        stop=stage.stop if stage else 0,
        memory_bytes=spec.memory_bytes,
        kv_budget_bytes=spec.kv_budget_bytes,
        heartbeat_age_s=max(0.0, now_s - member.seen_s),
        gauges=member.heartbeat.gauges,
        is_drained=member.draining,
        runtime_bytes=member.runtime_bytes,
    )


def _stages(cluster: Cluster, plan: Plan, due: Expected) -> tuple[StageStatus, ...]:
    metrics, rows, nothing = cluster.metrics, [], (0.0,) * len(plan.stages)
    predicted = zip(plan.stages, plan.stage_s, plan.hop_s or nothing, due.stage_s or nothing, due.hop_s or nothing, strict=True)
    for index, (stage, predicted_s, predicted_hop_s, expected_s, expected_hop_s) in enumerate(predicted, 1):
        seen, (hop_s, hop_p95_s) = metrics.stage(stage.node_id), metrics.hop_s(index)
        rows.append(
            StageStatus(
                stage.node_id,
                stage.start,
                stage.stop,
                predicted_s,
                seen.compute_p50_s,
                seen.compute_p95_s,
                seen.queue_p50_s,
                hop_s,
                seen.num_steps,
                seen.history_s,
                predicted_hop_s,
                expected_s,
                expected_hop_s,
                hop_p95_s,
            )
        )
    return tuple(rows)


def _sessions(cluster: Cluster, now_s: float) -> tuple[SessionStatus, ...]:
    scheduler = cluster.scheduler
    places = {s.session_id: place for place, s in enumerate(scheduler.queued(), 1)}
    rows = []
    for session in scheduler:
        proposals = cluster.serving.speculation.counts(session.session_id)
        row, place = session_status(session, now_s, proposals), places.get(session.session_id, 0)
        if place:
            serves = cluster.phase is Phase.SERVING
            why = scheduler.waits_for(place, session) if serves else f"no plan serves: {cluster.state.detail}"
            row = replace(row, queue_place=place, waiting_s=now_s - session.waiting_since_s, why=why)
        rows.append(row)
    return tuple(rows)
