"""What plans are compared with: the plan that serves, as the coordinator prices it now. Pure; it computes no figure of a plan.

What a plan was made to take, for the steps that run, is `planned` on every screen. The coordinator's answers rest on newer times (a
profile, what adaptation has seen), so it prices the present stages together with the candidates. Where it has not, nothing is a gain.
"""

from __future__ import annotations

from dataclasses import replace

from engine.data.plan import Plan, Stage
from engine.data.status import ClusterStatus
from noodle_tui.listings.stage_times import step_times
from noodle_tui.state import ConsoleState

APART = 0.05  # prices that differ by less are told as one


def as_planned(status: ClusterStatus) -> Plan:
    """The plan that serves, with its planned figures."""
    stages = status.stages
    plan = Plan(
        plan_version=status.plan_version,
        strategy=status.strategy,
        stages=tuple(Stage(stage.worker_id, stage.start, stage.stop) for stage in stages),
        stage_s=tuple(stage.planned_s for stage in stages),
        round_trip_s=step_times(status)[0],
        hop_s=tuple(stage.predicted_hop_s for stage in stages),
    )
    index, is_hop = plan.slowest
    times_s = plan.hop_s if is_hop else plan.stage_s
    return replace(plan, bottleneck_s=times_s[index]) if times_s else plan


def holds_for(plan: Plan | None, status: ClusterStatus) -> bool:
    """Whether `plan` is what the coordinator said of the very stages that serve."""
    return plan is not None and plan.for_version == status.plan_version and plan.stages == as_planned(status).stages


def base_plan(state: ConsoleState) -> Plan | None:
    """What candidates are compared with; None before the first frame."""
    if state.latest is None:
        return None
    priced = state.whatif.present
    return priced if holds_for(priced, state.latest.status) else as_planned(state.latest.status)


def is_repriced(plan: Plan, status: ClusterStatus) -> bool:
    """Whether the present stages are priced as something else than what was planned for them."""
    planned = as_planned(status)
    pairs = ((plan.round_trip_s, planned.round_trip_s), (plan.bottleneck_s, planned.bottleneck_s))
    return any(abs(priced_s - planned_s) > APART * planned_s for priced_s, planned_s in pairs)


def gain_of(plan: Plan, base: Plan) -> float | None:
    """By how much more tokens a second `plan` allows; None for the same stages, and beside figures of another time."""
    same_time = base.for_version == plan.for_version
    if plan.stages == base.stages or not same_time or plan.bottleneck_s <= 0 or base.bottleneck_s <= 0:
        return None
    return base.bottleneck_s / plan.bottleneck_s - 1
