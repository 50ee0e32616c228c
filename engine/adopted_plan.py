"""A plan that the cluster once adopted: a noun that the journal, the wire and the client share."""

from __future__ import annotations

from dataclasses import dataclass

from engine.data import Plan


@dataclass(frozen=True, slots=True)
class AdoptedPlan:
    """`wall_s` is when it was adopted, in seconds since 1970."""

    wall_s: float
    plan: Plan
