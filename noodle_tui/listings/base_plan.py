"""What plans are compared with: the plan that serves, as the coordinator prices it now. Pure; it computes no figure of a plan.

A status keeps the figures that a plan was made with. The coordinator's answers rest on newer times (a profile, what adaptation
has seen), so it prices the present stages together with the candidates. Where it has not, the old figures are shown and no gain.
"""

from __future__ import annotations

from engine.data.plan import Plan, Stage
from engine.data.status import ClusterStatus
from noodle_tui.state import ConsoleState


def as_made(status: ClusterStatus) -> Plan:
    """The plan that serves, with the figures that it was adopted with."""
    stages = status.stages
    return Plan(
        plan_version=status.plan_version,
        strategy=status.strategy,
        stages=tuple(Stage(stage.worker_id, stage.start, stage.stop) for stage in stages),
        stage_s=tuple(stage.predicted_s for stage in stages),
        bottleneck_s=status.speed.predicted_bottleneck_s,
        round_trip_s=status.speed.predicted_step_s,
        hop_s=tuple(stage.predicted_hop_s for stage in stages),
    )


def holds_for(plan: Plan | None, status: ClusterStatus) -> bool:
    """Whether `plan` is what the coordinator said of the very stages that serve."""
    return plan is not None and plan.for_version == status.plan_version and plan.stages == as_made(status).stages


def base_plan(state: ConsoleState) -> Plan | None:
    """What candidates are compared with; None before the first frame."""
    if state.latest is None:
        return None
    priced = state.whatif.present
    return priced if holds_for(priced, state.latest.status) else as_made(state.latest.status)


def gain_of(plan: Plan, base: Plan) -> float | None:
    """By how much more tokens a second `plan` allows; None for the same stages, and beside figures of another time."""
    same_time = base.for_version == plan.for_version
    if plan.stages == base.stages or not same_time or plan.bottleneck_s <= 0 or base.bottleneck_s <= 0:
        return None
    return base.bottleneck_s / plan.bottleneck_s - 1
