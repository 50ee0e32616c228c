"""The plan that serves, by the times that the coordinator plans with now. Pure.

A status keeps the times that a plan was made with. The coordinator's later plans rest on newer ones (a profile, what adaptation
has seen), and a candidate must be compared with the present plan on the same footing, or every gain is measured against the past.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from engine.data.errors import InvalidInput
from engine.data.plan import Plan, Stage
from engine.data.status import ClusterStatus
from noodle_tui.state import ConsoleState


def present_plan(problem_json: str, status: ClusterStatus) -> Plan:
    """The stages of `status` with the times of the coordinator's planning problem; raises InvalidInput if they are not in it."""
    try:
        nodes = {str(node["id"]): node for node in json.loads(problem_json)["nodes"]}
        times = tuple(_stage_s(nodes[stage.worker_id], stage.start, stage.stop) for stage in status.stages)
    except (ValueError, KeyError, TypeError, IndexError) as problem:
        raise InvalidInput(f"the coordinator's planning problem does not hold the present stages: {problem!r}") from None
    stages = tuple(Stage(stage.worker_id, stage.start, stage.stop) for stage in status.stages)
    slowest_s = max(times, default=0.0)
    return Plan(status.plan_version, status.strategy, stages, times, slowest_s, sum(times), slowest_s)


def _stage_s(node: dict[str, Any], start: int, stop: int) -> float:
    if "stage_time_s" in node:
        return float(node["stage_time_s"][stop - start - 1])
    times = node["time_s"]
    if stop > len(times):
        raise IndexError(f"item {stop - 1} of {len(times)}")
    return float(node.get("base_s", 0.0) + sum(times[start:stop]))


def replanned(state: ConsoleState, status: ClusterStatus) -> ClusterStatus:
    """`status` with what its stages would be planned to take now, where the coordinator was asked about this very plan."""
    plan = state.whatif.present
    if plan is None or plan.plan_version != status.plan_version or len(plan.stage_s) != len(status.stages):
        return status
    stages = tuple(replace(stage, predicted_s=time_s) for stage, time_s in zip(status.stages, plan.stage_s, strict=True))
    return replace(status, stages=stages)
