"""What a live change of plan did: a noun that the control room, the wire and the client share."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MoveReport:
    """What a live change of plan moved, and how long tokens waited for it; `outcome` is "done" or why it was dropped."""

    plan_version: int
    cause: str
    num_items: int
    weight_bytes: int
    kv_bytes: int
    prepare_s: float
    pause_s: float
    outcome: str
