"""A plan that the cluster once adopted: a noun that the journal, the wire and the client share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.data.errors import NotFound
from engine.data.plan import Plan


@dataclass(frozen=True, slots=True)
class AdoptedPlan:
    """`wall_s` is when it was adopted, in seconds since 1970."""

    wall_s: float
    plan: Plan


def former_plan(plans: Sequence[AdoptedPlan], present: int, wanted: int | None = None) -> Plan:
    """The plan of that number, or the newest one whose stages are not the present ones; raises NotFound naming those there are."""
    now = next((found.plan for found in plans if found.plan.plan_version == present), None)
    others = [found.plan for found in plans if now is None or found.plan.stages != now.stages]
    fitting = [plan for plan in others if wanted in (None, plan.plan_version)]
    if fitting:
        return fitting[-1]
    known = ", ".join(f"#{plan.plan_version}" for plan in others) or "none"
    what = f"plan #{wanted} is not one to go back to" if wanted else f"there is no plan before #{present} to go back to"
    raise NotFound(f"{what}; plans with other stages: {known}")
